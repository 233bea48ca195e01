//! Where requests are read to.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::wire::{HEADER_LEN, WRITE_LEN};

/// What comes before the data of a WRITE. All that is behind it lands in memory of its own, so that the data can be handed
/// on as it is.
pub(super) const HEAD: usize = HEADER_LEN + WRITE_LEN;

/// Data of this many bytes are handed on in the memory they were read into; less is copied, and the memory is used again.
const HANDED_ON: usize = 128 << 10;

const PAGE: usize = 4096;

/// Within one page: the kernel copies to each page by itself.
#[repr(align(128))]
struct Head([u8; HEAD]);

/// Memory for one request. All pages of it are there before the kernel writes to them: a fault in the middle of that ends
/// the request with `EIO` once the process is killed (docs/decisions/2026-11-21-live-descriptors.md).
pub(super) struct Buffer {
    head: Head,
    tail: Vec<u8>,
    tail_max: usize,
    joined: Vec<u8>,
    received: usize,
}

impl Buffer {
    /// For connections whose WRITEs carry up to `max_write` bytes.
    pub(super) fn new(max_write: u32) -> Buffer {
        let tail_max = (max_write as usize).max(16 << 10);
        Buffer { head: Head([0; HEAD]), tail: Vec::new(), tail_max, joined: Vec::new(), received: 0 }
    }

    /// Waits for the next request. See read(2), and fuse(4) for what the errors mean.
    pub(super) fn read(&mut self, device: BorrowedFd<'_>) -> Result<(), rustix::io::Errno> {
        self.tail.clear();
        if self.tail.capacity() < self.tail_max {
            self.tail = fresh(self.tail_max);
        }
        let parts = [
            libc::iovec { iov_base: self.head.0.as_mut_ptr().cast(), iov_len: HEAD },
            libc::iovec { iov_base: self.tail.as_mut_ptr().cast(), iov_len: self.tail_max },
        ];
        // SAFETY: both parts are memory of this value, borrowed mutably for the call: an array of HEAD bytes, and a vector
        // with room for `tail_max`. The kernel only writes to them.
        #[allow(unsafe_code)]
        let received = unsafe { libc::readv(device.as_raw_fd(), parts.as_ptr(), parts.len() as i32) };
        let Ok(received) = usize::try_from(received) else {
            let error = std::io::Error::last_os_error();
            return Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO));
        };
        self.received = received;
        let behind = received.saturating_sub(HEAD).min(self.tail_max);
        // SAFETY: the kernel fills the parts in their order, so this many bytes of the second one are written; they are
        // within what was reserved.
        #[allow(unsafe_code)]
        unsafe {
            self.tail.set_len(behind);
        }
        Ok(())
    }

    /// How many bytes came.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// Their beginning: all that comes before the data of a WRITE.
    pub(super) fn head(&self) -> &[u8] {
        &self.head.0[..self.received.min(HEAD)]
    }

    /// All of them.
    pub(super) fn whole(&mut self) -> &[u8] {
        if self.received <= HEAD {
            return self.head();
        }
        self.joined.clear();
        self.joined.extend_from_slice(&self.head.0);
        self.joined.extend_from_slice(&self.tail);
        &self.joined
    }

    /// The data of a WRITE, out of the buffer.
    pub(super) fn take_data(&mut self) -> Vec<u8> {
        if self.tail.len() >= HANDED_ON { std::mem::take(&mut self.tail) } else { self.tail.clone() }
    }
}

/// New memory, each of whose pages this process has written.
fn fresh(bytes: usize) -> Vec<u8> {
    let mut memory = Vec::with_capacity(bytes);
    let room = memory.spare_capacity_mut();
    room.chunks_mut(PAGE).for_each(|page| _ = page[0].write(0));
    // Where it does not begin at a page's start, its last page has no chunk's beginning.
    room.last_mut().map(|last| last.write(0));
    memory
}

#[cfg(test)]
mod tests {
    use super::{Buffer, HANDED_ON, HEAD};
    use std::os::fd::AsFd;

    fn read(buffer: &mut Buffer, bytes: &[u8]) {
        let (reader, writer) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
        writer.send(bytes).expect("sent");
        buffer.read(reader.as_fd()).expect("read");
    }

    #[test]
    fn a_request_is_whole_wherever_its_parts_landed() {
        let mut buffer = Buffer::new(4096);
        for len in [0, 1, HEAD - 1, HEAD, HEAD + 1, 9000] {
            let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
            read(&mut buffer, &bytes);
            assert_eq!(buffer.received(), len);
            assert_eq!(buffer.head(), &bytes[..len.min(HEAD)]);
            assert_eq!(buffer.whole(), bytes);
            assert_eq!(buffer.take_data(), bytes[len.min(HEAD)..]);
        }
    }

    #[test]
    fn much_data_is_handed_on_without_a_copy_and_little_leaves_the_buffer() {
        let mut buffer = Buffer::new(HANDED_ON as u32);
        read(&mut buffer, &vec![1; HEAD + HANDED_ON - 1]);
        let place = buffer.tail.as_ptr();
        let data = buffer.take_data();
        assert_ne!(data.as_ptr(), place);
        read(&mut buffer, &vec![2; HEAD + HANDED_ON]);
        let place = buffer.tail.as_ptr();
        let data = buffer.take_data();
        assert_eq!((data.as_ptr(), data.len()), (place, HANDED_ON));
        read(&mut buffer, &[3; HEAD + 5]);
        assert_eq!((buffer.take_data(), data[0]), (vec![3; 5], 2));
    }
}
