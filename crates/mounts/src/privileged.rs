//! Mounting as root: mount(2) and umount2(2).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::init::TRANSFER_MAX;
use crate::place::{FSTYPE, MountError, open_device, system};

/// Device nodes and set-id programs work in it: flags `nodev` and `nosuid` are not set.
pub(crate) fn mount(dir: &Path, source: &str) -> Result<OwnedFd, MountError> {
    let device = open_device()?;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let options = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},allow_other,default_permissions,max_read={TRANSFER_MAX}",
        device.as_raw_fd()
    );
    let options = CString::new(options).map_err(|e| system(dir, "mount(2)")(e.into()))?;
    match rustix::mount::mount(source, dir, FSTYPE, MountFlags::empty(), options.as_c_str()) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => Err(MountError::NotPermitted),
        Err(error) => Err(system(dir, "mount(2)")(error.into())),
    }
}

/// `EBUSY` unless `lazily`.
pub(crate) fn unmount(dir: &Path, lazily: bool) -> io::Result<()> {
    let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    Ok(rustix::mount::unmount(dir, flags | UnmountFlags::NOFOLLOW)?)
}
