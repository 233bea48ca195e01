//! The forgetful disk as a file, served by a small FUSE filesystem of our own, so that a loop device can lie on it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};

use super::image::{Cut, Image, Loss};
use crate::random::Random;

const FILE: &str = "disk";
const FILE_INO: INodeNo = INodeNo(2);

/// The kernel asks for nothing twice: nothing changes but content.
const VALID: Duration = Duration::from_secs(3600);

/// How long a flush takes. Other writes arrive in the meantime, as on a real disk; without it a cut would hardly ever
/// find a write that waits for its flush.
const FLUSH: Duration = Duration::from_millis(1);

/// Enough that writes go on while flushes wait.
const THREADS: usize = 4;

/// A served disk; dropped, it goes away with all that is on it.
pub struct ImageFile {
    image: Arc<Mutex<Image>>,
    path: PathBuf,
    _session: BackgroundSession,
}

impl ImageFile {
    /// Serves `image` as one file in `folder`.
    pub fn serve(image: Image, folder: &Path) -> anyhow::Result<ImageFile> {
        let image = Arc::new(Mutex::new(image));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("forgetful".into()), MountOption::RW];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(OneFile { image: Arc::clone(&image) }, folder, &config)
            .context("mount the forgetful disk")?;
        Ok(ImageFile { image, path: folder.join(FILE), _session: session })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts the power.
    pub fn cut(&self, loss: Loss, random: &mut Random) -> io::Result<Cut> {
        self.image().cut(loss, random)
    }

    /// Gives it power again.
    pub fn revive(&self) {
        self.image().revive();
    }

    /// From now on it says that it flushes, and does not.
    pub fn lie(&self) {
        self.image().lie();
    }

    /// How many blocks wait for a flush.
    pub fn unflushed(&self) -> usize {
        self.image().unflushed()
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct OneFile {
    image: Arc<Mutex<Image>>,
}

impl OneFile {
    fn with<T>(&self, act: impl FnOnce(&mut Image) -> io::Result<T>) -> Result<T, Errno> {
        let mut image = self.image.lock().map_err(|_| Errno::EIO)?;
        act(&mut image).map_err(|_| Errno::EIO)
    }

    fn attributes(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        let (kind, perm, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0o755, 0),
            FILE_INO => (FileType::RegularFile, 0o600, self.with(|image| Ok(image.len()))?),
            _ => return Err(Errno::ENOENT),
        };
        let time = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = if parent == INodeNo::ROOT && name == FILE {
            self.attributes(FILE_INO)
        } else {
            Err(Errno::ENOENT)
        };
        match found {
            Ok(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Ok(attributes) => reply.attr(&VALID, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Past the page cache: a write that is in memory elsewhere would be no write of this disk.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.with(|image| image.read(offset, size as usize)) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.with(|image| image.write(offset, data)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // close(2) promises nothing.
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        std::thread::sleep(FLUSH);
        match self.with(Image::flush) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }
}
