//! Names: how they are found, made and placed.

use alloc::format;
use core::hash::Hasher;
use siphasher::sip::SipHasher24;
use types::{Errno, Ino, VolumeId};

use crate::acl;
use crate::command::{Cred, NewKind, Reply};
use crate::keys::{self, KeyReader};
use crate::query::FileKind;
use crate::row;
use crate::row::Empty;
use crate::row::inode::Inode;
use crate::row::names::{Dentry, Target};
use crate::row::volume::Volume;
use crate::rows::{Rows, RowsError};
use crate::tx::{Outcome, Tx};

/// The most names of a file, and one more than the most subdirectories of a directory: XFS has the same bound.
const NLINK_MAX: u32 = i32::MAX as u32;

/// The longest name, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// The longest target of a symbolic link, in bytes (`PATH_MAX` less its NUL).
const TARGET_MAX: usize = 4095;

const S_ISGID: u32 = 0o2000;

/// Refuses what cannot be a name.
pub(crate) fn check(name: &[u8]) -> Result<(), Errno> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|c| matches!(c, b'/' | 0)) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// The 256 cookies of names with this hash: the first of them.
pub(crate) fn first_cookie(volume: &Volume, name: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&volume.hash_key);
    hasher.write(name);
    let bits = u32::from(volume.hash_bits).clamp(1, 55);
    // 0 would give the cookies of the start, `.` and `..`. The sum stays below 2^63, so a cookie is a positive off_t.
    (hasher.finish() >> (64 - bits)).max(1) << 8
}

/// Looks a name up: where it is, and what it stands for.
pub(crate) fn find(
    rows: &dyn Rows,
    id: VolumeId,
    volume: &Volume,
    dir: Ino,
    name: &[u8],
) -> Result<Option<(u64, Dentry)>, RowsError> {
    // Nearly always it is at the first cookie of its hash, or not there. A row read singly costs a fraction of a range.
    let first = first_cookie(volume, name);
    let dentry: Option<Dentry> = row::get(rows, &keys::dentry(id, dir, first))?;
    if let Some(dentry) = dentry.filter(|dentry| dentry.name == name) {
        return Ok(Some((first, dentry)));
    }
    Ok(search(rows, id, volume, dir, name)?.found)
}

/// What the names with the hash of a name say of it.
pub(crate) struct Search {
    /// The first cookie of its hash.
    pub(crate) first: u64,
    /// Where it is, and what it stands for.
    pub(crate) found: Option<(u64, Dentry)>,
    /// If it is not there: the lowest cookie of its hash that no name has.
    free: Option<u64>,
}

impl Search {
    /// Where the name, which is not there, will be. 256 equal hashes are `ENOSPC`.
    pub(crate) fn vacant(&self) -> Result<u64, Errno> {
        self.free.ok_or(Errno::ENOSPC)
    }
}

/// As [`find`], for who wants to make the name if it is not there.
pub(crate) fn search(
    rows: &dyn Rows,
    id: VolumeId,
    volume: &Volume,
    dir: Ino,
    name: &[u8],
) -> Result<Search, RowsError> {
    let first = first_cookie(volume, name);
    let (from, to) = (keys::dentry(id, dir, first), keys::dentry(id, dir, first + 256));
    let mut found = None;
    let mut free = first;
    row::scan(rows, &from, &to, false, &mut |key, dentry: Dentry| {
        let cookie = keys::last_u64(key);
        if cookie == free {
            free += 1;
        }
        if dentry.name == name {
            found = Some((cookie, dentry));
            return false;
        }
        true
    })?;
    Ok(Search { first, found, free: (free < first + 256).then_some(free) })
}

/// A name that must be there.
pub(crate) fn existing(tx: &Tx<'_, '_>, dir: Ino, name: &[u8]) -> Outcome<(u64, Dentry)> {
    Ok(find(tx.over, tx.id, &tx.volume, dir, name)?.ok_or(Errno::ENOENT)?)
}

