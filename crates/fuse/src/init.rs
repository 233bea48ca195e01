//! What is agreed with the kernel when a mount begins. docs/decisions has why, flag by flag.

use std::io;

use fuser::{InitFlags, KernelConfig};

/// The most bytes of one WRITE and one READ: an extent, so that a large sequential write seals in one piece.
pub(crate) const TRANSFER_MAX: u32 = types::EXTENT_MAX as u32;

/// Requests that the kernel may have in flight on nobody's behalf: read-ahead, asynchronous direct I/O, write-back of
/// mapped pages. The kernel's own default of 12 starves a deep queue.
pub(crate) const BACKGROUND_MAX: u16 = 64;

/// Without these an answer would be wrong, not only slow: an older kernel is refused.
pub(crate) const NEEDED: InitFlags = InitFlags::FUSE_BIG_WRITES
    .union(InitFlags::FUSE_DONT_MASK)
    .union(InitFlags::FUSE_HANDLE_KILLPRIV_V2)
    .union(InitFlags::FUSE_MAX_PAGES)
    .union(InitFlags::FUSE_POSIX_ACL);

/// What is used where the kernel has it.
pub(crate) const WANTED: InitFlags = InitFlags::FUSE_ASYNC_READ
    .union(InitFlags::FUSE_ASYNC_DIO)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_READDIRPLUS_AUTO)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_EXPORT_SUPPORT)
    .union(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::FUSE_ABORT_ERROR);

/// Fills in our side of FUSE_INIT, as every filesystem that is measured beside ours has to; an error if the kernel is
/// too old.
pub fn agree(config: &mut KernelConfig) -> io::Result<()> {
    config.add_capabilities(NEEDED).map_err(|lacking| {
        let text = format!("this kernel's FUSE lacks {lacking:?}; Linux 5.12 and later have it");
        io::Error::new(io::ErrorKind::Unsupported, text)
    })?;
    let there = WANTED & config.capabilities();
    if config.add_capabilities(there).is_err() {
        return Err(io::Error::other("a capability of the kernel was refused by its own list"));
    }
    let refused = |_| io::Error::other("a limit of the FUSE connection is out of range");
    config.set_max_write(TRANSFER_MAX).map_err(refused)?;
    config
        .set_max_background(BACKGROUND_MAX)
        .map_err(|_| io::Error::other("no requests in the background"))?;
    config
        .set_congestion_threshold(BACKGROUND_MAX / 4 * 3)
        .map_err(|_| io::Error::other("no congestion mark"))?;
    Ok(())
}
