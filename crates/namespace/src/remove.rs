//! Names go: unlink(2) and rmdir(2).

use types::{Errno, Ino, SessionId};

use crate::command::{Cred, Reply};
use crate::keys;
use crate::names;
use crate::projects;
use crate::query::{Attr, FileKind};
use crate::row::inode::Inode;
use crate::row::names::Dentry;
use crate::tx::{Outcome, Tx};

const S_ISVTX: u32 = 0o1000;

/// In a sticky directory only root, its owner and the owner of what is named may take a name away.
pub(crate) fn check_sticky(dir: &Inode, inode: &Inode, cred: Cred) -> Result<(), Errno> {
    let free = dir.mode & S_ISVTX == 0 || cred.uid == 0 || cred.uid == dir.uid || cred.uid == inode.uid;
    if free { Ok(()) } else { Err(Errno::EPERM) }
}

/// unlink(2).
pub(crate) fn unlink(
    tx: &mut Tx<'_, '_>,
    parent: Ino,
    name: &[u8],
    pinned_by: Option<SessionId>,
    cred: Cred,
) -> Outcome<Reply> {
    names::check(name)?;
    let dir = tx.dir(parent)?.clone();
    let (cookie, dentry) = names::existing(tx, parent, name)?;
    let inode = tx.inode(dentry.ino)?;
    check_sticky(&dir, inode, cred)?;
    if inode.is_dir() {
        return Err(Errno::EISDIR.into());
    }
    let now = tx.now;
    tx.over.delete(keys::dentry(tx.id, parent, cookie));
    tx.edit(parent)?.touch_mtime(now);
    Ok(Reply::Removed(drop_name(tx, dentry.ino, parent, cookie, pinned_by)?))
}

/// A name of a file that is no more in its directory.
pub(crate) fn drop_name(
    tx: &mut Tx<'_, '_>,
    ino: Ino,
    dir: Ino,
    cookie: u64,
    pinned_by: Option<SessionId>,
) -> Outcome<Attr> {
    let now = tx.now;
    let inode = tx.edit(ino)?;
    inode.touch_ctime(now);
    names::lower_nlink(inode);
    if inode.nlink > 0 {
        names::drop_pointer(tx, ino, dir, cookie)?;
        return Ok(tx.inode(ino)?.attr(ino));
    }
    let attr = inode.attr(ino);
    tx.orphan(ino, pinned_by)?;
    Ok(attr)
}

/// rmdir(2).
pub(crate) fn rmdir(
    tx: &mut Tx<'_, '_>,
    parent: Ino,
    name: &[u8],
    pinned_by: Option<SessionId>,
    cred: Cred,
) -> Outcome<Reply> {
    names::check(name)?;
    let dir = tx.dir(parent)?.clone();
    let (cookie, dentry) = names::existing(tx, parent, name)?;
    check_sticky(&dir, tx.inode(dentry.ino)?, cred)?;
    if dentry.kind != FileKind::Directory {
        return Err(Errno::ENOTDIR.into());
    }
    check_empty(tx, dentry.ino)?;
    let now = tx.now;
    tx.over.delete(keys::dentry(tx.id, parent, cookie));
    let dir = tx.edit(parent)?;
    names::lower_nlink(dir);
    dir.touch_mtime(now);
    Ok(Reply::Removed(drop_dir(tx, dentry.ino, pinned_by)?))
}

/// `ENOTEMPTY` if the directory has a name in it.
pub(crate) fn check_empty(tx: &Tx<'_, '_>, dir: Ino) -> Outcome<()> {
    let names = keys::of_inode(tx.id, keys::kind::DENTRY, dir);
    match tx.first::<Dentry>(&names, &keys::after(&names))? {
        Some(_) => Err(Errno::ENOTEMPTY.into()),
        None => Ok(()),
    }
}

/// An empty directory that is no more in its parent.
pub(crate) fn drop_dir(tx: &mut Tx<'_, '_>, ino: Ino, pinned_by: Option<SessionId>) -> Outcome<Attr> {
    let now = tx.now;
    projects::drop_dir(tx, ino)?;
    let inode = tx.edit(ino)?;
    inode.touch_ctime(now);
    inode.nlink = 0;
    let attr = inode.attr(ino);
    tx.orphan(ino, pinned_by)?;
    Ok(attr)
}
