//! Attributes: chmod(2), chown(2), utimensat(2), and what reading and writing does to them.
//!
//! Who may change what has been decided before the command comes: the kernel checks with the caller's groups and
//! capabilities, which do not reach this far.

use types::{Dseq, Errno, Grant, Ino, Nanos};

use crate::acl;
use crate::command::{Reply, SetAttr, SetTime};
use crate::row::inode::Inode;
use crate::tx::{Outcome, Tx};
use crate::{truncate, xattrs};

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

/// relatime moves an access time that is at least this old.
const RELATIME: i64 = 24 * 60 * 60 * 1_000_000_000;

/// Changes what is asked for.
pub(crate) fn set_attr(
    tx: &mut Tx<'_, '_>,
    ino: Ino,
    set: &SetAttr,
    kill: bool,
    applied: Option<(Grant, Dseq)>,
) -> Outcome<Reply> {
    tx.inode(ino)?;
    if let Some(size) = set.size {
        if let Some((grant, dseq)) = applied {
            let inode = tx.edit(ino)?;
            if inode.grant != grant {
                return Err(Errno::ESTALE.into());
            }
            inode.applied = inode.applied.max(dseq);
        }
        truncate::truncate(tx, ino, size)?;
    }
    let now = tx.now;
    if *set != SetAttr::default() {
        let inode = tx.edit(ino)?;
        change(inode, set, now);
        if set.size.is_none() {
            inode.touch_ctime(now);
        }
    }
    if set.mode.is_some() {
        acl::follow_mode(tx, ino)?;
    }
    if kill {
        kill_priv(tx, ino)?;
    }
    Ok(Reply::Attr(tx.inode(ino)?.attr(ino)))
}

fn change(inode: &mut Inode, set: &SetAttr, now: Nanos) {
    let time = |set: SetTime| match set {
        SetTime::Now => now,
        SetTime::To(time) => time,
    };
    inode.mode = set.mode.map_or(inode.mode, |mode| mode & 0o7777);
    inode.uid = set.uid.unwrap_or(inode.uid);
    inode.gid = set.gid.unwrap_or(inode.gid);
    inode.atime = set.atime.map_or(inode.atime, time);
    inode.mtime = set.mtime.map_or(inode.mtime, time);
}

/// Somebody without the right to keep them changed the file: set-user-id and capabilities go, and set-group-id where
/// it means that (without group execution it is a mark of mandatory locking; Linux: `setattr_should_drop_suidgid`).
pub(crate) fn kill_priv(tx: &mut Tx<'_, '_>, ino: Ino) -> Outcome<()> {
    let now = tx.now;
    let inode = tx.inode(ino)?;
    if inode.is_dir() {
        return Ok(());
    }
    let mut mode = inode.mode & !S_ISUID;
    if mode & S_IXGRP != 0 {
        mode &= !S_ISGID;
    }
    let changed = mode != inode.mode;
    if changed {
        let inode = tx.edit(ino)?;
        inode.mode = mode;
        inode.ctime = now;
        inode.change += 1;
    }
    xattrs::drop_capability(tx, ino)
}

/// The file was read. No change in the sense of `change`: nobody's cache of it is wrong.
pub(crate) fn touch(tx: &mut Tx<'_, '_>, ino: Ino, at: Nanos) -> Outcome<Reply> {
    let at = at.min(tx.now);
    let inode = tx.inode(ino)?;
    let old = at.0.saturating_sub(inode.atime.0) >= RELATIME;
    if at > inode.atime && (inode.atime <= inode.mtime || inode.atime <= inode.ctime || old) {
        tx.edit(ino)?.atime = at;
    }
    Ok(Reply::Attr(tx.inode(ino)?.attr(ino)))
}
