//! `V`: a volume.

use alloc::vec::Vec;
use types::{Epoch, Grant, Ino, SessionId, VolumeId};

use crate::query::VolumeInfo;
use crate::wire::wire_struct;

/// Bits of a name's hash that make its cookie, with the `u8` that tells equal hashes apart.
pub(crate) const HASH_BITS: u8 = 55;

/// The body of the row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Volume {
    pub(crate) name: Vec<u8>,
    /// Most bytes of file data that the disks are meant for.
    pub(crate) limit: u64,
    /// The sum of all inodes' `allocated`.
    pub(crate) used: u64,
    /// Inode rows.
    pub(crate) inodes: u64,
    pub(crate) next_ino: Ino,
    pub(crate) next_grant: Grant,
    pub(crate) next_session: SessionId,
    pub(crate) next_epoch: Epoch,
    /// Key of the name hashes.
    pub(crate) hash_key: [u8; 16],
    /// [`HASH_BITS`]; a row field so that tests can make hashes meet.
    pub(crate) hash_bits: u8,
    /// Most bytes of file data, and most inodes, as somebody has set them.
    pub(crate) quota_bytes: u64,
    pub(crate) quota_inodes: u64,
    /// The directory whose quota is being set or removed, or 0.
    pub(crate) counting: Ino,
}
wire_struct!(Volume {
    name,
    limit,
    used,
    inodes,
    next_ino,
    next_grant,
    next_session,
    next_epoch,
    hash_key,
    hash_bits,
    quota_bytes,
    quota_inodes,
    counting
});

impl Volume {
    pub(crate) fn info(self, id: VolumeId) -> VolumeInfo {
        VolumeInfo {
            id,
            limit: self.most_bytes(),
            limit_inodes: self.quota_inodes,
            used: self.used,
            inodes: self.inodes,
            counting: self.counting,
            name: self.name,
        }
    }

    /// The most bytes of file data.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.limit.min(self.quota_bytes)
    }
}