/// Where a name that is not there yet will be.
fn vacant(tx: &Tx<'_, '_>, dir: Ino, name: &[u8]) -> Outcome<u64> {
    let search = search(tx.over, tx.id, &tx.volume, dir, name)?;
    if search.found.is_some() {
        return Err(Errno::EEXIST.into());
    }
    Ok(search.vacant()?)
}

/// Writes the name; times and counts are the caller's.
pub(crate) fn place(tx: &mut Tx<'_, '_>, dir: Ino, name: &[u8], ino: Ino, kind: FileKind) -> Outcome<u64> {
    let cookie = vacant(tx, dir, name)?;
    place_at(tx, dir, cookie, name, ino, kind);
    Ok(cookie)
}

/// Writes the name at a cookie that it has, or that is free.
pub(crate) fn place_at(tx: &mut Tx<'_, '_>, dir: Ino, cookie: u64, name: &[u8], ino: Ino, kind: FileKind) {
    let key = keys::dentry(tx.id, dir, cookie);
    tx.put(key, &Dentry { ino, kind, name: name.to_vec() });
}

/// One more subdirectory; `EMLINK` if there are too many.
pub(crate) fn raise_nlink(inode: &mut Inode) -> Result<(), Errno> {
    if inode.nlink >= NLINK_MAX {
        return Err(Errno::EMLINK);
    }
    inode.nlink += 1;
    Ok(())
}

/// One name or subdirectory less. Rows that were counted wrong are for `check` to find, not to stop at.
pub(crate) fn lower_nlink(inode: &mut Inode) {
    inode.nlink = inode.nlink.saturating_sub(1);
}

/// The permissions that a new inode shall have.
#[derive(Clone, Copy)]
pub(crate) struct NewMode {
    /// What the caller asked for.
    pub(crate) asked: u32,
    /// What the caller never gives, unless the directory's default access control list decides that.
    pub(crate) umask: u32,
}

/// open(2) with `O_CREAT`, mkdir(2), mknod(2), symlink(2).
pub(crate) fn create(
    tx: &mut Tx<'_, '_>,
    parent: Ino,
    name: &[u8],
    kind: &NewKind,
    mode: NewMode,
    cred: Cred,
) -> Outcome<Reply> {
    check(name)?;
    let dir = tx.dir(parent)?;
    let (dir_mode, dir_gid, project) = (dir.mode, dir.gid, dir.project);
    let cookie = vacant(tx, parent, name)?;
    let now = tx.now;
    let (file_kind, rdev) = match kind {
        NewKind::File => (FileKind::File, 0),
        NewKind::Directory => (FileKind::Directory, 0),
        NewKind::Symlink(_) => (FileKind::Symlink, 0),
        NewKind::Fifo => (FileKind::Fifo, 0),
        NewKind::Socket => (FileKind::Socket, 0),
        NewKind::CharDevice(number) => (FileKind::CharDevice, *number),
        NewKind::BlockDevice(number) => (FileKind::BlockDevice, *number),
    };
    let (uid, gid) = (cred.uid, cred.gid);
    let (lists, mode) = match kind {
        NewKind::Symlink(_) => (acl::Inherited::default(), 0o777),
        _ => acl::Inherited::of(tx, parent, mode.asked & 0o7777, mode.umask)?,
    };
    let mut inode = Inode { mode, uid, gid, rdev, parent, cookie, project, ..Inode::new(file_kind, now) };
    if dir_mode & S_ISGID != 0 {
        inode.gid = dir_gid;
        if inode.is_dir() {
            inode.mode |= S_ISGID;
        }
    }
    let dir = tx.edit(parent)?;
    dir.touch_mtime(now);
    if file_kind == FileKind::Directory {
        raise_nlink(dir)?;
        inode.nlink = 2;
    }
    if let NewKind::Symlink(path) = kind {
        if path.is_empty() || path.contains(&0) {
            return Err(Errno::EINVAL.into());
        }
        if path.len() > TARGET_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        inode.size = path.len() as u64;
    }
    let ino = tx.add_inode(inode)?;
    lists.store(tx, ino)?;
    place_at(tx, parent, cookie, name, ino, file_kind);
    if let NewKind::Symlink(path) = kind {
        let key = keys::of_inode(tx.id, keys::kind::SYMLINK, ino);
        tx.put(key, &Target { path: path.clone() });
    }
    Ok(Reply::Attr(tx.inode(ino)?.attr(ino)))
}

