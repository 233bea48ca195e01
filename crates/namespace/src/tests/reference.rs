//! A filesystem in a map of byte vectors: what the rows must look like from outside.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use types::{Errno, Nanos};

use crate::{Cred, FallocateMode, FileKind, RenameMode, XattrMode};

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub kind: FileKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub nlink: u32,
    pub data: Vec<u8>,
    pub names: BTreeMap<Vec<u8>, u64>,
    pub parent: u64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub atime: Nanos,
    pub mtime: Nanos,
    pub ctime: Nanos,
}

#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub nodes: BTreeMap<u64, Node>,
    pub now: Nanos,
}

type Done = Result<(), Errno>;

impl Reference {
    pub fn node(kind: FileKind, mode: u32, cred: Cred, now: Nanos) -> Node {
        Node {
            kind,
            mode,
            uid: cred.uid,
            gid: cred.gid,
            rdev: 0,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            data: Vec::new(),
            names: BTreeMap::new(),
            parent: 0,
            xattrs: BTreeMap::new(),
            atime: now,
            mtime: now,
            ctime: now,
        }
    }

    pub fn get(&self, ino: u64) -> &Node {
        &self.nodes[&ino]
    }

    pub fn at(&mut self, ino: u64) -> &mut Node {
        self.nodes.get_mut(&ino).unwrap()
    }

    fn is_dir(&self, ino: u64) -> bool {
        self.get(ino).kind == FileKind::Directory
    }

    fn changed(&mut self, ino: u64) {
        let now = self.now;
        self.at(ino).ctime = now;
    }

    pub fn modified(&mut self, ino: u64) {
        let now = self.now;
        self.at(ino).mtime = now;
        self.changed(ino);
    }

    pub fn open_dir(&self, dir: u64) -> Done {
        if !self.is_dir(dir) {
            return Err(Errno::ENOTDIR);
        }
        if self.get(dir).nlink == 0 { Err(Errno::ENOENT) } else { Ok(()) }
    }

    pub fn can_create(&self, dir: u64, name: &[u8]) -> Done {
        self.open_dir(dir)?;
        if self.get(dir).names.contains_key(name) { Err(Errno::EEXIST) } else { Ok(()) }
    }

    /// A node at a new name.
    pub fn create(&mut self, dir: u64, name: &[u8], ino: u64, mut node: Node) {
        if self.get(dir).mode & 0o2000 != 0 {
            node.gid = self.get(dir).gid;
            if node.kind == FileKind::Directory {
                node.mode |= 0o2000;
            }
        }
        if node.kind == FileKind::Directory {
            node.parent = dir;
            self.at(dir).nlink += 1;
        }
        self.nodes.insert(ino, node);
        self.at(dir).names.insert(name.to_vec(), ino);
        self.modified(dir);
    }

    pub fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> Done {
        if self.is_dir(ino) {
            return Err(Errno::EPERM);
        }
        if self.get(ino).nlink == 0 {
            return Err(Errno::ENOENT);
        }
        self.can_create(dir, name)?;
        self.at(ino).nlink += 1;
        self.at(dir).names.insert(name.to_vec(), ino);
        self.changed(ino);
        self.modified(dir);
        Ok(())
    }

