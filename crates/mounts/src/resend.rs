//! Requests whose reader is dead.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// The bit of `unique` that marks a request which an earlier reader of the connection was given already. Replies echo it.
pub const RESENT: u64 = 1 << 63;

/// FUSE_NOTIFY_RESEND of linux/fuse.h, in the field that holds a reply's error.
const NOTIFY_RESEND: i32 = 7;

/// Asks the kernel to take back all requests that were read and not answered: whoever reads next finds them first,
/// marked with [`RESENT`], and callers of theirs that are killed leave at once. Asking twice is harmless.
///
/// `EINVAL`: the kernel does not know how (before Linux 6.9). `ENODEV` or `EPERM`: the device has no mount (any more).
pub fn ask_for_resend(device: BorrowedFd<'_>) -> Result<(), Errno> {
    // fuse_out_header: length, error, unique.
    let mut notification = [0; 16];
    notification[0..4].copy_from_slice(&16_u32.to_ne_bytes());
    notification[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    rustix::io::retry_on_intr(|| rustix::io::write(device, &notification)).map(|_| ())
}
