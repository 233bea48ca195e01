//! Keys of rows: `table u8 | volume u32 | kind u8 | …`, big-endian, so that byte order is the order of a scan.

use alloc::vec::Vec;
use types::{ExtentId, GroupId, Ino, SessionId, VolumeId};

/// The first byte of every key that belongs to the Raft adapter: the applied index, membership. Nothing here reads
/// or writes below it.
pub const RAFT_TABLE: u8 = 0;

/// The first byte of every key of this crate.
pub const NAMESPACE_TABLE: u8 = 1;

/// The cluster's own rows are those of volume 0.
pub(crate) const CLUSTER: VolumeId = VolumeId(0);

/// The third part of a key.
pub(crate) mod kind {
    pub(crate) const CLOCK: u8 = b't';
    pub(crate) const COUNTERS: u8 = b'c';
    pub(crate) const NODE: u8 = b'n';
    pub(crate) const GROUP: u8 = b'g';
    pub(crate) const DISK: u8 = b'd';
    pub(crate) const NAME: u8 = b'v';
    pub(crate) const RESTORED: u8 = b'r';

    pub(crate) const VOLUME: u8 = b'V';
    pub(crate) const INODE: u8 = b'I';
    pub(crate) const DENTRY: u8 = b'D';
    pub(crate) const PARENT: u8 = b'P';
    pub(crate) const INLINE: u8 = b'N';
    pub(crate) const MAP: u8 = b'M';
    pub(crate) const EXTENT: u8 = b'E';
    pub(crate) const XATTR: u8 = b'X';
    pub(crate) const SYMLINK: u8 = b'Y';
    pub(crate) const SESSION: u8 = b'S';
    pub(crate) const SLOT: u8 = b'T';
    pub(crate) const WRITER: u8 = b'W';
    pub(crate) const PINNED: u8 = b'O';
    pub(crate) const RECLAIM: u8 = b'G';
    pub(crate) const PROJECT: u8 = b'U';
}

/// What a reclaim row is about; the first byte of its key behind the kind.
pub(crate) mod class {
    pub(crate) const INODE: u8 = 1;
    pub(crate) const TAIL: u8 = 2;
    pub(crate) const SESSION: u8 = 3;
    /// Behind those that `Reclaim` goes through, so that they are one range.
    pub(crate) const DEAD_EXTENT: u8 = 4;
    pub(crate) const UNVISITED: u8 = 6;
}

/// The bytes before a row's own key.
pub(crate) const PREFIX: usize = 6;

/// `table | volume | kind`.
pub(crate) fn prefix(volume: VolumeId, kind: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    key.push(NAMESPACE_TABLE);
    key.extend_from_slice(&volume.0.to_be_bytes());
    key.push(kind);
    key
}

fn with(volume: VolumeId, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = prefix(volume, kind);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// The first key behind all that start with `prefix`.
pub(crate) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < u8::MAX {
            key.push(last + 1);
            break;
        }
    }
    key
}

pub(crate) fn clock() -> Vec<u8> {
    prefix(CLUSTER, kind::CLOCK)
}

pub(crate) fn counters() -> Vec<u8> {
    prefix(CLUSTER, kind::COUNTERS)
}

pub(crate) fn restored() -> Vec<u8> {
    prefix(CLUSTER, kind::RESTORED)
}

pub(crate) fn node(node: u64) -> Vec<u8> {
    with(CLUSTER, kind::NODE, &[&node.to_be_bytes()])
}

pub(crate) fn group(group: GroupId) -> Vec<u8> {
    with(CLUSTER, kind::GROUP, &[&group.0.to_be_bytes()])
}

pub(crate) fn disk(disk: &[u8; 16]) -> Vec<u8> {
    with(CLUSTER, kind::DISK, &[disk])
}

pub(crate) fn volume_name(name: &[u8]) -> Vec<u8> {
    with(CLUSTER, kind::NAME, &[name])
}

pub(crate) fn volume(volume: VolumeId) -> Vec<u8> {
    prefix(volume, kind::VOLUME)
}

