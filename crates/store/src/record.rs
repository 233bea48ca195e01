//! What the journal says: the bodies of its records.

use types::{BLOCK, Epoch, FragmentId, GroupId};

use crate::bytes::{array_at, put, u32_at, u64_at};
use crate::index::{Entry, Run};

/// A change of a disk's index, as the journal holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// A fragment was written; of several puts of one id the last one counts.
    Put {
        /// Its name.
        id: FragmentId,
        /// Where it is, and what its header must be.
        entry: Entry,
    },
    /// A fragment was deleted.
    Delete {
        /// Its name.
        id: FragmentId,
    },
    /// A fragment that may still arrive by a fill was deleted.
    Tombstone {
        /// Its name.
        id: FragmentId,
    },
    /// A fill has come so far.
    FillCursor {
        /// The group that is filled.
        group: GroupId,
        /// The epoch in which it is.
        epoch: Epoch,
        /// The last fragment that is there.
        id: FragmentId,
    },
    /// A group's epoch was raised.
    GroupEpoch {
        /// The group.
        group: GroupId,
        /// Puts below it are refused.
        epoch: Epoch,
        /// The state of this disk's slot.
        state: u32,
    },
    /// Blocks are not to be used any more.
    BadBlocks {
        /// Which, of the disk.
        run: Run,
    },
}

/// Why a record cannot be read. Its batch's checksum was right, so a release wrote it that knows more, or has a bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Its type is unknown.
    #[error("journal records of type {0} are unknown to this release")]
    UnknownType(u16),
    /// Its body or its flags are not as its type has them.
    #[error("a journal record of type {0} is malformed")]
    Malformed(u16),
}

impl Record {
    /// The record's type and body.
    pub fn encode(&self) -> (u16, Vec<u8>) {
        let mut body = Vec::with_capacity(56);
        let kind = match self {
            Record::Put { id, entry } => {
                body.extend(id.to_bytes());
                body.extend(entry.block.to_le_bytes());
                for number in [entry.stored_len, entry.header_crc, entry.epoch.0, 0] {
                    body.extend(number.to_le_bytes());
                }
                1
            }
            Record::Delete { id } => {
                body.extend(id.to_bytes());
                2
            }
            Record::Tombstone { id } => {
                body.extend(id.to_bytes());
                3
            }
            Record::FillCursor { group, epoch, id } => {
                body.extend(group.0.to_le_bytes());
                body.extend(epoch.0.to_le_bytes());
                body.extend(id.to_bytes());
                4
            }
            Record::GroupEpoch { group, epoch, state } => {
                for number in [group.0, epoch.0, *state] {
                    body.extend(number.to_le_bytes());
                }
                5
            }
            Record::BadBlocks { run } => {
                body.extend(encode_run(run));
                6
            }
        };
        (kind, body)
    }

    /// Reads what [`Record::encode`] wrote.
    pub fn decode(kind: u16, body: &[u8]) -> Result<Record, RecordError> {
        let malformed = RecordError::Malformed(kind);
        let len = match kind {
            1 => 56,
            2 | 3 => 32,
            4 => 40,
            5 => 12,
            6 => 16,
            _ => return Err(RecordError::UnknownType(kind)),
        };
        if body.len() != len {
            return Err(malformed);
        }
        let id = |at| FragmentId::from_bytes(&array_at(body, at)).ok_or(malformed);
        Ok(match kind {
            1 => {
                let entry = Entry {
                    block: u64_at(body, 32),
                    stored_len: u32_at(body, 40),
                    header_crc: u32_at(body, 44),
                    epoch: Epoch(u32_at(body, 48)),
                    heat: 0,
                };
                if u32_at(body, 52) != 0 || !entry.is_sound() {
                    return Err(malformed);
                }
                Record::Put { id: id(0)?, entry }
            }
            2 => Record::Delete { id: id(0)? },
            3 => Record::Tombstone { id: id(0)? },
            4 => Record::FillCursor {
                group: GroupId(u32_at(body, 0)),
                epoch: Epoch(u32_at(body, 4)),
                id: id(8)?,
            },
            5 => Record::GroupEpoch {
                group: GroupId(u32_at(body, 0)),
                epoch: Epoch(u32_at(body, 4)),
                state: u32_at(body, 8),
            },
            _ => Record::BadBlocks { run: decode_run(body).ok_or(malformed)? },
        })
    }
}

/// A run as bytes of the disk: where it starts, and how long it is.
pub(crate) fn encode_run(run: &Run) -> [u8; 16] {
    let mut bytes = [0; 16];
    put(&mut bytes, 0, &(run.block * BLOCK).to_le_bytes());
    put(&mut bytes, 8, &(u64::from(run.blocks) * BLOCK).to_le_bytes());
    bytes
}

/// Reads what [`encode_run`] wrote; `None` if these are not whole blocks of a disk.
pub(crate) fn decode_run(bytes: &[u8]) -> Option<Run> {
    let (at, len) = (u64_at(bytes, 0), u64_at(bytes, 8));
    let blocks = u32::try_from(len / BLOCK).ok().filter(|blocks| *blocks > 0)?;
    (at % BLOCK == 0 && len % BLOCK == 0).then_some(Run { block: at / BLOCK, blocks })
}

#[cfg(test)]
mod tests;
