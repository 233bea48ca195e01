//! What is agreed with the kernel, told to fuser. The list is in the crate `mounts`, for whoever answers without it.

use std::io;

use fuser::{InitFlags, KernelConfig};

/// Fills in our side of FUSE_INIT, as every filesystem that is measured beside ours has to; an error if the kernel is
/// too old.
pub fn agree(config: &mut KernelConfig) -> io::Result<()> {
    config.add_capabilities(InitFlags::from_bits_retain(mounts::NEEDED)).map_err(|lacking| {
        let text = format!("this kernel's FUSE lacks {lacking:?}; Linux 5.12 and later have it");
        io::Error::new(io::ErrorKind::Unsupported, text)
    })?;
    let there = InitFlags::from_bits_retain(mounts::WANTED) & config.capabilities();
    if config.add_capabilities(there).is_err() {
        return Err(io::Error::other("a capability of the kernel was refused by its own list"));
    }
    let refused = |_| io::Error::other("a limit of the FUSE connection is out of range");
    config.set_max_write(mounts::TRANSFER_MAX).map_err(refused)?;
    config
        .set_max_background(mounts::BACKGROUND_MAX)
        .map_err(|_| io::Error::other("no requests in the background"))?;
    config
        .set_congestion_threshold(mounts::CONGESTED_FROM)
        .map_err(|_| io::Error::other("no congestion mark"))?;
    Ok(())
}
