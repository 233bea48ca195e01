//! Reading a log back after a restart.

use crate::batch::{Header, Records, padded};
use crate::chain::{Beginning, Chain, Missing, link};
use crate::format::{Lsn, Shape, ShapeError};
use crate::scan::{Found, Unreadable, read, scan};
use device::{BlockDev, IoError};
use std::sync::Arc;
use types::{BLOCK, ByteOffset};

/// From where on a log is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// From a known place on, which is where a batch began or ended, or [`Shape::first`].
    At {
        /// Everything before it was freed, or may be.
        start: Lsn,
        /// Everything below it is known to have been durable; [`Lsn::default`] if nothing is known beside the log.
        flushed: Lsn,
    },
    /// From the highest place on that the log itself names as the first one needed, or a little later: what was freed
    /// after that was written may have been used again. Damage there that ends before the first batch of some segment
    /// looks the same, so the caller checks that the records begin early enough.
    Oldest,
}

/// Why a log was not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The region cannot hold a log.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A batch that was durable is missing or damaged.
    #[error("the log is damaged at byte {} of its disk ({lsn}): everything below {flushed} was durable", .at.0)]
    Damaged {
        /// Where it should be on the disk.
        at: ByteOffset,
        /// Where it should be in the log.
        lsn: Lsn,
        /// The mark below which everything was durable.
        flushed: Lsn,
    },
    /// A batch is whole but says what this release does not understand.
    #[error("the batch at byte {} of the disk ({lsn}) is whole but not well formed", .at.0)]
    Malformed {
        /// Where it is on the disk.
        at: ByteOffset,
        /// Where it is in the log.
        lsn: Lsn,
    },
    /// The disk did not answer a read, write or flush.
    #[error("the log cannot be read or continued at byte {} of its disk", .at.0)]
    Disk {
        /// Where.
        at: ByteOffset,
        /// What the disk said.
        source: IoError,
    },
    /// Sequence numbers ran out.
    #[error("the log has no sequence numbers left")]
    Exhausted,
}

impl From<Unreadable> for OpenError {
    fn from(unreadable: Unreadable) -> OpenError {
        OpenError::Disk { at: unreadable.at, source: unreadable.source }
    }
}

/// The batches of a log, oldest first, and how its end looked.
pub struct Recovery {
    dev: Arc<dyn BlockDev>,
    shape: Shape,
    batches: std::vec::IntoIter<Header>,
    flushed: Lsn,
    end: Lsn,
    dropped: usize,
}

/// One batch that was read back.
#[derive(Debug)]
pub struct RecoveredBatch {
    /// Where it is.
    pub lsn: Lsn,
    /// Where it ends.
    pub end: Lsn,
    bytes: Vec<u8>,
}

