//! The kernel's requests as operations.
//!
//! What is not built is answered so that the kernel does it itself: `ENOSYS` makes it remember and fall back (poll:
//! always ready; O_TMPFILE and statx: not there). Locks are not negotiated, so they never come.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, INodeNo, IoctlFlags, KernelConfig, LockOwner, PollEvents,
    PollFlags, PollNotifier, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use namespace::{Cred, NewKind, SetAttr};
use types::Ino;
use vfs::{Ctx, Handle, Op};

use crate::answer::{ListAnswer, ListPlusAnswer, NoReply, XattrAnswer};
use crate::resume::{GATHERING, Gathering};
use crate::server::Server;
use crate::{convert, init};

fn ctx(request: &Request) -> Ctx {
    Ctx {
        cred: Cred { uid: request.uid(), gid: request.gid() },
        pid: request.pid(),
        unique: request.unique().0 & !mounts::RESENT,
    }
}

fn bytes(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

/// fuser's trait over ours.
pub(crate) struct Adapter(Arc<Server>, Option<Arc<Gathering>>);

impl Adapter {
    /// With a `gathering` its threads are held there once.
    pub(crate) fn new(server: Server, gathering: Option<Arc<Gathering>>) -> Adapter {
        Adapter(Arc::new(server), gathering)
    }
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        init::agree(config)
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.0.run(ctx(request), Op::Lookup { parent: Ino(parent.0), name: bytes(name) }, reply);
    }

    fn forget(&self, request: &Request, ino: INodeNo, count: u64) {
        self.0.run(ctx(request), Op::Forget { ino: Ino(ino.0), count }, NoReply);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        self.0.run(ctx(request), Op::GetAttr { ino: Ino(ino.0) }, reply);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>, // comes only with the kernel's write-back cache
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
        };
        // Under HANDLE_KILLPRIV_V2 dropping set-id bits is ours wherever the kernel would do it by itself: at each
        // chown, and at a truncate by somebody without CAP_FSETID, for which it sends FATTR_KILL_SUIDGID. fuser 0.18
        // drops that flag, so every truncate by another user than root is taken as flagged. A request that sets
        // nothing is what is left of "only drop the set-id bits": chown(2) with both ids -1, or the moment before a
        // write.
        let chown = uid.is_some() || gid.is_some();
        let kill_priv = set == SetAttr::default() || chown || (size.is_some() && request.uid() != 0);
        self.0.run(ctx(request), Op::SetAttr { ino: Ino(ino.0), set, kill_priv }, reply);
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        self.0.run(ctx(request), Op::ReadLink { ino: Ino(ino.0) }, reply);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let op = convert::new_kind(mode, rdev).map(|kind| Op::Create {
            parent: Ino(parent.0),
            name: bytes(name),
            kind,
            mode: mode & 0o7777,
            umask,
            open: None,
        });
        self.0.run_if(ctx(request), op, reply);
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
        let op = Op::Create {
            parent: Ino(parent.0),
            name: bytes(name),
            kind: NewKind::Directory,
            mode: mode & 0o7777,
            umask,
            open: None,
        };
        self.0.run(ctx(request), op, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.0.run(ctx(request), Op::Unlink { parent: Ino(parent.0), name: bytes(name) }, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.0.run(ctx(request), Op::Rmdir { parent: Ino(parent.0), name: bytes(name) }, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let op = Op::Create {
            parent: Ino(parent.0),
            name: bytes(name),
            kind: NewKind::Symlink(bytes(target.as_os_str())),
            mode: 0o777,
            umask: 0,
            open: None,
        };
        self.0.run(ctx(request), op, reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        let op = convert::rename_flags(flags).map(|flags| Op::Rename {
            parent: Ino(parent.0),
            name: bytes(name),
            new_parent: Ino(new_parent.0),
            new_name: bytes(new_name),
            flags,
        });
        self.0.run_if(ctx(request), op, reply);
    }

    fn link(&self, request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let op = Op::Link { ino: Ino(ino.0), parent: Ino(parent.0), name: bytes(name) };
        self.0.run(ctx(request), op, reply);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: fuser::OpenFlags, reply: ReplyOpen) {
        let op = Op::Open { ino: Ino(ino.0), flags: convert::open_flags(flags.0) };
        self.0.run(ctx(request), op, reply);
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u32,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let op = Op::Read { ino: Ino(ino.0), handle: Handle(handle.0), offset, len };
        self.0.run(ctx(request), op, reply);
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if request.unique().0 == GATHERING {
            reply.written(0); // to the socket that stands for the device
            if let Some(gathering) = &self.1 {
                gathering.hold(data);
            }
            return;
        }
        let op = Op::Write {
            ino: Ino(ino.0),
            handle: Handle(handle.0),
            offset,
            data: data.to_vec(),
            kill_priv: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        self.0.run(ctx(request), op, reply);
    }

    fn flush(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.0.run(ctx(request), Op::Flush { ino: Ino(ino.0), handle: Handle(handle.0) }, reply);
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.0.run(ctx(request), Op::Release { ino: Ino(ino.0), handle: Handle(handle.0) }, reply);
    }

    fn fsync(&self, request: &Request, ino: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let op = Op::Fsync { ino: Ino(ino.0), handle: Handle(handle.0), data_only };
        self.0.run(ctx(request), op, reply);
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: fuser::OpenFlags, reply: ReplyOpen) {
        self.0.run(ctx(request), Op::OpenDir { ino: Ino(ino.0) }, reply);
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        after: u64,
        reply: ReplyDirectory,
    ) {
        let max = self.0.names_fit.ask();
        let op = Op::ReadDir { ino: Ino(ino.0), handle: Handle(handle.0), after, max, plus: false };
        self.0.run(ctx(request), op, ListAnswer { reply, server: Arc::clone(&self.0), asked: max });
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        after: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let max = self.0.plus_fit.ask();
        let op = Op::ReadDir { ino: Ino(ino.0), handle: Handle(handle.0), after, max, plus: true };
        self.0.run(ctx(request), op, ListPlusAnswer { reply, server: Arc::clone(&self.0), asked: max });
    }

    fn releasedir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: fuser::OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.run(ctx(request), Op::ReleaseDir { ino: Ino(ino.0), handle: Handle(handle.0) }, reply);
    }

    fn fsyncdir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let op = Op::FsyncDir { ino: Ino(ino.0), handle: Handle(handle.0), data_only };
        self.0.run(ctx(request), op, reply);
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.0.run(ctx(request), Op::StatFs { ino: Ino(ino.0) }, reply);
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let op = convert::xattr_mode(flags).map(|mode| Op::SetXattr {
            ino: Ino(ino.0),
            name: bytes(name),
            value: value.to_vec(),
            mode,
        });
        self.0.run_if(ctx(request), op, reply);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let op = Op::GetXattr { ino: Ino(ino.0), name: bytes(name) };
        self.0.run(ctx(request), op, XattrAnswer { reply, size });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.0.run(ctx(request), Op::ListXattr { ino: Ino(ino.0) }, XattrAnswer { reply, size });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.0.run(ctx(request), Op::RemoveXattr { ino: Ino(ino.0), name: bytes(name) }, reply);
    }

    fn access(&self, _request: &Request, _ino: INodeNo, _mask: fuser::AccessFlags, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS); // default_permissions: the kernel checks, and does not ask
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let op = Op::Create {
            parent: Ino(parent.0),
            name: bytes(name),
            kind: NewKind::File,
            mode: mode & 0o7777,
            umask,
            open: Some(convert::open_flags(flags)),
        };
        self.0.run(ctx(request), op, reply);
    }

    fn getlk(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _kind: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn setlk(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _kind: i32,
        _pid: u32,
        _sleep: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn bmap(&self, _request: &Request, _ino: INodeNo, _block_size: u32, _index: u64, reply: ReplyBmap) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let op = convert::fallocate_mode(mode).map(|mode| Op::Fallocate {
            ino: Ino(ino.0),
            handle: Handle(handle.0),
            mode,
            offset,
            len,
        });
        self.0.run_if(ctx(request), op, reply);
    }

    fn lseek(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let op = convert::seek(offset, whence).map(|(offset, to)| Op::Seek {
            ino: Ino(ino.0),
            handle: Handle(handle.0),
            offset,
            to,
        });
        self.0.run_if(ctx(request), op, reply);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        to: INodeNo,
        to_handle: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags, // the kernel refuses all that there are
        reply: ReplyWrite,
    ) {
        let op = Op::CopyRange {
            ino: Ino(ino.0),
            handle: Handle(handle.0),
            offset,
            to: Ino(to.0),
            to_handle: Handle(to_handle.0),
            to_offset,
            len,
        };
        self.0.run(ctx(request), op, reply);
    }
}