    fn sticky(&self, dir: u64, ino: u64, cred: Cred) -> Done {
        let sticky = self.get(dir).mode & 0o1000 != 0;
        if sticky && ![0, self.get(dir).uid, self.get(ino).uid].contains(&cred.uid) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// The inode loses a name; without any it stays only if it is pinned.
    fn lose(&mut self, ino: u64, pinned: bool) {
        self.changed(ino);
        let node = self.at(ino);
        node.nlink = if node.kind == FileKind::Directory { 0 } else { node.nlink - 1 };
        if node.nlink == 0 && !pinned {
            self.nodes.remove(&ino);
        }
    }

    pub fn remove(&mut self, dir: u64, name: &[u8], is_rmdir: bool, pinned: bool, cred: Cred) -> Done {
        self.open_dir(dir)?;
        let ino = *self.get(dir).names.get(name).ok_or(Errno::ENOENT)?;
        self.sticky(dir, ino, cred)?;
        match (is_rmdir, self.is_dir(ino)) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if !self.get(ino).names.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.at(dir).names.remove(name);
        self.modified(dir);
        if is_rmdir {
            self.at(dir).nlink -= 1;
        }
        self.lose(ino, pinned);
        Ok(())
    }

    fn is_inside(&self, dir: u64, of: u64) -> bool {
        let mut at = dir;
        while at != of && at != 1 {
            at = self.get(at).parent;
        }
        at == of
    }

    /// `whiteout` is the number of the node that takes the old name, if one does.
    #[allow(clippy::too_many_arguments)]
    pub fn rename(
        &mut self,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        mode: RenameMode,
        pinned: bool,
        cred: Cred,
        whiteout: u64,
    ) -> Result<bool, Errno> {
        self.open_dir(from.0)?;
        self.open_dir(to.0)?;
        let ino = *self.get(from.0).names.get(from.1).ok_or(Errno::ENOENT)?;
        let there = self.get(to.0).names.get(to.1).copied();
        if there.is_some() && matches!(mode, RenameMode::NoReplace | RenameMode::NoReplaceWhiteout) {
            return Err(Errno::EEXIST);
        }
        if there == Some(ino) {
            return Ok(false);
        }
        self.sticky(from.0, ino, cred)?;
        if let Some(there) = there {
            self.sticky(to.0, there, cred)?;
            if mode == RenameMode::Exchange && self.is_dir(there) && self.is_inside(from.0, there) {
                return Err(Errno::EINVAL);
            }
        }
        if self.is_dir(ino) && self.is_inside(to.0, ino) {
            return Err(Errno::EINVAL);
        }
        if mode == RenameMode::Exchange {
            let there = there.ok_or(Errno::ENOENT)?;
            self.put(from, there, ino);
            self.put(to, ino, there);
            self.changed(there);
        } else {
            if let Some(there) = there {
                match (self.is_dir(ino), self.is_dir(there)) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (true, true) if !self.get(there).names.is_empty() => return Err(Errno::ENOTEMPTY),
                    _ => {}
                }
                if self.is_dir(there) {
                    self.at(to.0).nlink -= 1;
                }
                self.lose(there, pinned);
            }
            self.at(from.0).names.remove(from.1);
            if self.is_dir(ino) {
                self.at(from.0).nlink -= 1;
                self.at(to.0).nlink += 1;
                self.at(ino).parent = to.0;
            }
            self.at(to.0).names.insert(to.1.to_vec(), ino);
            if matches!(mode, RenameMode::Whiteout | RenameMode::NoReplaceWhiteout) {
                let node = Reference::node(FileKind::CharDevice, 0, cred, self.now);
                self.nodes.insert(whiteout, node);
                self.at(from.0).names.insert(from.1.to_vec(), whiteout);
            }
        }
        self.changed(ino);
        self.modified(from.0);
        self.modified(to.0);
        Ok(true)
    }

    /// One half of an exchange: `ino` takes the place of `other`.
    fn put(&mut self, place: (u64, &[u8]), ino: u64, other: u64) {
        self.at(place.0).names.insert(place.1.to_vec(), ino);
        self.at(place.0).nlink += u32::from(self.is_dir(ino));
        self.at(place.0).nlink -= u32::from(self.is_dir(other));
        if self.is_dir(ino) {
            self.at(ino).parent = place.0;
        }
    }

    pub fn truncate(&mut self, ino: u64, size: usize) -> Done {
        match self.get(ino).kind {
            FileKind::File => {}
            FileKind::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        self.at(ino).data.resize(size, 0);
        self.modified(ino);
        Ok(())
    }

    pub fn kill_priv(&mut self, ino: u64) {
        let node = self.at(ino);
        if node.kind == FileKind::Directory {
            return;
        }
        let mut kept = node.mode & !0o4000;
        if kept & 0o010 != 0 {
            kept &= !0o2000;
        }
        let had = node.xattrs.remove(b"security.capability".as_slice()).is_some();
        if kept != node.mode || had {
            node.mode = kept;
            self.changed(ino);
        }
    }

    pub fn fallocate(&mut self, ino: u64, mode: FallocateMode, from: usize, len: usize) -> Done {
        match self.get(ino).kind {
            FileKind::File => {}
            FileKind::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::ENODEV),
        }
        let data = &mut self.at(ino).data;
        let end = from + len;
        if !matches!(mode, FallocateMode::Allocate | FallocateMode::AllocateKeepSize) {
            let size = data.len();
            data[from.min(size)..end.min(size)].fill(0);
        }
        if matches!(mode, FallocateMode::Allocate | FallocateMode::Zero) && end > data.len() {
            data.resize(end, 0);
        }
        self.modified(ino);
        Ok(())
    }

    pub fn set_xattr(&mut self, ino: u64, name: &[u8], value: &[u8], mode: XattrMode) -> Done {
        match (mode, self.get(ino).xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Errno::EEXIST),
            (XattrMode::Replace, false) => return Err(Errno::ENODATA),
            _ => {}
        }
        self.at(ino).xattrs.insert(name.to_vec(), value.to_vec());
        self.changed(ino);
        Ok(())
    }
}
