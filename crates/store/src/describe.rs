//! Looking at a disk without opening it, for `dump`. Nothing is written.

mod used;

use std::sync::Arc;

use device::{BlockDev, IoBuf, IoClass, IoError};
use journal::{Lsn, Recovery, Start};
use types::{BLOCK, ByteOffset};

use crate::checkpoint::{self, CheckpointRecord};
use crate::disk::{journal_error, shape_of};
use crate::error::OpenError;
use crate::header::{Header, HeaderError};
use crate::record::{Record, RecordError};
use crate::roots::{self, Copy};
use crate::superblock::Superblock;

pub use used::{Used, UsedKind, used};

/// The copies of the superblock, and the one that counts.
pub async fn superblocks(dev: &dyn BlockDev) -> (Vec<Copy>, Result<Superblock, OpenError>) {
    let copies = roots::read_copies(dev).await;
    let picked = roots::pick(&copies, dev.geometry().bytes);
    (copies, picked)
}

/// A record of the journal and the batch it came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalRecord {
    /// The lsn of its batch.
    pub lsn: u64,
    /// Whether all of the batch was known to be durable.
    pub durable: bool,
    /// What it says.
    pub record: Result<Record, RecordError>,
}

/// Calls `each` with every record that an open of the disk would replay, oldest first.
pub async fn journal(
    dev: Arc<dyn BlockDev>,
    superblock: &Superblock,
    mut each: impl FnMut(JournalRecord) + Send,
) -> Result<(), OpenError> {
    let shape = shape_of(&superblock.layout, superblock.disk, superblock.segment_bytes);
    let from = Lsn(superblock.checkpoint.journal_from);
    let start = Start::At { start: from, flushed: Lsn(superblock.journal_flushed) };
    let mut recovery = Recovery::read(dev, shape, start).await.map_err(journal_error)?;
    let mark = recovery.flushed();
    while let Some(batch) = recovery.next().await.map_err(journal_error)? {
        for record in batch.records() {
            let decoded = Record::decode(record.kind, record.body);
            each(JournalRecord { lsn: batch.lsn.0, durable: batch.end <= mark, record: decoded });
        }
    }
    Ok(())
}

/// Calls `each` with every record of the checkpoint that counts.
pub async fn checkpoint(
    dev: &dyn BlockDev,
    superblock: &Superblock,
    each: impl FnMut(CheckpointRecord) + Send,
) -> Result<(), OpenError> {
    let named = &superblock.checkpoint;
    if named.len == 0 {
        return Ok(());
    }
    let area = superblock.layout.checkpoints[named.slot as usize];
    Ok(checkpoint::read(dev, superblock.disk, area, named, each).await?)
}

/// The header at a block of the disk, without a comparison with the index.
pub async fn header_at(dev: &dyn BlockDev, block: u64) -> Result<Result<Header, HeaderError>, IoError> {
    let at = block.checked_mul(BLOCK).ok_or(IoError::Misfit { at: u64::MAX, len: BLOCK })?;
    let read = dev.read(ByteOffset(at), IoBuf::zeroed(BLOCK as usize), IoClass::Background).await?;
    Ok(Header::decode(&read))
}