impl RecoveredBatch {
    /// Its records, in order.
    pub fn records(&self) -> Records<'_> {
        Records::of(&self.bytes)
    }

    /// Bytes from its begin that say something: all but the padding of its last block.
    pub fn used(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Recovery {
    /// Reads a log without opening it: nothing is written, so a torn tail is still there afterwards.
    pub async fn read(dev: Arc<dyn BlockDev>, shape: Shape, start: Start) -> Result<Recovery, OpenError> {
        Ok(find(dev, shape, start).await?.0)
    }

    /// The highest mark found (or given): all below it was durable before the restart. Batches that end above it may
    /// be unacknowledged, and what their writer wrote beside them may be missing.
    pub fn flushed(&self) -> Lsn {
        self.flushed
    }

    /// Where the last batch of the log ends; the start if there is none.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// How many whole batches lie behind a torn one and were dropped with it.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// How many batches are still to come, stamps between others included.
    pub fn remaining(&self) -> usize {
        self.batches.len()
    }

    /// Reads the next batch; `None` after the last one with records. One batch at a time is in memory.
    pub async fn next(&mut self) -> Result<Option<RecoveredBatch>, OpenError> {
        let Some(header) = self.batches.next() else { return Ok(None) };
        let lsn = header.lsn;
        let at = self.shape.offset_of(lsn);
        let buf = read(&*self.dev, at, padded(header.len)).await?;
        // It was whole a moment ago: a disk that answers differently now is damaged.
        if Header::read(&self.shape, &buf) != Some(header) || !header.proves(&buf) {
            return Err(OpenError::Damaged { at, lsn, flushed: self.flushed });
        }
        if !header.well_formed(&buf) {
            return Err(OpenError::Malformed { at, lsn });
        }
        let bytes = buf[..header.len as usize].to_vec();
        Ok(Some(RecoveredBatch { lsn, end: header.end(), bytes }))
    }
}

/// What a log that is continued needs to know of its past.
pub(crate) struct Past {
    pub(crate) flushed: Lsn,
    /// Nothing below is needed.
    pub(crate) needed: Lsn,
    /// The last batch with records.
    pub(crate) last: Option<Lsn>,
    /// The segments that hold the log up to there, oldest first.
    pub(crate) live: Vec<u64>,
    /// Which segment of the region comes after them.
    pub(crate) next_slot: u64,
    /// No batch has a higher sequence number than this plus the number of segments.
    pub(crate) sequence: u64,
}

pub(crate) async fn find(
    dev: Arc<dyn BlockDev>,
    shape: Shape,
    start: Start,
) -> Result<(Recovery, Past), OpenError> {
    shape.check(&*dev)?;
    let (start, durable, begins) = match start {
        Start::At { start, flushed } => {
            (start, flushed.max(start), Beginning::Segment(shape.sequence(start).max(1)))
        }
        Start::Oldest => (Lsn::default(), Lsn::default(), Beginning::Anywhere),
    };
    let wanted = match begins {
        Beginning::Segment(first) => first,
        Beginning::Anywhere => 1,
    };
    let Found { batches, sequence } = scan(&*dev, &shape, wanted).await?;
    let chain = link(&shape, batches, begins, durable);
    let Chain { batches, flushed, needed, dropped } = chain.map_err(|Missing { at, flushed }| {
        OpenError::Damaged { at: shape.offset_of(at), lsn: at, flushed }
    })?;
    let end = batches.last().map_or(start, Header::end);
    // Stamps at the end say nothing more than the mark, which is carried on: their segments can be used again.
    let with_records = batches.iter().rposition(|batch| !batch.is_empty()).map_or(0, |n| n + 1);
    let mut kept = batches;
    kept.truncate(with_records);
    let live = live_segments(&shape, &mut kept);
    let start = start.max(needed);
    let past = Past {
        flushed,
        needed: start,
        last: kept.last().map(|batch| batch.lsn),
        next_slot: live.last().map_or(shape.slot(shape.sequence(start).max(1)), |last| shape.slot(last + 1)),
        live,
        sequence: sequence.max(shape.sequence(durable)),
    };
    kept.retain(|batch| batch.lsn >= start);
    Ok((Recovery { dev, shape, batches: kept.into_iter(), flushed, end, dropped }, past))
}

/// The segments of a log. Appends always leave one free, so if all are found, the oldest had been given back and its
/// batches are dropped.
fn live_segments(shape: &Shape, batches: &mut Vec<Header>) -> Vec<u64> {
    let segments = |batches: &[Header]| {
        let mut segments: Vec<u64> = batches.iter().map(|batch| shape.sequence(batch.lsn)).collect();
        segments.dedup();
        segments
    };
    let mut live = segments(batches);
    if live.len() as u64 >= shape.segments() {
        let spare = live.len() - (shape.segments() as usize - 1);
        live.drain(..spare);
        let first = live[0];
        batches.retain(|batch| shape.sequence(batch.lsn) >= first);
    }
    live
}

/// Zeroes a region, durably. A block of it that was never written would cost the filesystem a commit when it is.
pub(crate) async fn blank(dev: &dyn BlockDev, shape: &Shape) -> Result<(), OpenError> {
    let step = u64::from(dev.geometry().max_io).min(1 << 20);
    let end = shape.at.0 + shape.bytes - shape.bytes % BLOCK;
    let mut at = shape.at.0;
    let mut zeros = Vec::new();
    while at < end {
        let len = step.min(end - at);
        if zeros.iter().map(|buf: &device::IoBuf| buf.len() as u64).sum::<u64>() != len {
            zeros = vec![device::IoBuf::zeroed(len as usize)];
        }
        let place = ByteOffset(at);
        let written = dev.write(place, zeros, device::Durability::Buffered, device::IoClass::Log).await;
        zeros = written.map_err(|source| OpenError::Disk { at: place, source })?;
        at += len;
    }
    dev.flush().await.map_err(|source| OpenError::Disk { at: shape.at, source })
}
