//! Attributes as the kernel takes them.

use std::fs::{FileType as StdType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

/// How long the kernel may keep them.
pub(super) fn ttl(attr: &FileAttr) -> Duration {
    if attr.kind == FileType::Directory { super::DIRECTORY_TTL } else { super::ATTR_TTL }
}

pub(super) fn time(asked: TimeOrNow) -> SystemTime {
    match asked {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

/// Those of a node that nobody has changed yet.
pub(super) fn fresh(ino: u64, kind: FileType, perm: u16, uid: u32, gid: u32) -> FileAttr {
    let now = SystemTime::now();
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind,
        perm,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Those of a file of the disk, under another number.
pub(super) fn of_disk(ino: u64, found: &Metadata) -> FileAttr {
    let at = |seconds: i64, nanos: i64| {
        let whole = Duration::new(seconds.unsigned_abs(), 0);
        let base = match seconds < 0 {
            true => SystemTime::UNIX_EPOCH - whole,
            false => SystemTime::UNIX_EPOCH + whole,
        };
        base + Duration::from_nanos(nanos.unsigned_abs())
    };
    FileAttr {
        ino: INodeNo(ino),
        size: found.size(),
        blocks: found.blocks(),
        atime: at(found.atime(), found.atime_nsec()),
        mtime: at(found.mtime(), found.mtime_nsec()),
        ctime: at(found.ctime(), found.ctime_nsec()),
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(found.file_type()),
        perm: (found.mode() & 0o7777) as u16,
        nlink: found.nlink() as u32,
        uid: found.uid(),
        gid: found.gid(),
        rdev: found.rdev() as u32,
        blksize: 4096,
        flags: 0,
    }
}

pub(super) fn kind(found: StdType) -> FileType {
    match found {
        found if found.is_dir() => FileType::Directory,
        found if found.is_symlink() => FileType::Symlink,
        found if found.is_fifo() => FileType::NamedPipe,
        found if found.is_socket() => FileType::Socket,
        found if found.is_block_device() => FileType::BlockDevice,
        found if found.is_char_device() => FileType::CharDevice,
        _ => FileType::RegularFile,
    }
}
