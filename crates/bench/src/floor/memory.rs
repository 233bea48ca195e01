//! Everything in memory.

use std::ffi::OsStr;
use std::io;
use std::sync::Mutex;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::NAME_TTL;
use super::attr::{time, ttl};
use super::tree::{COOKIE_FIRST, Tree, lock};

const GENERATION: Generation = Generation(0);

/// The filesystem.
pub(super) struct Memory(Mutex<Tree>);

impl Memory {
    pub(super) fn new() -> Memory {
        Memory(Mutex::new(Tree::new()))
    }
}

fn entry(reply: ReplyEntry, found: Result<FileAttr, fuser::Errno>) {
    match found {
        Ok(attr) => reply.entry_with_ttls(&ttl(&attr), &NAME_TTL, &attr, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn empty(reply: ReplyEmpty, done: Result<(), fuser::Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Memory {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        fuse::agree(config)
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = lock(&self.0).lookup(parent.0, name);
        match found {
            // Node id 0: the kernel remembers that there is nothing.
            Err(error) if i32::from(error) == libc::ENOENT => {
                let nothing = super::attr::fresh(0, FileType::RegularFile, 0, 0, 0);
                reply.entry_with_ttls(&NAME_TTL, &NAME_TTL, &nothing, GENERATION);
            }
            found => entry(reply, found),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        lock(&self.0).forget(ino.0, count);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let found = lock(&self.0).attr(ino.0);
        match found {
            Ok(attr) => reply.attr(&ttl(&attr), &attr),
            Err(error) => reply.error(error),
        }
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
        let changed = lock(&self.0).change(ino.0, |attr| {
            attr.perm = mode.map_or(attr.perm, |mode| (mode & 0o7777) as u16);
            attr.uid = uid.unwrap_or(attr.uid);
            attr.gid = gid.unwrap_or(attr.gid);
            attr.size = size.unwrap_or(attr.size);
            attr.atime = atime.map_or(attr.atime, time);
            attr.mtime = mtime.map_or(attr.mtime, time);
        });
        match changed {
            Ok(attr) => reply.attr(&ttl(&attr), &attr),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let perm = (mode & !umask & 0o7777) as u16;
        let owner = (request.uid(), request.gid());
        let made = lock(&self.0).make(parent.0, name, FileType::Directory, perm, owner);
        entry(reply, made);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = lock(&self.0).remove(parent.0, name, false);
        empty(reply, done);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = lock(&self.0).remove(parent.0, name, true);
        empty(reply, done);
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
            return reply.error(fuser::Errno::EINVAL);
        }
        let done = lock(&self.0).rename((parent.0, name), (new_parent.0, new_name));
        empty(reply, done);
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let perm = (mode & !umask & 0o7777) as u16;
        let owner = (request.uid(), request.gid());
        let made = lock(&self.0).make(parent.0, name, FileType::RegularFile, perm, owner);
        match made {
            Ok(attr) => {
                reply.created(&ttl(&attr), &attr, GENERATION, FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        len: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let found = lock(&self.0).content(ino.0);
        match found {
            Ok((content, size)) => {
                let bytes = lock(&content).read(offset, len, size);
                reply.data(&bytes);
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let found = lock(&self.0).content(ino.0);
        let (content, _) = match found {
            Ok(found) => found,
            Err(error) => return reply.error(error),
        };
        lock(&content).write(offset, data);
        let end = offset + data.len() as u64;
        let changed = lock(&self.0).change(ino.0, |attr| {
            attr.size = attr.size.max(end);
            attr.mtime = SystemTime::now();
        });
        match changed {
            Ok(_) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        after: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = lock(&self.0)
            .list(ino.0, after, |cookie, name, ino, kind| !reply.add(INodeNo(ino), cookie, kind, name));
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        after: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut tree = lock(&self.0);
        let mut told = Vec::new();
        let listed = tree.list(ino.0, after, |cookie, name, ino, _| {
            let Ok(attr) = tree.attr(ino) else { return true };
            let full = reply.add(INodeNo(ino), cookie, name, &ttl(&attr), &attr, GENERATION);
            // The kernel takes no reference on `.` and `..`.
            if !full && cookie >= COOKIE_FIRST {
                told.push(ino);
            }
            !full
        });
        let counted = listed.and_then(|()| told.into_iter().try_for_each(|ino| tree.tell(ino).map(|_| ())));
        drop(tree);
        match counted {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }
}
