//! Each call passed on to a file of the disk: opened, read, written and made durable by the daemon, with no passthrough
//! of the kernel's.
//!
//! A node is its path. Directories are not moved: no row does that.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, DirEntryExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::NAME_TTL;
use super::attr::{kind, of_disk, time, ttl};
use super::paths::Paths;
use super::tree::lock;

const GENERATION: Generation = Generation(0);

struct Listed {
    ino: u64,
    kind: FileType,
    name: OsString,
}

/// The filesystem.
pub(super) struct Files {
    paths: Mutex<Paths>,
    open: Mutex<HashMap<u64, Arc<File>>>,
    listings: Mutex<HashMap<u64, Arc<Vec<Listed>>>>,
    next: AtomicU64,
}

impl Files {
    pub(super) fn new(below: PathBuf) -> Files {
        Files {
            paths: Mutex::new(Paths::new(below)),
            open: Mutex::default(),
            listings: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        let path = lock(&self.paths).path(ino.0).map(PathBuf::from);
        path.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn tell(&self, path: PathBuf) -> io::Result<FileAttr> {
        let found = fs::symlink_metadata(&path)?;
        let ino = lock(&self.paths).tell(path);
        Ok(of_disk(ino, &found))
    }

    fn attr(&self, ino: INodeNo) -> io::Result<FileAttr> {
        Ok(of_disk(ino.0, &fs::symlink_metadata(self.path(ino)?)?))
    }

    fn handle(&self) -> FileHandle {
        FileHandle(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn keep(&self, file: File) -> FileHandle {
        let handle = self.handle();
        lock(&self.open).insert(handle.0, Arc::new(file));
        handle
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        lock(&self.open).get(&handle.0).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn listing(&self, ino: INodeNo) -> io::Result<Vec<Listed>> {
        let dot = |name: &str| Listed { ino: ino.0, kind: FileType::Directory, name: name.into() };
        let mut all = vec![dot("."), dot("..")];
        for entry in fs::read_dir(self.path(ino)?)? {
            let entry = entry?;
            all.push(Listed { ino: entry.ino(), kind: kind(entry.file_type()?), name: entry.file_name() });
        }
        Ok(all)
    }

    fn listed(&self, handle: FileHandle) -> io::Result<Arc<Vec<Listed>>> {
        let listing = lock(&self.listings).get(&handle.0).cloned();
        listing.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    #[allow(clippy::too_many_arguments)] // as the call that it passes on
    fn change(
        &self,
        ino: INodeNo,
        mode: Option<u32>,
        owner: (Option<u32>, Option<u32>),
        size: Option<u64>,
        times: (Option<TimeOrNow>, Option<TimeOrNow>),
    ) -> io::Result<FileAttr> {
        let path = self.path(ino)?;
        if let Some(size) = size {
            OpenOptions::new().write(true).open(&path)?.set_len(size)?;
        }
        if owner != (None, None) {
            std::os::unix::fs::lchown(&path, owner.0, owner.1)?;
        }
        if let Some(mode) = mode {
            fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777))?;
        }
        if times.0.is_some() || times.1.is_some() {
            let mut set = fs::FileTimes::new();
            set = times.0.map_or(set, |accessed| set.set_accessed(time(accessed)));
            set = times.1.map_or(set, |modified| set.set_modified(time(modified)));
            File::open(&path)?.set_times(set)?;
        }
        self.attr(ino)
    }
}

fn entry(reply: ReplyEntry, found: io::Result<FileAttr>) {
    match found {
        Ok(attr) => reply.entry_with_ttls(&ttl(&attr), &NAME_TTL, &attr, GENERATION),
        Err(error) => reply.error(Errno::from(error)),
    }
}

fn attributes(reply: ReplyAttr, found: io::Result<FileAttr>) {
    match found {
        Ok(attr) => reply.attr(&ttl(&attr), &attr),
        Err(error) => reply.error(Errno::from(error)),
    }
}

fn empty(reply: ReplyEmpty, done: io::Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(Errno::from(error)),
    }
}

/// As the file is opened below, whatever its owner: who may is the kernel's to say, before it asks.
fn options(flags: i32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(flags & libc::O_ACCMODE != libc::O_RDONLY);
    options
}

impl Filesystem for Files {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        fuse::agree(config)
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.path(parent).and_then(|dir| self.tell(dir.join(name))) {
            // Node id 0: the kernel remembers that there is nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let nothing = super::attr::fresh(0, FileType::RegularFile, 0, 0, 0);
                reply.entry_with_ttls(&NAME_TTL, &NAME_TTL, &nothing, GENERATION);
            }
            found => entry(reply, found),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        lock(&self.paths).forget(ino.0, count);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        attributes(reply, self.attr(ino));
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        attributes(reply, self.change(ino, mode, (uid, gid), size, (atime, mtime)));
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.path(parent).and_then(|dir| {
            let path = dir.join(name);
            DirBuilder::new().mode(mode & !umask & 0o7777).create(&path)?;
            self.tell(path)
        });
        entry(reply, made);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.path(parent).map(|dir| dir.join(name)).and_then(|path| {
            fs::remove_file(&path)?;
            lock(&self.paths).remove(&path);
            Ok(())
        });
        empty(reply, removed);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.path(parent).map(|dir| dir.join(name)).and_then(|path| {
            fs::remove_dir(&path)?;
            lock(&self.paths).remove(&path);
            Ok(())
        });
        empty(reply, removed);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let moved = || -> io::Result<()> {
            let (from, to) = (self.path(parent)?.join(name), self.path(new_parent)?.join(new_name));
            if fs::symlink_metadata(&from)?.is_dir() {
                return Err(io::Error::from_raw_os_error(libc::EPERM));
            }
            fs::rename(&from, &to)?;
            lock(&self.paths).rename(&from, to);
            Ok(())
        };
        empty(reply, moved());
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.path(ino).and_then(|path| options(flags.0).open(path)) {
            Ok(file) => reply.opened(self.keep(file), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.path(parent).and_then(|dir| {
            let path = dir.join(name);
            let file =
                options(flags).write(true).create_new(true).mode(mode & !umask & 0o7777).open(&path)?;
            Ok((self.tell(path)?, file))
        });
        match made {
            Ok((attr, file)) => {
                let handle = self.keep(file);
                reply.created(&ttl(&attr), &attr, GENERATION, handle, FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || -> io::Result<Vec<u8>> {
            let file = self.file(handle)?;
            let mut bytes = vec![0; len as usize];
            let mut got = 0;
            while got < bytes.len() {
                match file.read_at(&mut bytes[got..], offset + got as u64)? {
                    0 => break,
                    more => got += more,
                }
            }
            bytes.truncate(got);
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.file(handle).and_then(|file| file.write_all_at(data, offset)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.open).remove(&handle.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let sync = |file: Arc<File>| if data_only { file.sync_data() } else { file.sync_all() };
        empty(reply, self.file(handle).and_then(sync));
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.listing(ino) {
            Ok(listing) => {
                let handle = self.handle();
                lock(&self.listings).insert(handle.0, Arc::new(listing));
                reply.opened(handle, FopenFlags::empty());
            }
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        after: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = match self.listed(handle) {
            Ok(listing) => listing,
            Err(error) => return reply.error(Errno::from(error)),
        };
        for (cookie, entry) in (after + 1..).zip(listing.iter().skip(after as usize)) {
            if reply.add(INodeNo(entry.ino), cookie, entry.kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        after: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let (listing, dir) = match self.listed(handle).and_then(|listing| Ok((listing, self.path(ino)?))) {
            Ok(found) => found,
            Err(error) => return reply.error(Errno::from(error)),
        };
        for (cookie, entry) in (after + 1..).zip(listing.iter().skip(after as usize)) {
            let dots = cookie <= 2;
            let found = if dots { self.attr(ino) } else { self.tell(dir.join(&entry.name)) };
            // Removed since the directory was opened.
            let Ok(attr) = found else { continue };
            if reply.add(attr.ino, cookie, &entry.name, &ttl(&attr), &attr, GENERATION) {
                if !dots {
                    lock(&self.paths).forget(attr.ino.0, 1);
                }
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        lock(&self.listings).remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.path(ino).and_then(|path| File::open(path)?.sync_all()));
    }
}
