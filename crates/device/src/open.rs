//! Finding, claiming, creating and growing the disks that files and block devices are.

use crate::file_disk::{Backend, FileDisk};
use rustix::fs::{FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use types::{BLOCK, ByteSize};

/// How to open a disk.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// How operations reach the kernel.
    pub backend: Backend,
    /// Ask for O_DIRECT; where the filesystem refuses, the page cache serves, with the same flushes.
    pub direct: bool,
    /// A smaller disk is refused.
    pub min_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions { backend: Backend::Auto, direct: true, min_bytes: BLOCK }
    }
}

/// Why a disk was not opened or grown.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is nothing at the path.
    #[error("{} does not exist", .path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// Another process, or another disk of this one, holds it.
    #[error("{} is in use by another process", .path.display())]
    Held {
        /// The path.
        path: PathBuf,
    },
    /// A folder, pipe, socket or character device.
    #[error("{} is neither a file nor a block device", .path.display())]
    NotADisk {
        /// The path.
        path: PathBuf,
    },
    /// We may not read and write it.
    #[error("{} may not be read and written by this user", .path.display())]
    Permission {
        /// The path.
        path: PathBuf,
    },
    /// It is on a read-only filesystem, or is a read-only device.
    #[error("{} is read-only", .path.display())]
    ReadOnly {
        /// The path.
        path: PathBuf,
    },
    /// It is smaller than [`OpenOptions::min_bytes`].
    #[error("{} has {bytes}, but a disk needs at least {needed}", .path.display())]
    TooSmall {
        /// The path.
        path: PathBuf,
        /// Its size.
        bytes: ByteSize,
        /// The least size.
        needed: ByteSize,
    },
    /// The path was replaced between two looks at it.
    #[error("{} was replaced while it was opened", .path.display())]
    Replaced {
        /// The path.
        path: PathBuf,
    },
    /// The filesystem has no room to grow the file.
    #[error("the filesystem of {} has no room for {needed} more", .path.display())]
    NoSpace {
        /// The path.
        path: PathBuf,
        /// How much was asked of the filesystem.
        needed: ByteSize,
    },
    /// The backend that was asked for is not to be had (seccomp, `kernel.io_uring_disabled`, limits).
    #[error("{}: the disk's queue could not be set up", .path.display())]
    Backend {
        /// The path.
        path: PathBuf,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// Any other answer of the system.
    #[error("{}: cannot {doing}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the kernel answered.
        source: std::io::Error,
    },
}

impl OpenError {
    fn new(path: &Path, doing: &'static str, errno: Errno) -> OpenError {
        let path = path.to_path_buf();
        match errno {
            Errno::NOENT | Errno::NOTDIR => OpenError::Missing { path },
            Errno::BUSY | Errno::AGAIN => OpenError::Held { path },
            Errno::ISDIR => OpenError::NotADisk { path },
            Errno::ACCESS | Errno::PERM => OpenError::Permission { path },
            Errno::ROFS => OpenError::ReadOnly { path },
            errno => OpenError::Io { path, doing, source: errno.into() },
        }
    }
}

/// Why a disk file was not created. Nothing is left at the path that was not there before.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Something is there already; it was not touched.
    #[error("{} exists already", .path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// The filesystem cannot hold it.
    #[error("the filesystem of {} has no room for a disk of {needed}: {free} are free", .path.display())]
    NoSpace {
        /// The path.
        path: PathBuf,
        /// The size asked for.
        needed: ByteSize,
        /// What the filesystem says is free.
        free: ByteSize,
    },
    /// Any other answer of the system.
    #[error("{}: cannot {doing}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the kernel answered.
        source: std::io::Error,
    },
}

/// Opens the file or block device at `path`, for this process alone until the disk is dropped.
///
/// A file's size is rounded down to whole blocks. Blocks: call it where blocking is allowed.
pub fn open_disk(path: &Path, options: OpenOptions) -> Result<FileDisk, OpenError> {
    let (claim, bytes) = claim(path)?;
    if bytes < options.min_bytes.max(BLOCK) {
        return Err(OpenError::TooSmall {
            path: path.to_path_buf(),
            bytes: ByteSize(bytes),
            needed: ByteSize(options.min_bytes.max(BLOCK)),
        });
    }
    let (file, direct) = open_for_io(path, options.direct)?;
    if !same_file(&claim, &file).map_err(|errno| OpenError::new(path, "stat", errno))? {
        return Err(OpenError::Replaced { path: path.to_path_buf() });
    }
    FileDisk::start(file, claim, bytes, direct, options.backend)
        .map_err(|source| OpenError::Backend { path: path.to_path_buf(), source })
}

