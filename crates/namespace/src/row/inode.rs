//! `I`: an inode.

use types::{Dseq, Grant, Ino, Nanos};

use crate::query::{Attr, FileKind};
use crate::wire::wire_struct;

/// An `N` row holds the file's first bytes.
pub(crate) const INLINE: u32 = 1;
/// A reclaim row says which of its map rows are cut off by a truncate but not yet deleted.
pub(crate) const TAIL: u32 = 2;

/// The body of the row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Inode {
    pub(crate) kind: FileKind,
    /// 0o7777.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) nlink: u32,
    pub(crate) size: u64,
    /// 4 KiB units of every map row, plus one of an inline row.
    pub(crate) allocated: u64,
    pub(crate) atime: Nanos,
    pub(crate) mtime: Nanos,
    pub(crate) ctime: Nanos,
    pub(crate) btime: Nanos,
    pub(crate) change: u64,
    /// Where its only name is: of directories, and of others while `nlink` is 1; else 0 (then `P` rows tell).
    pub(crate) parent: Ino,
    pub(crate) cookie: u64,
    /// The grant of the last writer.
    pub(crate) grant: Grant,
    /// What of that grant is in the rows.
    pub(crate) applied: Dseq,
    /// [`INLINE`], [`TAIL`].
    pub(crate) flags: u32,
    /// The generation of map rows written from now on; see [`super::reclaim::Tail`].
    pub(crate) map_gen: u32,
    /// Names and values of its extended attributes.
    pub(crate) xattr_bytes: u32,
    /// The nearest directory with a quota that it lies in, itself included, or 0: what it counts for.
    pub(crate) project: Ino,
}
wire_struct!(Inode {
    kind,
    mode,
    uid,
    gid,
    rdev,
    nlink,
    size,
    allocated,
    atime,
    mtime,
    ctime,
    btime,
    change,
    parent,
    cookie,
    grant,
    applied,
    flags,
    map_gen,
    xattr_bytes,
    project
});

impl Inode {
    pub(crate) fn attr(&self, ino: Ino) -> Attr {
        Attr {
            ino,
            kind: self.kind,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size: self.size,
            allocated: self.allocated,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            change: self.change,
            grant: self.grant,
            applied: self.applied,
            project: self.project,
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether it can have map rows: all that it takes may be its inline row.
    pub(crate) fn may_have_map(&self) -> bool {
        let inline = if self.has(INLINE) { types::BLOCK } else { 0 };
        self.allocated != inline || self.has(TAIL)
    }

    pub(crate) fn set(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// Something other than data or names changed.
    pub(crate) fn touch_ctime(&mut self, now: Nanos) {
        self.ctime = now;
        self.change += 1;
    }

    /// Data, or the names of a directory, changed.
    pub(crate) fn touch_mtime(&mut self, now: Nanos) {
        self.mtime = now;
        self.touch_ctime(now);
    }
}
