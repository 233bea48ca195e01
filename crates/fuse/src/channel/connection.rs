//! The kernel's end of a mount, and replies to it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::retry_on_intr;
use types::Errno;

use super::waiting::Waiting;
use crate::server::Server;

/// The kernel takes no errno from here on.
const ERRNO_END: i32 = 512;

/// Length of `fuse_out_header`.
const HEADER_LEN: usize = 16;

/// Replies up to this length are copied behind their header: that is cheaper than to tell the kernel of two places.
const SMALL: usize = 512;

/// One connection, and what serves it.
pub(super) struct Connection {
    device: OwnedFd,
    pub(super) server: Arc<Server>,
    pub(super) waiting: Waiting,
}

impl Connection {
    pub(super) fn new(device: OwnedFd, server: Arc<Server>) -> Connection {
        Connection { device, server, waiting: Waiting::default() }
    }

    pub(super) fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Answers the request of this number, as it came.
    pub(super) fn reply(&self, unique: u64, result: Result<&[u8], Errno>) {
        match send(self.device(), unique, result) {
            Ok(()) => {}
            // Nobody waits for it any more: it was answered by whoever had this connection before, or was aborted.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                tracing::debug!(unique, "a reply that nobody waited for");
            }
            // The mount is gone.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ECONNABORTED)) => {}
            // The kernel has ended the request with an error.
            Err(error) => tracing::error!(unique, %error, "the kernel did not take a reply"),
        }
    }
}

/// Writes one reply: `fuse_out_header` and what follows it, in one call, as the kernel wants it.
pub(super) fn send(device: BorrowedFd<'_>, unique: u64, result: Result<&[u8], Errno>) -> io::Result<()> {
    let body = result.unwrap_or_default();
    let error =
        result.err().map_or(0, |error| if (1..ERRNO_END).contains(&error.0) { error.0 } else { libc::EIO });
    let len = HEADER_LEN + body.len();
    let mut small = [0; SMALL];
    let (header, room) = small.split_at_mut(HEADER_LEN);
    header[..4].copy_from_slice(&(len as u32).to_ne_bytes());
    header[4..8].copy_from_slice(&(-error).to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    let written = if let Some(room) = room.get_mut(..body.len()) {
        room.copy_from_slice(body);
        retry_on_intr(|| rustix::io::write(device, &small[..len]))
    } else {
        retry_on_intr(|| rustix::io::writev(device, &[IoSlice::new(header), IoSlice::new(body)]))
    };
    Ok(written.map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::{HEADER_LEN, SMALL, send};
    use std::os::fd::AsFd;
    use types::Errno;

    #[test]
    fn a_reply_carries_its_length_error_and_number() {
        let (reader, writer) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
        let sent = |unique, result: Result<Vec<u8>, Errno>| {
            let result = result.as_deref().map_err(|error| *error);
            send(writer.as_fd(), unique, result).expect("sent");
            let mut bytes = vec![0; 2000];
            let len = reader.recv(&mut bytes).expect("received");
            bytes.truncate(len);
            let word = |at: usize| i32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four"));
            let echoed = u64::from_ne_bytes(bytes[8..16].try_into().expect("eight"));
            (word(0), word(4), echoed, bytes[16..].to_vec())
        };
        let resent = 1 << 63 | 6;
        assert_eq!(sent(resent, Ok(b"abc".to_vec())), (19, 0, resent, b"abc".to_vec()));
        assert_eq!(sent(4, Err(Errno::ENOENT)), (16, -libc::ENOENT, 4, vec![]));
        for len in [SMALL - HEADER_LEN, SMALL - HEADER_LEN + 1, 1500] {
            let body: Vec<u8> = (0..len).map(|at| at as u8).collect();
            assert_eq!(sent(4, Ok(body.clone())), (16 + len as i32, 0, 4, body));
        }
        for odd in [0, -5, 512, i32::MIN] {
            assert_eq!(sent(4, Err(Errno(odd))).1, -libc::EIO, "{odd}");
        }
    }
}