/// Creates a file of `bytes`, rounded down to whole blocks, with every block reserved and zero. It is durable on return.
/// Nobody but its owner may open it: it will hold the content of files whatever their permissions are.
pub fn create_disk_file(path: &Path, bytes: u64) -> Result<(), CreateError> {
    let bytes = bytes - bytes % BLOCK;
    let fail = |doing| move |source| CreateError::Io { path: path.to_path_buf(), doing, source };
    let file = match File::options().read(true).write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(CreateError::Exists { path: path.to_path_buf() });
        }
        Err(error) => return Err(fail("create")(error)),
    };
    let created = reserve(&file, 0, bytes).and_then(|()| file.sync_all()).and_then(|()| sync_parent(path));
    created.map_err(|error| {
        // The file is ours alone and of no use; the error that counts is the first one.
        let _ = std::fs::remove_file(path);
        if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) {
            let (needed, free) = (ByteSize(bytes), ByteSize(free_near(path)));
            return CreateError::NoSpace { path: path.to_path_buf(), needed, free };
        }
        fail("reserve its space")(error)
    })
}

/// Grows the disk file at `path`, which nobody may hold, to `bytes`, rounded down to whole blocks. The new part is
/// reserved, zero and durable on return. A size that it has already is fine; a smaller one is
/// [`OpenError::TooSmall`].
pub fn grow_disk_file(path: &Path, bytes: u64) -> Result<(), OpenError> {
    let bytes = bytes - bytes % BLOCK;
    let (file, before) = claim(path)?;
    if bytes < before {
        return Err(OpenError::TooSmall {
            path: path.to_path_buf(),
            bytes: ByteSize(bytes),
            needed: ByteSize(before),
        });
    }
    reserve(&file, before, bytes).and_then(|()| file.sync_all()).map_err(|source| {
        if source.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) {
            // A longer file without its blocks would be a promise that the filesystem cannot keep.
            let _ = file.set_len(before);
            return OpenError::NoSpace { path: path.to_path_buf(), needed: ByteSize(bytes - before) };
        }
        OpenError::Io { path: path.to_path_buf(), doing: "grow", source }
    })
}

/// Opens and locks; gives the size in whole blocks.
fn claim(path: &Path) -> Result<(File, u64), OpenError> {
    let fail = |doing| move |errno| OpenError::new(path, doing, errno);
    let kind = FileType::from_raw_mode(rustix::fs::stat(path).map_err(fail("stat"))?.st_mode);
    let exclusive = match kind {
        FileType::RegularFile => OFlags::empty(),
        // Fails with EBUSY while it is mounted, part of another device, or opened so by another process.
        FileType::BlockDevice => OFlags::EXCL,
        _ => return Err(OpenError::NotADisk { path: path.to_path_buf() }),
    };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | exclusive;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(fail("open"))?);
    if kind == FileType::RegularFile {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(fail("lock"))?;
    }
    let bytes = file.seek(SeekFrom::End(0)).map_err(|source| OpenError::Io {
        path: path.to_path_buf(),
        doing: "find the size",
        source,
    })?;
    Ok((file, bytes - bytes % BLOCK))
}

/// The descriptor that does the work, around the page cache if that is wanted and works.
fn open_for_io(path: &Path, direct: bool) -> Result<(File, bool), OpenError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if direct {
        match rustix::fs::open(path, flags | OFlags::DIRECT, Mode::empty()) {
            Ok(file) => {
                let file = File::from(file);
                // Some filesystems take the flag and refuse the first read; devices may have sectors above a block.
                if file.read_at(&mut crate::IoBuf::zeroed(BLOCK as usize), 0).is_ok() {
                    return Ok((file, true));
                }
            }
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(OpenError::new(path, "open", errno)),
        }
    }
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| OpenError::new(path, "open", e))?;
    Ok((File::from(file), false))
}

fn same_file(one: &File, other: &File) -> Result<bool, Errno> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino, one.st_rdev) == (other.st_dev, other.st_ino, other.st_rdev))
}

/// Makes the filesystem hold blocks of zeros for `from..to`.
fn reserve(file: &File, from: u64, to: u64) -> std::io::Result<()> {
    if from == to {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), from, to - from) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP) => write_zeros(file, from, to),
        Err(errno) => Err(errno.into()),
    }
}

fn write_zeros(mut file: &File, from: u64, to: u64) -> std::io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = file.seek(SeekFrom::Start(from))?;
    while at < to {
        let len = zeros.len().min((to - at) as usize);
        file.write_all(&zeros[..len])?;
        at += len as u64;
    }
    Ok(())
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn free_near(path: &Path) -> u64 {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    rustix::fs::statvfs(parent).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}