/// A row, or all rows of a kind, of one inode.
pub(crate) fn of_inode(volume: VolumeId, kind: u8, ino: Ino) -> Vec<u8> {
    with(volume, kind, &[&ino.0.to_be_bytes()])
}

pub(crate) fn inode(volume: VolumeId, ino: Ino) -> Vec<u8> {
    of_inode(volume, kind::INODE, ino)
}

pub(crate) fn dentry(volume: VolumeId, dir: Ino, cookie: u64) -> Vec<u8> {
    with(volume, kind::DENTRY, &[&dir.0.to_be_bytes(), &cookie.to_be_bytes()])
}

pub(crate) fn parent(volume: VolumeId, ino: Ino, dir: Ino, cookie: u64) -> Vec<u8> {
    with(volume, kind::PARENT, &[&ino.0.to_be_bytes(), &dir.0.to_be_bytes(), &cookie.to_be_bytes()])
}

pub(crate) fn map(volume: VolumeId, ino: Ino, start: u64) -> Vec<u8> {
    with(volume, kind::MAP, &[&ino.0.to_be_bytes(), &start.to_be_bytes()])
}

pub(crate) fn extent(id: ExtentId) -> Vec<u8> {
    with(id.volume, kind::EXTENT, &[&id.to_bytes()])
}

pub(crate) fn xattr(volume: VolumeId, ino: Ino, name: &[u8]) -> Vec<u8> {
    with(volume, kind::XATTR, &[&ino.0.to_be_bytes(), name])
}

pub(crate) fn session(volume: VolumeId, session: SessionId) -> Vec<u8> {
    with(volume, kind::SESSION, &[&session.0.to_be_bytes()])
}

/// All slots of a session.
pub(crate) fn slots(volume: VolumeId, session: SessionId) -> Vec<u8> {
    with(volume, kind::SLOT, &[&session.0.to_be_bytes()])
}

pub(crate) fn slot(volume: VolumeId, session: SessionId, slot: u8) -> Vec<u8> {
    with(volume, kind::SLOT, &[&session.0.to_be_bytes(), &[slot]])
}

/// Reclaim of an inode, a tail or a session, by its number.
pub(crate) fn reclaim(volume: VolumeId, class: u8, id: u64) -> Vec<u8> {
    with(volume, kind::RECLAIM, &[&[class], &id.to_be_bytes()])
}

/// All reclaim rows of a class.
pub(crate) fn reclaim_class(volume: VolumeId, class: u8) -> Vec<u8> {
    with(volume, kind::RECLAIM, &[&[class]])
}

pub(crate) fn dead_extent(id: ExtentId) -> Vec<u8> {
    with(id.volume, kind::RECLAIM, &[&[class::DEAD_EXTENT], &id.to_bytes()])
}

/// A key taken apart.
pub(crate) struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// Volume, kind, and the rest; `None` if the key is not of this crate's table.
    pub(crate) fn open(key: &'a [u8]) -> Option<(VolumeId, u8, KeyReader<'a>)> {
        if key.len() < PREFIX || key[0] != NAMESPACE_TABLE {
            return None;
        }
        let volume = u32::from_be_bytes([key[1], key[2], key[3], key[4]]);
        Some((VolumeId(volume), key[5], KeyReader(&key[PREFIX..])))
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*head))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*head))
    }

    pub(crate) fn extent(&mut self) -> Option<ExtentId> {
        let (head, rest) = self.0.split_first_chunk::<16>()?;
        self.0 = rest;
        Some(ExtentId::from_bytes(head))
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    pub(crate) fn at_end(&self) -> bool {
        self.0.is_empty()
    }
}

/// The group whose row has this key.
pub(crate) fn group_of(key: &[u8]) -> GroupId {
    GroupId(key.last_chunk::<4>().map_or(0, |id| u32::from_be_bytes(*id)))
}

/// The inode of a map row's key.
pub(crate) fn map_ino(key: &[u8]) -> Ino {
    let ino = key.get(PREFIX..).and_then(|rest| rest.first_chunk::<8>());
    Ino(ino.map_or(0, |bytes| u64::from_be_bytes(*bytes)))
}

/// The number in the last eight bytes of a key: a cookie, a map row's start, an inode.
pub(crate) fn last_u64(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
