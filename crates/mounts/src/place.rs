//! Putting a mount in place, and taking it away.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::table::rows;
use crate::{fusermount, point, privileged};

/// The type that the mount table shows; the kernel takes what is behind the dot as a subtype.
pub(crate) const FSTYPE: &str = "fuse.holdfast";

/// The device behind every FUSE mount.
const DEVICE: &str = "/dev/fuse";

/// Its number on every Linux.
const DEVICE_NUMBER: (u32, u32) = (10, 229);

/// Why a volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point does not exist.
    #[error("the mount point {} does not exist; create it with: mkdir -p {}", .0.display(), .0.display())]
    NoMountPoint(PathBuf),
    /// The mount point is no directory.
    #[error("the mount point {} is not a directory; choose or create one", .0.display())]
    NotADirectory(PathBuf),
    /// Something is mounted there.
    #[error("{} is in use: {what} is mounted there; unmount it or choose another directory", .dir.display())]
    Busy {
        /// The mount point.
        dir: PathBuf,
        /// Type and source of what is there.
        what: String,
    },
    /// There is no /dev/fuse.
    #[error(
        "cannot open /dev/fuse ({0}); load the kernel's fuse module (modprobe fuse), or give the container the \
         device (--device /dev/fuse)"
    )]
    NoFuseDevice(#[source] io::Error),
    /// There is one, but not for this user.
    #[error("this user may not open /dev/fuse; allow it (chmod 0666 /dev/fuse), or run as root")]
    DeviceRefused,
    /// This process may not mount.
    #[error(
        "this process may not mount: it is root without CAP_SYS_ADMIN; run it with that capability (in a container: \
         --cap-add SYS_ADMIN)"
    )]
    NotPermitted,
    /// A user's mounts need the set-uid helper.
    #[error("mounting as a user needs fusermount3; install the package fuse3, or run as root")]
    NoFusermount(#[source] io::Error),
    /// The set-uid helper refused.
    #[error("fusermount3 could not mount {}: {message}", .dir.display())]
    Fusermount {
        /// The mount point.
        dir: PathBuf,
        /// What it said.
        message: String,
    },
    /// The kernel's FUSE is too old, or refused what is needed.
    #[error("the kernel's FUSE connection could not be opened")]
    Handshake(#[source] io::Error),
    /// Another system call failed.
    #[error("cannot mount {}: {call} failed", .dir.display())]
    System {
        /// The mount point.
        dir: PathBuf,
        /// What failed.
        call: &'static str,
        /// How.
        #[source]
        source: io::Error,
    },
}

/// How a mount came to be, and so how it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// mount(2) and umount2(2).
    Privileged,
    /// fusermount3.
    Fusermount,
}

impl Way {
    fn of_this_process() -> Way {
        if rustix::process::geteuid().is_root() { Way::Privileged } else { Way::Fusermount }
    }
}

/// A mount in the table.
#[derive(Debug)]
pub struct Mounted {
    /// Serves it: whoever has a copy reads the requests and writes the replies. The mount dies with the last one.
    pub device: OwnedFd,
    /// Where it is.
    pub place: Place,
}

/// What the mount table says of a mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// It is there.
    There,
    /// Something else is mounted over it.
    Covered,
    /// It is not there any more.
    Gone,
}

/// Where a mount is, and which one it is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The mount point as the mount table shows it.
    pub dir: PathBuf,
    /// How it goes.
    pub way: Way,
    /// The number of its superblock, as stat(2) has it.
    pub dev: (u32, u32),
    /// The number of the mount.
    pub id: u64,
}

/// Whether a volume could be mounted on `dir`: it is a directory with nothing mounted on it, and there is FUSE. Answers
/// its path as the mount table will show it.
///
/// Changes nothing but to detach dead mounts of ours. Blocks for two seconds if a mount of ours hangs there.
pub fn check_mount_point(dir: &Path) -> Result<PathBuf, MountError> {
    let dir = point::resolve(dir)?;
    let way = Way::of_this_process();
    drop(open_device()?); // fusermount3 opens it with its caller's rights
    point::clear(&dir, way)?;
    Ok(dir)
}

/// Mounts `source` on `dir`. Dead mounts of ours that are there are detached first. Nobody answers the kernel yet:
/// whoever touches the mount waits for that.
pub fn mount(dir: &Path, source: &str) -> Result<Mounted, MountError> {
    let dir = check_mount_point(dir)?;
    let way = Way::of_this_process();
    let device = match way {
        Way::Privileged => privileged::mount(&dir, source)?,
        Way::Fusermount => fusermount::mount(&dir, source)?,
    };
    let at = system(&dir, "reading /proc/self/mountinfo");
    let row = rows()
        .map_err(at)?
        .into_iter()
        .rfind(|row| row.dir == dir && row.fstype == FSTYPE)
        .ok_or_else(|| at(io::Error::from(io::ErrorKind::NotFound)))?;
    Ok(Mounted { device, place: Place { dir, way, dev: row.dev, id: row.id } })
}

impl Place {
    /// Whether the mount is still in the table, and what is mounted over it.
    pub fn look(&self) -> io::Result<Look> {
        let mut here =
            rows()?.into_iter().filter(|row| row.dir == self.dir).skip_while(|row| row.id != self.id);
        Ok(match (here.next(), here.next()) {
            (None, _) => Look::Gone,
            (Some(_), None) => Look::There,
            (Some(_), Some(_)) => Look::Covered,
        })
    }

    /// umount(8), or with `lazily` umount -l.
    pub fn unmount(&self, lazily: bool) -> io::Result<()> {
        match self.way {
            Way::Privileged => privileged::unmount(&self.dir, lazily),
            Way::Fusermount => fusermount::unmount(&self.dir, lazily),
        }
    }
}

pub(crate) fn system(dir: &Path, call: &'static str) -> impl Fn(io::Error) -> MountError + Copy {
    move |source| MountError::System { dir: dir.to_path_buf(), call, source }
}

pub(crate) fn open_device() -> Result<OwnedFd, MountError> {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::io::Errno;
    open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| match error {
            Errno::ACCESS => MountError::DeviceRefused,
            error => MountError::NoFuseDevice(error.into()),
        })
        .and_then(|device| is_fuse(device.as_fd()).map(|()| device))
}

/// Something else may lie in its place, for example in a container with a /dev of its own.
fn is_fuse(device: BorrowedFd<'_>) -> Result<(), MountError> {
    use rustix::fs::{FileType, fstat, major, minor};
    let found = fstat(device).map_err(|error| MountError::NoFuseDevice(error.into()))?;
    let number = (major(found.st_rdev), minor(found.st_rdev));
    if FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && number == DEVICE_NUMBER {
        Ok(())
    } else {
        Err(MountError::NoFuseDevice(io::Error::other("it is not the FUSE device")))
    }
}

#[cfg(test)]
mod tests {
    use super::is_fuse;
    use std::os::fd::AsFd;

    #[test]
    fn another_file_in_the_devices_place_is_told_from_it() {
        let null = std::fs::File::open("/dev/null").expect("opened");
        let refusal = is_fuse(null.as_fd()).expect_err("is another device").to_string();
        assert!(refusal.contains("not the FUSE device"), "{refusal}");
        let file = tempfile::tempfile().expect("a file");
        assert!(is_fuse(file.as_fd()).is_err());
    }
}
