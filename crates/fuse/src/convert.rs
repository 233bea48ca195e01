//! Numbers and attributes: the kernel's and ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use namespace::{Attr, FallocateMode, FileKind, NewKind, SetTime, XattrMode};
use types::{Errno, Nanos};
use vfs::{OpenFlags, RenameFlags, SeekTo};

/// Our errno as a reply carries it.
pub(crate) fn errno(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.0)
}

/// The type bits of an inode.
pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// Attributes as a reply carries them.
pub(crate) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.allocated.div_ceil(512),
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH, // not part of Linux' reply
        kind: file_type(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: 4096,
        flags: 0,
    }
}

/// A time as a reply carries it: exact for all that [`Nanos`] holds.
pub(crate) fn system_time(time: Nanos) -> SystemTime {
    let span = Duration::from_nanos(time.0.unsigned_abs());
    if time.0 < 0 { UNIX_EPOCH - span } else { UNIX_EPOCH + span }
}

/// A time of a request.
///
/// fuser 0.18 hands `secs + nanos` with `secs < 0` over as `UNIX_EPOCH - (|secs| + nanos)`, so the nanoseconds of a
/// time before the epoch count the wrong way; here they are turned back.
pub(crate) fn nanos(time: SystemTime) -> Nanos {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => {
            Nanos::from_parts(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
        }
        Err(before) => {
            let before = before.duration();
            Nanos::from_parts(0i64.saturating_sub_unsigned(before.as_secs()), before.subsec_nanos())
        }
    }
}

/// A time to set.
pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(nanos(time)),
    }
}

/// What mknod(2) shall make; `rdev` stays in the kernel's 32-bit encoding, which its replies use too.
pub(crate) fn new_kind(mode: u32, rdev: u32) -> Result<NewKind, Errno> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Ok(NewKind::File),
        libc::S_IFIFO => Ok(NewKind::Fifo),
        libc::S_IFSOCK => Ok(NewKind::Socket),
        libc::S_IFCHR => Ok(NewKind::CharDevice(rdev)),
        libc::S_IFBLK => Ok(NewKind::BlockDevice(rdev)),
        _ => Err(Errno::EINVAL),
    }
}

/// The flags of open(2). Access mode 3 is the kernel's "both may be checked".
pub(crate) fn open_flags(flags: i32) -> OpenFlags {
    let access = flags & libc::O_ACCMODE;
    OpenFlags {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        append: flags & libc::O_APPEND != 0,
        truncate: flags & libc::O_TRUNC != 0,
        direct: flags & libc::O_DIRECT != 0,
        sync: flags & libc::O_DSYNC != 0, // O_SYNC contains this bit
    }
}

/// The flags of renameat2(2).
pub(crate) fn rename_flags(flags: fuser::RenameFlags) -> Result<RenameFlags, Errno> {
    if flags.bits() & !fuser::RenameFlags::all().bits() != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(RenameFlags {
        no_replace: flags.contains(fuser::RenameFlags::RENAME_NOREPLACE),
        exchange: flags.contains(fuser::RenameFlags::RENAME_EXCHANGE),
        whiteout: flags.contains(fuser::RenameFlags::RENAME_WHITEOUT),
    })
}

/// The mode of fallocate(2); collapsing, inserting, unsharing and what is not known yet are `EOPNOTSUPP`.
pub(crate) fn fallocate_mode(mode: i32) -> Result<FallocateMode, Errno> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH_KEEP: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Ok(FallocateMode::Allocate),
        KEEP => Ok(FallocateMode::AllocateKeepSize),
        PUNCH_KEEP => Ok(FallocateMode::PunchHole),
        ZERO => Ok(FallocateMode::Zero),
        ZERO_KEEP => Ok(FallocateMode::ZeroKeepSize),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// What lseek(2) looks for, and from where on. Before the file's beginning there is neither data nor a hole.
pub(crate) fn seek(offset: i64, whence: i32) -> Result<(u64, SeekTo), Errno> {
    let to = match whence {
        libc::SEEK_DATA => SeekTo::Data,
        libc::SEEK_HOLE => SeekTo::Hole,
        _ => return Err(Errno::EINVAL),
    };
    Ok((u64::try_from(offset).map_err(|_| Errno::ENXIO)?, to))
}

/// The flags of setxattr(2).
pub(crate) fn xattr_mode(flags: i32) -> Result<XattrMode, Errno> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::{fallocate_mode, nanos, open_flags, rename_flags, seek, system_time, xattr_mode};
    use std::time::{Duration, UNIX_EPOCH};
    use types::{Errno, Nanos};

    #[test]
    fn times_before_the_epoch_are_read_as_fuser_garbles_them_and_written_right() {
        // utimensat with {-2, 700,000,000} arrives as UNIX_EPOCH - 2.7 s.
        let garbled = UNIX_EPOCH - Duration::new(2, 700_000_000);
        assert_eq!(nanos(garbled), Nanos::from_parts(-2, 700_000_000));
        assert_eq!(
            system_time(Nanos::from_parts(-2, 700_000_000)),
            UNIX_EPOCH - Duration::new(1, 300_000_000)
        );
        for at in [i64::MIN, -1, 0, 1, i64::MAX] {
            let there = system_time(Nanos(at));
            let span = there.duration_since(UNIX_EPOCH).unwrap_or_else(|e| e.duration());
            assert_eq!(span.as_nanos(), u128::from(at.unsigned_abs()), "{at}");
        }
    }

    #[test]
    fn times_that_nanos_cannot_hold_are_clamped() {
        assert_eq!(nanos(UNIX_EPOCH + Duration::from_secs(1 << 40)), Nanos(i64::MAX));
        assert_eq!(nanos(UNIX_EPOCH - Duration::from_secs(1 << 40)), Nanos(i64::MIN));
    }

    #[test]
    fn flags_that_are_not_known_are_refused() {
        assert_eq!(fallocate_mode(libc::FALLOC_FL_COLLAPSE_RANGE), Err(Errno::EOPNOTSUPP));
        assert_eq!(fallocate_mode(libc::FALLOC_FL_INSERT_RANGE), Err(Errno::EOPNOTSUPP));
        assert_eq!(fallocate_mode(libc::FALLOC_FL_PUNCH_HOLE), Err(Errno::EOPNOTSUPP));
        assert_eq!(fallocate_mode(0x4000), Err(Errno::EOPNOTSUPP));
        assert_eq!(xattr_mode(4), Err(Errno::EINVAL));
        assert_eq!(seek(0, libc::SEEK_END), Err(Errno::EINVAL));
        assert_eq!(seek(-1, libc::SEEK_DATA), Err(Errno::ENXIO));
        assert_eq!(rename_flags(fuser::RenameFlags::from_bits_retain(8)), Err(Errno::EINVAL));
    }

    #[test]
    fn o_sync_and_o_dsync_are_both_synchronous() {
        assert!(open_flags(libc::O_SYNC).sync && open_flags(libc::O_DSYNC).sync);
        assert!(!open_flags(libc::O_RDWR | libc::O_DIRECT).sync);
    }
}
