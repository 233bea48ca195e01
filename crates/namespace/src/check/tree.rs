//! Inodes, names, and the way between them.

use alloc::vec::Vec;
use types::Ino;

use super::{Check, Fault, Inodes, Seen};
use crate::acl;
use crate::keys::{self, KeyReader, kind};
use crate::names;
use crate::query::FileKind;
use crate::row;
use crate::row::inode::Inode;
use crate::row::names::{Dentry, Target, Xattr};
use crate::row::reclaim::Tail;
use crate::row::volume::Volume;
use crate::rows::RowsError;

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "a file",
        FileKind::Directory => "a directory",
        FileKind::Symlink => "a symbolic link",
        FileKind::Fifo => "a FIFO",
        FileKind::Socket => "a socket",
        FileKind::CharDevice => "a character device",
        FileKind::BlockDevice => "a block device",
    }
}

/// The first two numbers of a key: an inode, and a cookie or another inode.
pub(super) fn numbers(key: &[u8]) -> (u64, u64) {
    let Some((_, _, mut rest)) = KeyReader::open(key) else { return (0, 0) };
    (rest.u64().unwrap_or(0), rest.u64().unwrap_or(0))
}

impl Check<'_> {
    pub(super) fn inodes(&mut self, volume: &Volume) -> Result<Inodes, RowsError> {
        let mut inodes = Inodes::new();
        self.each(kind::INODE, |check, key, inode: Inode| {
            let ino = keys::last_u64(key);
            if ino == 0 || ino >= volume.next_ino.0 || inode.grant >= volume.next_grant {
                check.problem(key, Fault::NumberAhead);
            }
            let seen = Seen {
                inode,
                names: 0,
                subdirs: 0,
                pointers: 0,
                allocated: 0,
                xattr_bytes: 0,
                inline: false,
                target: false,
                pinned: false,
                condemned: false,
                tail: Tail::default(),
                has_tail: false,
            };
            inodes.insert(ino, seen);
        })?;
        if inodes.get(&Ino::ROOT.0).is_none_or(|root| !root.inode.is_dir()) {
            self.problem(&keys::inode(self.id, Ino::ROOT), Fault::NoInode);
        }
        Ok(inodes)
    }

    /// `D`, `P`, `X`, `Y`, and the counts that follow from them.
    pub(super) fn names(&mut self, volume: &Volume, inodes: &mut Inodes) -> Result<(), RowsError> {
        self.dentries(volume, inodes)?;
        let id = self.id;
        let mut lost = None;
        self.each(kind::PARENT, |check, key, _: row::Empty| {
            let (ino, dir) = numbers(key);
            let dentry = check.one::<Dentry>(&keys::dentry(id, Ino(dir), keys::last_u64(key)));
            match (dentry, inodes.get_mut(&ino)) {
                (Ok(Some(dentry)), Some(seen)) if dentry.ino == Ino(ino) => seen.pointers += 1,
                (Ok(_), _) => check.problem(key, Fault::NoSuchName),
                (Err(error), _) => lost = Some(error),
            }
        })?;
        self.each(kind::XATTR, |check, key, row: Xattr| match inodes.get_mut(&numbers(key).0) {
            Some(seen) => {
                let name = &key[keys::PREFIX + 8..];
                seen.xattr_bytes += (name.len() + row.value.len()) as u64;
                if acl::is_acl(name) && !acl::is_sound(&seen.inode, name, &row.value) {
                    check.problem(key, Fault::WrongAcl);
                }
            }
            None => check.problem(key, Fault::NoInode),
        })?;
        self.each(kind::SYMLINK, |check, key, row: Target| match inodes.get_mut(&keys::last_u64(key)) {
            Some(seen) if seen.inode.kind == FileKind::Symlink => {
                seen.target = true;
                if seen.inode.size != row.path.len() as u64 {
                    check.problem(key, Fault::WrongLength);
                }
            }
            _ => check.problem(key, Fault::NoInode),
        })?;
        for (ino, seen) in inodes.iter() {
            self.counts(Ino(*ino), seen);
        }
        lost.map_or(Ok(()), Err)
    }

    fn dentries(&mut self, volume: &Volume, inodes: &mut Inodes) -> Result<(), RowsError> {
        let rows = self.rows;
        let id = self.id;
        // Names of the directory whose hash is that of the last one: only they can be equal to the next.
        let mut near: ((u64, u64), Vec<Vec<u8>>) = ((0, 0), Vec::new());
        let mut lost = None;
        self.each(kind::DENTRY, |check, key, row: Dentry| {
            let (dir, cookie) = numbers(key);
            if names::check(&row.name).is_err() {
                check.problem(key, Fault::BadName);
            }
            if names::first_cookie(volume, &row.name) != cookie & !0xff {
                check.problem(key, Fault::WrongCookie);
            }
            if near.0 != (dir, cookie >> 8) {
                near = ((dir, cookie >> 8), Vec::new());
            }
            if near.1.contains(&row.name) {
                check.problem(key, Fault::NameTwice);
            }
            match inodes.get_mut(&dir) {
                Some(seen) if seen.inode.is_dir() && seen.inode.nlink > 0 => {
                    seen.subdirs += u32::from(row.kind == FileKind::Directory);
                }
                _ => check.problem(key, Fault::NoDirectory),
            }
            let Some(seen) = inodes.get_mut(&row.ino.0) else {
                return check.problem(key, Fault::NoInode);
            };
            seen.names += 1;
            if seen.inode.kind != row.kind {
                let (said, is) = (kind_name(row.kind), kind_name(seen.inode.kind));
                check.problem(key, Fault::WrongKind { said, is });
            }
            let leads_back = if seen.inode.is_dir() || seen.inode.nlink == 1 {
                Ok((seen.inode.parent, seen.inode.cookie) == (Ino(dir), cookie))
            } else {
                rows.get(&keys::parent(id, row.ino, Ino(dir), cookie)).map(|row| row.is_some())
            };
            match leads_back {
                Ok(true) => {}
                Ok(false) => check.problem(key, Fault::NoWayBack),
                Err(error) => lost = Some(error),
            }
            near.1.push(row.name);
        })?;
        lost.map_or(Ok(()), Err)
    }

    fn counts(&mut self, ino: Ino, seen: &Seen) {
        let key = keys::inode(self.id, ino);
        let nlink = u64::from(seen.inode.nlink);
        if seen.inode.is_dir() {
            let named = u64::from(ino == Ino::ROOT || seen.names > 0);
            let counted = if named == 0 { 0 } else { 2 + u64::from(seen.subdirs) };
            self.compare(&key, "nlink", nlink, counted);
            if seen.names > 1 || (ino == Ino::ROOT && seen.names > 0) {
                self.problem(&key, Fault::NameTwice);
            }
        } else {
            self.compare(&key, "nlink", nlink, u64::from(seen.names));
            let pointers = if nlink > 1 { nlink } else { 0 };
            self.compare(&key, "back-pointers", pointers, u64::from(seen.pointers));
        }
        if (seen.inode.kind == FileKind::Symlink) != seen.target {
            self.problem(&key, Fault::WrongLength);
        }
        if nlink == 0 && seen.pinned == seen.condemned {
            let why =
                if seen.pinned { "is both open and to be reclaimed" } else { "nothing holds or reclaims it" };
            self.problem(&key, Fault::Nameless(why));
        }
    }

    /// Every directory that has a name leads up to the root.
    pub(super) fn reachable(&mut self, inodes: &Inodes) {
        let mut reached = alloc::collections::BTreeSet::from([Ino::ROOT.0]);
        for (ino, seen) in inodes {
            if !seen.inode.is_dir() || seen.inode.nlink == 0 {
                continue;
            }
            let mut way = Vec::new();
            let mut at = *ino;
            // A way longer than there are inodes is a circle.
            while !reached.contains(&at) && way.len() <= inodes.len() {
                way.push(at);
                match inodes.get(&at) {
                    Some(seen) if seen.inode.is_dir() && seen.inode.nlink > 0 => at = seen.inode.parent.0,
                    _ => break,
                }
            }
            if reached.contains(&at) {
                reached.extend(way);
            } else {
                self.problem(&keys::inode(self.id, Ino(*ino)), Fault::Unreachable);
            }
        }
    }
}
