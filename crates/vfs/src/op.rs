//! The operations of a mount, as an adapter hands them over, and their outcomes.
//!
//! `vfs::Vfs::handle(op, ctx)` answers `Result<Outcome, Errno>`; each variant of [`Op`] names its [`Outcome`].

use std::time::Duration;

use namespace::{Attr, Cred, DirEntry, FallocateMode, NewKind, SetAttr, XattrMode};
use types::Ino;

/// Who asks, and which request it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ctx {
    /// The caller's credentials.
    pub cred: Cred,
    /// The caller's process, 0 if it is not visible from here.
    pub pid: u32,
    /// The kernel's number of the request, without its resend bit.
    pub unique: u64,
}

/// An open file. It carries no state of this process: `mode 4 | error sample 28 | serial 32` bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle(pub u64);

/// How a file is opened: the bits of open(2) that an open file keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenFlags {
    /// `O_RDONLY` or `O_RDWR`.
    pub read: bool,
    /// `O_WRONLY` or `O_RDWR`.
    pub write: bool,
    /// `O_APPEND`.
    pub append: bool,
    /// `O_TRUNC`.
    pub truncate: bool,
    /// `O_DIRECT`.
    pub direct: bool,
    /// `O_SYNC` or `O_DSYNC`: each write is durable before it returns.
    pub sync: bool,
}

/// The flags of renameat2(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RenameFlags {
    /// `RENAME_NOREPLACE`.
    pub no_replace: bool,
    /// `RENAME_EXCHANGE`.
    pub exchange: bool,
    /// `RENAME_WHITEOUT`.
    pub whiteout: bool,
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeekTo {
    /// `SEEK_DATA`.
    Data,
    /// `SEEK_HOLE`.
    Hole,
}

/// How long the kernel may use what it was told without asking again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeToLive {
    /// That the name stands for the inode (or for nothing).
    pub entry: Duration,
    /// The attributes.
    pub attr: Duration,
}

/// An entry of a directory, and how long the kernel may use it.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub struct Listed {
    pub entry: DirEntry,
    pub ttl: TimeToLive,
}

/// What statfs(2) tells; block size 4,096.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatFs {
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks free.
    pub free: u64,
    /// Inodes in all.
    pub files: u64,
    /// Inodes free.
    pub files_free: u64,
}

/// An operation.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the fields are those of the system call that the variant names
pub enum Op {
    /// A name is looked up; `.` and `..` too: `Entry`, or `NoEntry` if nothing has it. Each answered entry counts one reference for `Forget`.
    Lookup { parent: Ino, name: Vec<u8> },
    /// The kernel drops references that `Lookup`, `Create`, `Link` or `ReadDir` with attributes gave it: `Done`.
    Forget { ino: Ino, count: u64 },
    /// stat(2): `Attr`.
    GetAttr { ino: Ino },
    /// chmod(2), chown(2), truncate(2), utimensat(2): `Attr`.
    SetAttr { ino: Ino, set: SetAttr, kill_priv: bool },
    /// readlink(2): `Bytes`.
    ReadLink { ino: Ino },
    /// mknod(2), mkdir(2), symlink(2): `Entry`. open(2) with `O_CREAT`, `open` given: `Created`.
    Create { parent: Ino, name: Vec<u8>, kind: NewKind, mode: u32, umask: u32, open: Option<OpenFlags> },
    /// unlink(2): `Done`.
    Unlink { parent: Ino, name: Vec<u8> },
    /// rmdir(2): `Done`.
    Rmdir { parent: Ino, name: Vec<u8> },
    /// renameat2(2): `Done`.
    Rename { parent: Ino, name: Vec<u8>, new_parent: Ino, new_name: Vec<u8>, flags: RenameFlags },
    /// link(2): `Entry`.
    Link { ino: Ino, parent: Ino, name: Vec<u8> },
    /// open(2): `Opened`.
    Open { ino: Ino, flags: OpenFlags },
    /// pread(2): `Bytes`, shorter only at the end of the file.
    Read { ino: Ino, handle: Handle, offset: u64, len: u32 },
    /// pwrite(2): `Written`. `kill_priv`: the writer may not keep set-id bits and capabilities.
    Write { ino: Ino, handle: Handle, offset: u64, data: Vec<u8>, kill_priv: bool },
    /// close(2) of one descriptor: `Done`, or the late error of an earlier write.
    Flush { ino: Ino, handle: Handle },
    /// The last descriptor of the handle is closed: `Done`.
    Release { ino: Ino, handle: Handle },
    /// fsync(2), fdatasync(2): `Done`.
    Fsync { ino: Ino, handle: Handle, data_only: bool },
    /// opendir(3): `Opened`.
    OpenDir { ino: Ino },
    /// readdir(3) behind `after` (0 to start; the first two are `.` with cookie 1 and `..` with cookie 2), at most
    /// `max` entries: `Entries`. `plus`: with attributes, each but `.` and `..` counting a reference for `Forget`.
    ReadDir { ino: Ino, handle: Handle, after: u64, max: u32, plus: bool },
    /// closedir(3): `Done`.
    ReleaseDir { ino: Ino, handle: Handle },
    /// fsync(2) of a directory: `Done`.
    FsyncDir { ino: Ino, handle: Handle, data_only: bool },
    /// statfs(2): `StatFs`, of the innermost quota around the inode, or of the volume.
    StatFs {
        /// Any inode.
        ino: Ino,
    },
    /// setxattr(2): `Done`.
    SetXattr { ino: Ino, name: Vec<u8>, value: Vec<u8>, mode: XattrMode },
    /// getxattr(2): `Bytes`, whole.
    GetXattr { ino: Ino, name: Vec<u8> },
    /// listxattr(2): `Names`.
    ListXattr { ino: Ino },
    /// removexattr(2): `Done`.
    RemoveXattr { ino: Ino, name: Vec<u8> },
    /// lseek(2) with `SEEK_DATA` or `SEEK_HOLE`: `Offset`. `ENXIO` at and behind the end, and for data where only a
    /// hole follows.
    Seek { ino: Ino, handle: Handle, offset: u64, to: SeekTo },
    /// copy_file_range(2): `Written`, maybe less than was asked for; 0 only at the end of the source.
    CopyRange { ino: Ino, handle: Handle, offset: u64, to: Ino, to_handle: Handle, to_offset: u64, len: u64 },
    /// fallocate(2): `Done`.
    Fallocate { ino: Ino, handle: Handle, mode: FallocateMode, offset: u64, len: u64 },
}

/// What came of an operation.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Outcome {
    Done,
    Entry {
        attr: Attr,
        ttl: TimeToLive,
    },
    /// Nothing has the name, and the kernel may remember that for `ttl` (FUSE: an entry with node id 0).
    NoEntry {
        ttl: Duration,
    },
    Attr {
        attr: Attr,
        ttl: Duration,
    },
    Created {
        attr: Attr,
        ttl: TimeToLive,
        handle: Handle,
        keep_cache: bool,
        direct: bool,
    },
    /// `keep_cache`: pages that the kernel has of the file are still right. `direct`: bypass its page cache.
    Opened {
        handle: Handle,
        keep_cache: bool,
        direct: bool,
    },
    Bytes(Vec<u8>),
    Written(u32),
    Offset(u64),
    Entries(Vec<Listed>),
    StatFs(StatFs),
    Names(Vec<Vec<u8>>),
}
