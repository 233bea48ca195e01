//! Which bytes of a disk say something, and what.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::{BlockDev, IoBuf, IoClass};
use journal::{Lsn, Recovery, Start};
use types::{BLOCK, ByteOffset, FragmentId};

use crate::checkpoint::CheckpointRecord;
use crate::disk::{journal_error, shape_of};
use crate::error::OpenError;
use crate::header::{INLINE_AT, INLINE_MAX};
use crate::index::Entry;
use crate::record::Record;
use crate::superblock::Superblock;

/// What a range of used bytes belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum UsedKind {
    /// A copy of the superblock.
    Superblock,
    /// A batch of the journal that a start replays.
    Journal,
    /// A chunk of the checkpoint that counts.
    Checkpoint,
    /// The header of a fragment.
    FragmentHeader,
    /// The bytes of a fragment.
    FragmentData,
}

/// A range of bytes that some start or read needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Used {
    /// Where it begins on the disk, in bytes.
    pub at: u64,
    /// How many bytes it has; at least one.
    pub len: u64,
    /// What it is.
    pub kind: UsedKind,
    /// Which fragment it is a part of.
    pub fragment: Option<FragmentId>,
    /// Whether it is known to have been durable. A fragment that is not, and not whole, is taken back by the next open.
    pub durable: bool,
}

/// Every used byte of a disk, grouped by kind; padding and what is of older uses are left out. Fragments that no file
/// needs any more are among them until they are deleted.
///
/// # Errors
/// As an open of the disk, if checkpoint or journal cannot be read.
pub async fn used(dev: Arc<dyn BlockDev>, superblock: &Superblock) -> Result<Vec<Used>, OpenError> {
    let (copies, _) = super::superblocks(&*dev).await;
    let plain = |at, len, kind| Used { at, len, kind, fragment: None, durable: true };
    let mut used: Vec<Used> = copies
        .iter()
        .filter(|copy| copy.found.is_ok())
        .map(|copy| plain(copy.at, BLOCK, UsedKind::Superblock))
        .collect();
    let mut index = BTreeMap::new();
    super::checkpoint(&*dev, superblock, |record| {
        if let CheckpointRecord::Shard(part) = record {
            index.extend(part.entries.into_iter().map(|(id, entry)| (id, (entry, true))));
        }
    })
    .await?;
    let named = &superblock.checkpoint;
    let area = superblock.layout.checkpoints[named.slot as usize];
    let mut at = 0;
    while at < named.len {
        let head = dev.read(ByteOffset(area.at + at), IoBuf::zeroed(BLOCK as usize), IoClass::Background);
        let len = u64::from(crate::checkpoint::chunk_len(&head.await?));
        used.push(plain(area.at + at, len, UsedKind::Checkpoint));
        at += len.next_multiple_of(BLOCK).max(BLOCK);
    }
    let batches = journal(dev, superblock, &mut index).await?;
    used.extend(batches.into_iter().map(|(at, len)| plain(at, len, UsedKind::Journal)));
    for (id, (entry, durable)) in index {
        let at = entry.block * BLOCK;
        let len = u64::from(entry.stored_len);
        let data = if entry.stored_len <= INLINE_MAX { at + INLINE_AT as u64 } else { at + BLOCK };
        let kind = UsedKind::FragmentHeader;
        let header = Used { at, len: INLINE_AT as u64, kind, fragment: Some(id), durable };
        used.extend([header, Used { at: data, len, kind: UsedKind::FragmentData, ..header }]);
    }
    Ok(used)
}

/// Replays the journal into `index`; where its batches lie and how long they are.
async fn journal(
    dev: Arc<dyn BlockDev>,
    superblock: &Superblock,
    index: &mut BTreeMap<FragmentId, (Entry, bool)>,
) -> Result<Vec<(u64, u64)>, OpenError> {
    let shape = shape_of(&superblock.layout, superblock.disk, superblock.segment_bytes);
    let from = Lsn(superblock.checkpoint.journal_from);
    let start = Start::At { start: from, flushed: Lsn(superblock.journal_flushed) };
    let mut recovery = Recovery::read(dev, shape, start).await.map_err(journal_error)?;
    let mark = recovery.flushed();
    let mut batches = Vec::new();
    while let Some(batch) = recovery.next().await.map_err(journal_error)? {
        batches.push((shape.offset_of(batch.lsn).0, batch.used()));
        for record in batch.records() {
            match Record::decode(record.kind, record.body) {
                Ok(Record::Put { id, entry }) => {
                    index.insert(id, (entry, batch.end <= mark));
                }
                Ok(Record::Delete { id }) => {
                    index.remove(&id);
                }
                // Others name no place; what cannot be read is for the open to refuse.
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok(batches)
}
