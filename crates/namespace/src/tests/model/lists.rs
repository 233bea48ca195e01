//! Extended attributes, and access control lists among them.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use types::{Errno, Ino};

use super::super::{ROOT, done};
use super::{Pair, Reference, pick};
use crate::tests::reference::Node;
use crate::{Command, FileKind, XattrMode};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The permissions of each kind of entry; `None` where the list has no such entry.
#[derive(Clone, Copy)]
struct List {
    owner: u16,
    user: Option<u16>,
    group: u16,
    named_group: Option<u16>,
    mask: Option<u16>,
    other: u16,
}

impl List {
    fn some(seed: u64) -> List {
        let bits = |at: u64| (seed >> at & 7) as u16;
        let user = (seed & 1 << 20 != 0).then(|| bits(3));
        let named_group = (seed & 1 << 21 != 0).then(|| bits(6));
        let masked = user.is_some() || named_group.is_some() || seed & 1 << 22 != 0;
        List {
            owner: bits(0),
            user,
            group: bits(9),
            named_group,
            mask: masked.then(|| bits(12)),
            other: bits(15),
        }
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        let mut entry = |tag: u16, bits: Option<u16>, id: u32| {
            let Some(bits) = bits else { return };
            bytes.extend(tag.to_le_bytes());
            bytes.extend(bits.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        };
        entry(1, Some(self.owner), u32::MAX);
        entry(2, self.user, 1000);
        entry(4, Some(self.group), u32::MAX);
        entry(8, self.named_group, 100);
        entry(16, self.mask, u32::MAX);
        entry(32, Some(self.other), u32::MAX);
        bytes
    }

    fn of(bytes: &[u8]) -> List {
        let find =
            |tag: u8| bytes[4..].chunks(8).find(|entry| entry[0] == tag).map(|entry| u16::from(entry[2]));
        List {
            owner: find(1).unwrap(),
            user: find(2),
            group: find(4).unwrap(),
            named_group: find(8),
            mask: find(16),
            other: find(32).unwrap(),
        }
    }

    fn mode(self) -> u32 {
        u32::from(self.owner) << 6 | u32::from(self.mask.unwrap_or(self.group)) << 3 | u32::from(self.other)
    }

    fn with_mode(self, mode: u32) -> List {
        let class = (mode >> 3 & 7) as u16;
        List {
            owner: (mode >> 6 & 7) as u16,
            group: if self.mask.is_some() { self.group } else { class },
            mask: self.mask.map(|_| class),
            other: (mode & 7) as u16,
            ..self
        }
    }

    fn is_more_than_a_mode(self) -> bool {
        self.mask.is_some()
    }
}

/// What a node that was asked for with `node.mode` gets of its directory.
pub(super) fn inherit(parent: &BTreeMap<Vec<u8>, Vec<u8>>, node: &mut Node, umask: u32) {
    if node.kind == FileKind::Symlink {
        node.mode = 0o777;
        return;
    }
    let Some(default) = parent.get(DEFAULT) else {
        node.mode &= !umask;
        return;
    };
    let list = List::of(default);
    let mode = node.mode & list.mode();
    node.mode = node.mode & 0o7000 | mode;
    if list.is_more_than_a_mode() {
        node.xattrs.insert(ACCESS.to_vec(), list.with_mode(mode).bytes());
    }
    if node.kind == FileKind::Directory {
        node.xattrs.insert(DEFAULT.to_vec(), default.clone());
    }
}

/// The access list says what the mode says.
pub(super) fn follow_mode(node: &mut Node) {
    let mode = node.mode;
    if let Some(list) = node.xattrs.get_mut(ACCESS) {
        *list = List::of(list).with_mode(mode).bytes();
    }
}

impl Reference {
    fn set_list(&mut self, ino: u64, name: &[u8], list: Option<List>, mode: XattrMode) -> Result<(), Errno> {
        let had = self.get(ino).xattrs.contains_key(name);
        match mode {
            XattrMode::Create if had => return Err(Errno::EEXIST),
            XattrMode::Replace if !had => return Err(Errno::ENODATA),
            _ => {}
        }
        match self.get(ino).kind {
            FileKind::Symlink => return Err(Errno::EOPNOTSUPP),
            FileKind::Directory => {}
            _ if name == DEFAULT && list.is_some() => return Err(Errno::EACCES),
            _ => {}
        }
        let now = self.now;
        let node = self.at(ino);
        if had || list.is_some() {
            node.ctime = now;
        }
        node.xattrs.remove(name);
        let Some(list) = list else { return Ok(()) };
        if name == ACCESS {
            node.mode = node.mode & 0o7000 | list.mode();
        }
        if name == DEFAULT || list.is_more_than_a_mode() {
            node.xattrs.insert(name.to_vec(), list.bytes());
        }
        Ok(())
    }
}

impl Pair {
    pub(super) fn xattr(&mut self, a: u64, b: u64, c: u64) {
        let ino = self.any(a);
        let name =
            pick(&[b"user.a".as_slice(), b"user.b", b"security.capability", ACCESS, DEFAULT], b).to_vec();
        if c.is_multiple_of(4) {
            let command = Command::RemoveXattr { ino: Ino(ino), name: name.clone(), cred: ROOT };
            let got = done(self.run(command));
            let had = self.model.at(ino).xattrs.remove(&name).is_some();
            assert_eq!(got, if had { Ok(()) } else { Err(Errno::ENODATA) });
            if had {
                let now = self.model.now;
                self.model.at(ino).ctime = now;
            }
            return;
        }
        let mode = pick(&[XattrMode::Set, XattrMode::Create, XattrMode::Replace], c);
        let is_list = name == ACCESS || name == DEFAULT;
        let list = (!c.is_multiple_of(5)).then(|| List::some(b / 8));
        let value = match list {
            _ if !is_list => vec![c as u8; (c % 300) as usize],
            Some(list) => list.bytes(),
            None => vec![2, 0, 0, 0],
        };
        let set =
            Command::SetXattr { ino: Ino(ino), name: name.clone(), value: value.clone(), mode, cred: ROOT };
        let got = done(self.run(set));
        let want = match is_list {
            true => self.model.set_list(ino, &name, list, mode),
            false => self.model.set_xattr(ino, &name, &value, mode),
        };
        assert_eq!(got, want);
    }
}