/// link(2).
pub(crate) fn link(tx: &mut Tx<'_, '_>, ino: Ino, parent: Ino, name: &[u8]) -> Outcome<Reply> {
    check(name)?;
    let inode = tx.inode(ino)?;
    let (kind, project) = (inode.kind, inode.project);
    if inode.is_dir() {
        return Err(Errno::EPERM.into());
    }
    if inode.nlink == 0 {
        return Err(Errno::ENOENT.into());
    }
    if tx.dir(parent)?.project != project {
        return Err(Errno::EXDEV.into());
    }
    let cookie = place(tx, parent, name, ino, kind)?;
    let now = tx.now;
    raise_nlink(tx.edit(ino)?)?;
    add_pointer(tx, ino, parent, cookie)?;
    tx.edit(ino)?.touch_ctime(now);
    tx.edit(parent)?.touch_mtime(now);
    Ok(Reply::Attr(tx.inode(ino)?.attr(ino)))
}

/// The inode, whose `nlink` counts it already, is also at this name.
fn add_pointer(tx: &mut Tx<'_, '_>, ino: Ino, dir: Ino, cookie: u64) -> Outcome<()> {
    let inode = tx.edit(ino)?;
    if inode.nlink == 2 {
        let (only_dir, only_cookie) = (inode.parent, inode.cookie);
        inode.parent = Ino(0);
        inode.cookie = 0;
        let key = keys::parent(tx.id, ino, only_dir, only_cookie);
        tx.put(key, &Empty);
    }
    let key = keys::parent(tx.id, ino, dir, cookie);
    tx.put(key, &Empty);
    Ok(())
}

/// The inode, not a directory, whose `nlink` of at least 1 does not count it any more, left this name.
pub(crate) fn drop_pointer(tx: &mut Tx<'_, '_>, ino: Ino, dir: Ino, cookie: u64) -> Outcome<()> {
    tx.over.delete(keys::parent(tx.id, ino, dir, cookie));
    if tx.inode(ino)?.nlink > 1 {
        return Ok(());
    }
    let prefix = keys::of_inode(tx.id, keys::kind::PARENT, ino);
    let last = tx.first::<Empty>(&prefix, &keys::after(&prefix))?;
    let (key, _) = last.ok_or_else(|| broken(ino))?;
    let mut parts = KeyReader::open(&key).ok_or_else(|| broken(ino))?.2;
    let (Some(_), Some(dir), Some(cookie)) = (parts.u64(), parts.u64(), parts.u64()) else {
        return Err(broken(ino).into());
    };
    tx.over.delete(key);
    let inode = tx.edit(ino)?;
    inode.parent = Ino(dir);
    inode.cookie = cookie;
    Ok(())
}

fn broken(ino: Ino) -> RowsError {
    RowsError(format!("inode {ino} has a name that no back-pointer row tells"))
}

/// The inode moved from one name to another.
pub(crate) fn move_pointer(tx: &mut Tx<'_, '_>, ino: Ino, from: (Ino, u64), to: (Ino, u64)) -> Outcome<()> {
    let inode = tx.edit(ino)?;
    if inode.is_dir() || inode.nlink == 1 {
        inode.parent = to.0;
        inode.cookie = to.1;
        return Ok(());
    }
    tx.over.delete(keys::parent(tx.id, ino, from.0, from.1));
    let key = keys::parent(tx.id, ino, to.0, to.1);
    tx.put(key, &Empty);
    Ok(())
}
