//! renameat2(2), in one command.

use types::{Errno, Ino, SessionId};

use crate::command::{Cred, RenameMode, Reply};
use crate::keys;
use crate::names::{self, Search};
use crate::projects;
use crate::query::{Attr, FileKind};
use crate::remove;
use crate::row::inode::Inode;
use crate::row::names::Dentry;
use crate::tx::{Outcome, Tx};

/// The two names of a rename.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) parent: Ino,
    pub(crate) name: &'a [u8],
    pub(crate) new_parent: Ino,
    pub(crate) new_name: &'a [u8],
}

/// A name that is there.
type Found = (u64, Dentry);

/// Changes names; `pinned_by` has what is replaced open.
pub(crate) fn rename(
    tx: &mut Tx<'_, '_>,
    names: Names<'_>,
    mode: RenameMode,
    pinned_by: Option<SessionId>,
    cred: Cred,
) -> Outcome<Reply> {
    names::check(names.name)?;
    names::check(names.new_name)?;
    let dir = tx.dir(names.parent)?.clone();
    let new_dir = tx.dir(names.new_parent)?.clone();
    let old = names::existing(tx, names.parent, names.name)?;
    let new = names::search(tx.over, tx.id, &tx.volume, names.new_parent, names.new_name)?;
    let moved = tx.inode(old.1.ino)?.clone();
    if let Some((_, dentry)) = &new.found {
        if matches!(mode, RenameMode::NoReplace | RenameMode::NoReplaceWhiteout) {
            return Err(Errno::EEXIST.into());
        }
        if dentry.ino == old.1.ino {
            // rename(2): both names are the same file, nothing is done.
            return Ok(Reply::Renamed { moved: moved.attr(old.1.ino), other: None });
        }
    }
    remove::check_sticky(&dir, &moved, cred)?;
    if let Some((_, dentry)) = &new.found {
        let there = tx.inode(dentry.ino)?.clone();
        remove::check_sticky(&new_dir, &there, cred)?;
        if mode == RenameMode::Exchange && there.is_dir() {
            refuse_inside(tx, dentry.ino, names.parent)?;
        }
    }
    if moved.is_dir() && names.parent != names.new_parent {
        refuse_inside(tx, old.1.ino, names.new_parent)?;
    }
    projects::rename(tx, old.1.ino, dir.project, new_dir.project)?;
    if mode != RenameMode::Exchange {
        return replace(tx, names, old, new, mode, pinned_by, cred);
    }
    let new = new.found.ok_or(Errno::ENOENT)?;
    projects::rename(tx, new.1.ino, new_dir.project, dir.project)?;
    exchange(tx, names, old, new)
}

/// `EINVAL` if `dir` is `moving` or lies below it: a directory cannot go into itself.
fn refuse_inside(tx: &mut Tx<'_, '_>, moving: Ino, dir: Ino) -> Outcome<()> {
    let mut at = dir;
    while at != Ino::ROOT {
        if at == moving {
            return Err(Errno::EINVAL.into());
        }
        at = tx.inode(at)?.parent;
    }
    if moving == Ino::ROOT { Err(Errno::EINVAL.into()) } else { Ok(()) }
}

fn exchange(tx: &mut Tx<'_, '_>, names: Names<'_>, old: Found, new: Found) -> Outcome<Reply> {
    let now = tx.now;
    let (there, here) = ((names.new_parent, new.0), (names.parent, old.0));
    names::place_at(tx, there.0, there.1, names.new_name, old.1.ino, old.1.kind);
    names::place_at(tx, here.0, here.1, names.name, new.1.ino, new.1.kind);
    names::move_pointer(tx, old.1.ino, here, there)?;
    names::move_pointer(tx, new.1.ino, there, here)?;
    if names.parent != names.new_parent
        && (old.1.kind == FileKind::Directory) != (new.1.kind == FileKind::Directory)
    {
        let (loses, gains) = if old.1.kind == FileKind::Directory {
            (names.parent, names.new_parent)
        } else {
            (names.new_parent, names.parent)
        };
        names::lower_nlink(tx.edit(loses)?);
        names::raise_nlink(tx.edit(gains)?)?;
    }
    touch_dirs(tx, names)?;
    tx.edit(old.1.ino)?.touch_ctime(now);
    tx.edit(new.1.ino)?.touch_ctime(now);
    let other = tx.inode(new.1.ino)?.attr(new.1.ino);
    Ok(Reply::Renamed { moved: tx.inode(old.1.ino)?.attr(old.1.ino), other: Some(other) })
}

