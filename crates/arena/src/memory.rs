//! A memfd of fixed length.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;

/// The kernel refused an operation on the arena's memory: there is none left, or the descriptor is not what it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{op} of the arena's memory failed: {errno}")]
pub struct MemoryFailed {
    /// `creation`, `read`, `write` or `freeing`.
    pub op: &'static str,
    /// With what.
    pub errno: types::Errno,
}

impl MemoryFailed {
    pub(crate) fn of(op: &'static str) -> impl Fn(Errno) -> MemoryFailed {
        move |errno| MemoryFailed { op, errno: types::Errno(errno.raw_os_error()) }
    }
}

/// Memory behind a descriptor; every process that has the descriptor sees the same bytes.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    fd: Arc<OwnedFd>,
    len: u64,
}

impl Memory {
    /// Makes zeroed memory of `len` bytes that takes no pages yet and whose length nobody can change.
    pub(crate) fn create(len: u64) -> Result<Memory, MemoryFailed> {
        let failed = MemoryFailed::of("creation");
        let fd = rustix::fs::memfd_create("holdfast-arena", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(&failed)?;
        rustix::fs::ftruncate(&fd, len).map_err(&failed)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(&failed)?;
        Ok(Memory { fd: Arc::new(fd), len })
    }

    /// Takes over memory that another process made.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Memory, MemoryFailed> {
        let stat = rustix::fs::fstat(&fd).map_err(MemoryFailed::of("read"))?;
        Ok(Memory { fd: Arc::new(fd), len: stat.st_size as u64 })
    }

    /// Its descriptor.
    pub(crate) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of pages that it takes now.
    pub(crate) fn resident(&self) -> Result<u64, MemoryFailed> {
        let stat = rustix::fs::fstat(&self.fd).map_err(MemoryFailed::of("read"))?;
        Ok(stat.st_blocks as u64 * 512)
    }

    /// Fills `buf` from `at` on.
    pub(crate) fn read(&self, mut at: u64, mut buf: &mut [u8]) -> Result<(), MemoryFailed> {
        while !buf.is_empty() {
            match rustix::io::pread(&self.fd, &mut *buf, at) {
                Ok(0) => return Err(MemoryFailed::of("read")(Errno::NXIO)),
                Ok(n) => {
                    at += n as u64;
                    buf = &mut buf[n..];
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(MemoryFailed::of("read")(errno)),
            }
        }
        Ok(())
    }

    /// Writes `head` and `tail` behind one another from `at` on. A process that is killed meanwhile leaves any prefix
    /// of them, but a piece that lies within one page is there whole or not at all.
    pub(crate) fn write(
        &mut self,
        mut at: u64,
        mut head: &[u8],
        mut tail: &[u8],
    ) -> Result<(), MemoryFailed> {
        #[cfg(test)]
        crate::tests::stored(at, head, tail);
        while !head.is_empty() || !tail.is_empty() {
            match rustix::io::pwritev(&self.fd, &[IoSlice::new(head), IoSlice::new(tail)], at) {
                Ok(0) => return Err(MemoryFailed::of("write")(Errno::NOSPC)),
                Ok(n) => {
                    at += n as u64;
                    let of_head = n.min(head.len());
                    head = &head[of_head..];
                    tail = &tail[n - of_head..];
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(MemoryFailed::of("write")(errno)),
            }
        }
        Ok(())
    }

    /// Makes `len` bytes from `at` on zeros that take no pages; both are whole pages.
    pub(crate) fn punch(&mut self, at: u64, len: u64) -> Result<(), MemoryFailed> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.fd, flags, at, len).map_err(MemoryFailed::of("freeing"))
    }
}
