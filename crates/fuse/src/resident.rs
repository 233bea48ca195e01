//! Memory that the kernel can copy from and to without a page fault.
//!
//! A fault in the middle of reading a request or of writing a reply fails once the process is killed, and the request
//! then ends with `EIO`: docs/decisions/2026-11-21-live-descriptors.md has what was tried.

use std::io;

const PAGE: usize = 4096;

/// Makes each page of a reply's bytes one that this process has written: a page of a fresh zeroed allocation is not
/// there yet. The bytes stay what they are.
pub(crate) fn settle(bytes: &mut [u8]) {
    for page in bytes.chunks_mut(PAGE) {
        store(page, 0);
        // Where the allocation does not begin at a page's start, a chunk ends in the next page.
        store(page, page.len() - 1);
    }
}

fn store(bytes: &mut [u8], at: usize) {
    bytes[at] = std::hint::black_box(bytes[at]);
}

/// Makes the buffer resident that a request was read to, of whose beginning `read` is a part.
pub(crate) fn settle_read_buffer(read: &[u8]) -> io::Result<()> {
    use rustix::mm::{Advice, madvise};
    // A WRITE of the greatest size, and the page of heads that it begins in.
    let length = mounts::TRANSFER_MAX as usize + 2 * PAGE;
    let start = read.as_ptr().map_addr(|address| address & !(PAGE - 1));
    // SAFETY: MADV_POPULATE_WRITE faults pages in as a write would, and changes no byte of them; see madvise(2).
    #[allow(unsafe_code)]
    unsafe {
        madvise(start.cast_mut().cast(), length, Advice::LinuxPopulateWrite)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{PAGE, settle, settle_read_buffer};

    /// Which pages of a range are in memory: bit 63 of their entries, see proc_pid_pagemap(5).
    fn present(bytes: &[u8]) -> Vec<bool> {
        use std::os::unix::fs::FileExt;
        let map = std::fs::File::open("/proc/self/pagemap").expect("the page map");
        let (first, last) = (bytes.as_ptr().addr() / PAGE, (bytes.as_ptr().addr() + bytes.len() - 1) / PAGE);
        let entry = |page: usize| {
            let mut entry = [0; 8];
            map.read_exact_at(&mut entry, page as u64 * 8).expect("an entry");
            u64::from_ne_bytes(entry) >> 63 == 1
        };
        (first..=last).map(entry).collect()
    }

    #[test]
    fn settled_bytes_are_what_they_were() {
        for length in [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 7] {
            let before: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut after = before.clone();
            settle(&mut after);
            assert_eq!(before, after);
        }
    }

    #[test]
    fn pages_of_a_fresh_allocation_come_with_settling() {
        // Greater than any that was freed before, so that it is new to the process.
        let mut reply = vec![0; 40 << 20];
        assert!(present(&reply).contains(&false), "there is nothing to settle");
        settle(&mut reply);
        assert!(present(&reply).iter().all(|there| *there));
    }

    #[test]
    fn a_read_buffer_is_there_to_the_end_of_the_greatest_request() {
        let buffer = vec![0; 48 << 20];
        let used = mounts::TRANSFER_MAX as usize + PAGE;
        assert!(present(&buffer[..used]).contains(&false), "there is nothing to settle");
        settle_read_buffer(&buffer[80..81]).expect("there is memory");
        assert!(present(&buffer[..used]).iter().all(|there| *there));
    }
}