fn touch_dirs(tx: &mut Tx<'_, '_>, names: Names<'_>) -> Outcome<()> {
    let now = tx.now;
    tx.edit(names.parent)?.touch_mtime(now);
    if names.parent != names.new_parent {
        tx.edit(names.new_parent)?.touch_mtime(now);
    }
    Ok(())
}

fn replace(
    tx: &mut Tx<'_, '_>,
    names: Names<'_>,
    old: Found,
    new: Search,
    mode: RenameMode,
    pinned_by: Option<SessionId>,
    cred: Cred,
) -> Outcome<Reply> {
    let now = tx.now;
    let (old_cookie, Dentry { ino, kind, .. }) = old;
    let is_dir = kind == FileKind::Directory;
    if let Some((_, there)) = &new.found {
        match (is_dir, there.kind == FileKind::Directory) {
            (true, false) => return Err(Errno::ENOTDIR.into()),
            (false, true) => return Err(Errno::EISDIR.into()),
            (true, true) => remove::check_empty(tx, there.ino)?,
            (false, false) => {}
        }
    }
    let whiteout = matches!(mode, RenameMode::Whiteout | RenameMode::NoReplaceWhiteout);
    if whiteout {
        put_whiteout(tx, names, old_cookie, cred)?;
    } else {
        tx.over.delete(keys::dentry(tx.id, names.parent, old_cookie));
    }
    let (new_cookie, other) = match &new.found {
        Some((cookie, there)) => {
            names::place_at(tx, names.new_parent, *cookie, names.new_name, ino, kind);
            (*cookie, Some(drop_replaced(tx, names.new_parent, *cookie, there.ino, pinned_by)?))
        }
        // The cookie that the old name has left may be the lowest that is free.
        None if names.new_parent == names.parent && new.first == old_cookie & !0xFF => {
            (names::place(tx, names.new_parent, names.new_name, ino, kind)?, None)
        }
        None => {
            let cookie = new.vacant()?;
            names::place_at(tx, names.new_parent, cookie, names.new_name, ino, kind);
            (cookie, None)
        }
    };
    names::move_pointer(tx, ino, (names.parent, old_cookie), (names.new_parent, new_cookie))?;
    if is_dir {
        names::lower_nlink(tx.edit(names.parent)?);
        names::raise_nlink(tx.edit(names.new_parent)?)?;
    }
    touch_dirs(tx, names)?;
    tx.edit(ino)?.touch_ctime(now);
    Ok(Reply::Renamed { moved: tx.inode(ino)?.attr(ino), other })
}

/// What stood at the new name loses it.
fn drop_replaced(
    tx: &mut Tx<'_, '_>,
    dir: Ino,
    cookie: u64,
    ino: Ino,
    pinned_by: Option<SessionId>,
) -> Outcome<Attr> {
    if tx.inode(ino)?.is_dir() {
        names::lower_nlink(tx.edit(dir)?);
        remove::drop_dir(tx, ino, pinned_by)
    } else {
        remove::drop_name(tx, ino, dir, cookie, pinned_by)
    }
}

/// The old name becomes a whiteout, as union filesystems want it: a character device 0:0 without permissions.
fn put_whiteout(tx: &mut Tx<'_, '_>, names: Names<'_>, cookie: u64, cred: Cred) -> Outcome<()> {
    let inode = Inode {
        uid: cred.uid,
        gid: cred.gid,
        parent: names.parent,
        cookie,
        project: tx.inode(names.parent)?.project,
        ..Inode::new(FileKind::CharDevice, tx.now)
    };
    let ino = tx.add_inode(inode)?;
    names::place_at(tx, names.parent, cookie, names.name, ino, FileKind::CharDevice);
    Ok(())
}
