//! Nodes and the list of volumes.

use types::{Dseq, Epoch, Errno, Grant, GroupId, Ino, Nanos, SessionId, VolumeId};

use crate::command::{Cred, Reply};
use crate::keys;
use crate::overlay::Overlay;
use crate::query::FileKind;
use crate::row;
use crate::row::cluster::{Counters, Node, VolumeName};
use crate::row::inode::Inode;
use crate::row::project::{NONE, UNLIMITED};
use crate::row::session::Session;
use crate::row::volume::{HASH_BITS, Volume};
use crate::rows::RowsError;
use crate::sessions;
use crate::tx::Outcome;
use alloc::vec::Vec;

/// Longest name of a volume: one DNS label, as Kubernetes names things.
const VOLUME_NAME_MAX: usize = 63;

/// A node starts; `ESTALE` if a later start of it is registered.
pub(crate) fn register_node(over: &mut Overlay<'_>, node: u64, incarnation: u64) -> Outcome<Reply> {
    let key = keys::node(node);
    if let Some(known) = row::get::<Node>(over, &key)? {
        if incarnation < known.incarnation {
            return Err(Errno::ESTALE.into());
        }
        if incarnation == known.incarnation {
            return Ok(Reply::Done);
        }
    }
    over.put(key, row::value(&Node { incarnation }));
    for volume in volumes(over)? {
        let prefix = keys::prefix(volume, keys::kind::SESSION);
        let mut spent = Vec::new();
        row::scan(over, &prefix, &keys::after(&prefix), false, &mut |key, session: Session| {
            if session.node == node && session.incarnation < incarnation {
                spent.push(SessionId(keys::last_u64(key)));
            }
            true
        })?;
        for session in spent {
            sessions::end(over, volume, session);
        }
    }
    Ok(Reply::Done)
}

/// All volumes, by name.
pub(crate) fn volumes(over: &Overlay<'_>) -> Result<Vec<VolumeId>, RowsError> {
    let prefix = keys::prefix(keys::CLUSTER, keys::kind::NAME);
    let mut volumes = Vec::new();
    row::scan(over, &prefix, &keys::after(&prefix), false, &mut |_, row: VolumeName| {
        volumes.push(row.volume);
        true
    })?;
    Ok(volumes)
}

pub(crate) fn counters(over: &Overlay<'_>) -> Result<Counters, RowsError> {
    let first = Counters { volume: VolumeId(1), group: GroupId(1) };
    Ok(row::get(over, &keys::counters())?.unwrap_or(first))
}

/// A volume and its root directory.
pub(crate) fn create_volume(
    over: &mut Overlay<'_>,
    now: Nanos,
    name: &[u8],
    limit: u64,
    hash_key: [u8; 16],
    mode: u32,
    cred: Cred,
) -> Outcome<Reply> {
    let good = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-';
    if name.is_empty() || name.len() > VOLUME_NAME_MAX || !name.iter().all(good) {
        return Err(Errno::EINVAL.into());
    }
    if let Some(known) = row::get::<VolumeName>(over, &keys::volume_name(name))? {
        return Ok(Reply::Volume(known.volume));
    }
    let mut counters = counters(over)?;
    let id = counters.volume;
    counters.volume = VolumeId(id.0.checked_add(1).ok_or(Errno::ENOSPC)?);
    let root = Inode {
        mode: mode & 0o7777,
        uid: cred.uid,
        gid: cred.gid,
        nlink: 2,
        parent: Ino::ROOT,
        ..Inode::new(FileKind::Directory, now)
    };
    let volume = Volume {
        name: name.to_vec(),
        limit,
        used: 0,
        inodes: 1,
        next_ino: Ino(Ino::ROOT.0 + 1),
        next_grant: Grant(1),
        next_session: SessionId(1),
        next_epoch: Epoch(1),
        hash_key,
        hash_bits: HASH_BITS,
        quota_bytes: UNLIMITED,
        quota_inodes: UNLIMITED,
        counting: NONE,
    };
    over.put(keys::counters(), row::value(&counters));
    over.put(keys::volume_name(name), row::value(&VolumeName { volume: id }));
    over.put(keys::volume(id), row::value(&volume));
    over.put(keys::inode(id, Ino::ROOT), row::value(&root));
    Ok(Reply::Volume(id))
}

/// What a directory's size is said to be: its names have no bytes of their own.
pub(crate) const DIR_SIZE: u64 = types::BLOCK;

impl Inode {
    /// An inode without name, owner and data.
    pub(crate) fn new(kind: FileKind, now: Nanos) -> Inode {
        Inode {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            nlink: 1,
            size: if kind == FileKind::Directory { DIR_SIZE } else { 0 },
            allocated: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            change: 1,
            parent: Ino(0),
            cookie: 0,
            grant: Grant(0),
            applied: Dseq(0),
            flags: 0,
            map_gen: 0,
            xattr_bytes: 0,
            project: NONE,
        }
    }
}
