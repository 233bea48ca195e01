//! Finding every whole batch that a region holds.

use crate::batch::{Header, padded};
use crate::format::Shape;
use device::{BlockDev, IoBuf, IoClass, IoError};
use std::collections::BTreeSet;
use types::{BLOCK, ByteOffset};

/// The most bytes read at once.
const READ_MAX: u64 = 1 << 20;

/// A read failed: whether the log goes on there is not known, so this is never its end.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) at: ByteOffset,
    pub(crate) source: IoError,
}

/// What a region holds.
#[derive(Default, Debug)]
pub(crate) struct Found {
    /// Whole batches of segments that are wanted.
    pub(crate) batches: Vec<Header>,
    /// The highest sequence number of any whole batch, wanted or not.
    pub(crate) sequence: u64,
}

/// What the first block of a segment says about the whole of it.
enum Opening {
    /// It holds an older sequence number than is wanted.
    Old(u64),
    /// Zeros: nothing was ever written, or the write of the first block was lost.
    Blank,
    /// Anything else: read it.
    Look,
}

/// Finds the whole batches of all segments whose sequence number is at least `wanted`.
pub(crate) async fn scan(dev: &dyn BlockDev, shape: &Shape, wanted: u64) -> Result<Found, Unreadable> {
    let mut found = Found::default();
    let mut blank = BTreeSet::new();
    let mut looked = BTreeSet::new();
    for slot in 0..shape.segments() {
        match opening(dev, shape, slot, wanted).await? {
            Opening::Old(sequence) => found.sequence = found.sequence.max(sequence),
            Opening::Blank => {
                blank.insert(slot);
            }
            Opening::Look => {
                look(dev, shape, slot, wanted, &mut found).await?;
                looked.insert(slot);
            }
        }
    }
    // Where a log's last segment is followed by zeros, batches may lie behind a first one that was lost.
    let mut next: Vec<u64> = looked.iter().copied().chain([shape.slot(wanted.wrapping_sub(1))]).collect();
    while let Some(slot) = next.pop() {
        let after = shape.slot(slot + 1);
        if blank.remove(&after) && look(dev, shape, after, wanted, &mut found).await? {
            next.push(after);
        }
    }
    Ok(found)
}

async fn opening(dev: &dyn BlockDev, shape: &Shape, slot: u64, wanted: u64) -> Result<Opening, Unreadable> {
    let at = shape.slot_at(slot);
    let block = read(dev, at, BLOCK).await?;
    if block.iter().all(|byte| *byte == 0) {
        return Ok(Opening::Blank);
    }
    let Some(header) = Header::read(shape, &block).filter(|header| belongs(shape, header, slot, 0)) else {
        return Ok(Opening::Look);
    };
    let sequence = shape.sequence(header.lsn);
    if sequence >= wanted {
        return Ok(Opening::Look);
    }
    // It has to prove itself: a segment that is wanted must not pass for an old one.
    let proven = header.proves(&read(dev, at, padded(header.len)).await?);
    Ok(if proven { Opening::Old(sequence) } else { Opening::Look })
}

/// Whether a batch may be at this offset of this segment.
fn belongs(shape: &Shape, header: &Header, slot: u64, offset: u64) -> bool {
    let sequence = shape.sequence(header.lsn);
    (1..=shape.sequence_max()).contains(&sequence)
        && shape.slot(sequence) == slot
        && shape.offset_in_segment(header.lsn) == offset
        && offset + padded(header.len) <= u64::from(shape.segment_bytes)
}

/// Looks at each block of a segment for a batch; says whether there was one.
async fn look(
    dev: &dyn BlockDev,
    shape: &Shape,
    slot: u64,
    wanted: u64,
    found: &mut Found,
) -> Result<bool, Unreadable> {
    let mut segment = Vec::with_capacity(shape.segment_bytes as usize);
    while segment.len() < shape.segment_bytes as usize {
        let at = ByteOffset(shape.slot_at(slot).0 + segment.len() as u64);
        let len = READ_MAX.min(u64::from(shape.segment_bytes) - segment.len() as u64);
        segment.extend_from_slice(&read(dev, at, len).await?);
    }
    let before = found.batches.len();
    let mut offset = 0;
    while offset < segment.len() {
        let bytes = &segment[offset..];
        let header = Header::read(shape, bytes)
            .filter(|header| belongs(shape, header, slot, offset as u64) && header.proves(bytes));
        let Some(header) = header else {
            offset += BLOCK as usize;
            continue;
        };
        let sequence = shape.sequence(header.lsn);
        found.sequence = found.sequence.max(sequence);
        if sequence >= wanted {
            found.batches.push(header);
        }
        offset += padded(header.len) as usize;
    }
    Ok(found.batches.len() > before)
}

/// Reads whole blocks.
pub(crate) async fn read(dev: &dyn BlockDev, at: ByteOffset, bytes: u64) -> Result<IoBuf, Unreadable> {
    match dev.read(at, IoBuf::zeroed(bytes as usize), IoClass::Log).await {
        Ok(buf) => Ok(buf),
        Err(IoError::Failed { .. }) if planted::is(planted::Bug::EioIsEndOfLog) => {
            Ok(IoBuf::zeroed(bytes as usize))
        }
        Err(source) => Err(Unreadable { at, source }),
    }
}
