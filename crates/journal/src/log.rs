//! Appending to a log.

use crate::batch::{Batch, NOTHING, Place, padded};
use crate::format::{Lsn, Shape};
use crate::recovery::{OpenError, Past, Recovery, Start, blank, find};
use device::{BlockDev, Durability, IoClass, IoFuture};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use types::BLOCK;

/// Free segments that ordinary appends leave: each opening takes one, and what it finds may have to be put right.
const RESERVE: u64 = 2;

/// A log that is open. Shared by reference; appends are ordered by the calls.
pub struct Log {
    dev: Arc<dyn BlockDev>,
    shape: Shape,
    tail: Mutex<Tail>,
}

struct Tail {
    /// Where the next batch goes, if the segment has room for it.
    next: Lsn,
    previous: Lsn,
    flushed: Lsn,
    /// Sequence numbers of the segments in use, oldest first. The last one is being filled.
    live: VecDeque<u64>,
    /// Batches that are not known to be durable: where each ends, and the mark that it carries.
    sent: VecDeque<(Lsn, Lsn)>,
    /// The highest mark that a durable batch carries.
    carried: Lsn,
    /// Below this nothing is needed.
    needed: Lsn,
}

impl Tail {
    /// Gives segments back. A restart has to see from what is left that the rest was durable, not lost: so a segment
    /// stays until a durable batch says so.
    fn release(&mut self, shape: &Shape) {
        let first = shape.sequence(self.needed.min(self.carried));
        while self.live.len() > 1 && self.live.front().is_some_and(|oldest| *oldest < first) {
            self.live.pop_front();
        }
    }
}

/// Which space an append may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// All but the reserve.
    Ordinary,
    /// Also what is kept for putting a restart right, so that a full log can be opened: a few batches, only while
    /// recovering or to free space.
    Reserve,
}

/// A batch on its way to the disk.
pub struct Append {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where it ends: what [`Log::flushed`] is told once it is durable.
    pub end: Lsn,
    /// Resolves when it is written, or durable if that was asked for. Nothing needs to poll it for the write to happen.
    pub written: IoFuture<()>,
}

/// Why a batch was not appended. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// No segment is free: [`Log::free_before`] has to give some back first.
    #[error("the log is full: {live} of {segments} segments hold what is still needed")]
    LogFull {
        /// Segments in use.
        live: u64,
        /// All segments.
        segments: u64,
    },
    /// The batch was made for a log with larger segments.
    #[error("a batch of {bytes} bytes does not fit this log")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// Sequence numbers ran out.
    #[error("the log has no sequence numbers left")]
    Exhausted,
}

/// How full a log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Bytes of the segments in use.
    pub used: u64,
    /// Bytes of all segments but the reserve: at this much ordinary appends are refused.
    pub capacity: u64,
}

impl Log {
    /// Makes an empty log of the region: zeroes it, durably. It is opened from [`Shape::first`] on.
    pub async fn format(dev: &dyn BlockDev, shape: &Shape) -> Result<(), OpenError> {
        shape.check(dev)?;
        blank(dev, shape).await
    }

    /// Opens a log and gives what it holds.
    ///
    /// What was found is made durable, and the log carries on in a fresh segment, whose sequence number is above any
    /// that can have been written, with an empty batch that is durable on return: so nothing that was not found now
    /// can be found later. The mark stays where it was: after recovery the caller moves it by [`Log::flushed`] with
    /// [`Log::end`].
    pub async fn open(
        dev: Arc<dyn BlockDev>,
        shape: Shape,
        start: Start,
    ) -> Result<(Log, Recovery), OpenError> {
        let (recovery, past) = find(Arc::clone(&dev), shape, start).await?;
        let disk = |source| OpenError::Disk { at: shape.at, source };
        dev.flush().await.map_err(disk)?;
        let sequence = fresh_sequence(&shape, &past).ok_or(OpenError::Exhausted)?;
        let lsn = shape.begin_of(sequence);
        let place =
            Place { flushed: past.flushed, previous: past.last.unwrap_or(NOTHING), needed: past.needed };
        let opening = Batch::new(&shape).seal(&shape.uuid, lsn, place);
        let next = Lsn(lsn.0 + opening.len() as u64);
        let written = dev.write(shape.offset_of(lsn), vec![opening], Durability::Durable, IoClass::Log);
        written.await.map_err(disk)?;
        let mut live = VecDeque::from(past.live);
        live.push_back(sequence);
        let tail = Mutex::new(Tail {
            next,
            previous: lsn,
            flushed: past.flushed,
            live,
            sent: VecDeque::new(),
            carried: past.flushed,
            needed: past.needed,
        });
        Ok((Log { dev, shape, tail }, recovery))
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// An empty batch for it.
    pub fn batch(&self) -> Batch {
        Batch::new(&self.shape)
    }

    /// Submits a batch behind all earlier ones. Several may be in flight: after a crash a batch counts only if all
    /// before it do.
    ///
    /// An empty batch is a *stamp*: it carries the mark of [`Log::flushed`] to the disk when nothing else does, so that a restart can tell that what is
    /// below it was durable.
    pub fn append(&self, batch: Batch, sync: Durability, room: Room) -> Result<Append, AppendError> {
        let (bytes, stamp) = (batch.stored_bytes(), batch.is_empty());
        if bytes > u64::from(self.shape.segment_bytes) {
            return Err(AppendError::TooLarge { bytes });
        }
        // The write is submitted under the lock: batches reach the disk's queue in their order.
        let mut tail = self.tail();
        let (lsn, fresh) = self.place(&tail, bytes, stamp, room)?;
        let place = Place { flushed: tail.flushed, previous: tail.previous, needed: tail.needed };
        let buf = batch.seal(&self.shape.uuid, lsn, place);
        let end = Lsn(lsn.0 + padded(buf.len() as u32));
        if let Some(sequence) = fresh {
            tail.live.push_back(sequence);
        }
        tail.next = end;
        tail.previous = lsn;
        let mark = tail.flushed;
        tail.sent.push_back((end, mark));
        let written = self.dev.write(self.shape.offset_of(lsn), vec![buf], sync, IoClass::Log);
        drop(tail);
        Ok(Append { lsn, end, written: Box::pin(async move { written.await.map(drop) }) })
    }

    /// Where a batch goes, and the sequence number of the segment that it opens.
    fn place(
        &self,
        tail: &Tail,
        bytes: u64,
        stamp: bool,
        room: Room,
    ) -> Result<(Lsn, Option<u64>), AppendError> {
        let current = tail.live.back().copied().unwrap_or_default();
        let used = tail.next.0 - self.shape.begin_of(current).0;
        let fits = used + bytes <= u64::from(self.shape.segment_bytes);
        let (live, segments) = (tail.live.len() as u64, self.shape.segments());
        let needed = live + u64::from(!fits);
        let left = match room {
            Room::Ordinary => RESERVE,
            // A segment that holds nothing but stamps is used again by the next opening.
            Room::Reserve if stamp && fits => 0,
            Room::Reserve => RESERVE - 1,
        };
        if needed + left > segments {
            return Err(AppendError::LogFull { live, segments });
        }
        if fits {
            return Ok((tail.next, None));
        }
        if current >= self.shape.sequence_max() {
            return Err(AppendError::Exhausted);
        }
        Ok((self.shape.begin_of(current + 1), Some(current + 1)))
    }

    /// Tells that everything below `lsn` is durable: the end of a batch whose write, and that of all before it, had
    /// completed when a flush began that is done, or that was written durably. The next batch carries the mark. A
    /// lower mark than the last one changes nothing.
    pub fn flushed(&self, lsn: Lsn) {
        let mut tail = self.tail();
        assert!(lsn <= tail.next, "what was not appended cannot be durable");
        tail.flushed = tail.flushed.max(lsn);
        while let Some((_, mark)) = tail.sent.front().copied().filter(|(end, _)| *end <= lsn) {
            tail.carried = mark;
            tail.sent.pop_front();
        }
        tail.release(&self.shape);
    }

    /// The mark that the next batch carries.
    pub fn flushed_mark(&self) -> Lsn {
        self.tail().flushed
    }

    /// Where the last batch ends.
    pub fn end(&self) -> Lsn {
        self.tail().next
    }

    /// Gives the segments back that are wholly below `lsn`, which is not above the mark. Call it when no restart will need
    /// them: when the place that a restart begins at is durable. Those that no durable batch tells to have been durable
    /// follow when one does, which a stamp can be ([`Room::Reserve`] if the log is full).
    pub fn free_before(&self, lsn: Lsn) {
        let mut tail = self.tail();
        assert!(lsn <= tail.flushed, "what is not known to be durable is still needed");
        tail.needed = tail.needed.max(lsn);
        tail.release(&self.shape);
    }

    /// The oldest place that is still kept.
    pub fn oldest(&self) -> Lsn {
        self.shape.begin_of(self.tail().live.front().copied().unwrap_or_default())
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let segment = u64::from(self.shape.segment_bytes);
        let live = self.tail().live.len() as u64;
        Usage { used: live * segment, capacity: (self.shape.segments() - RESERVE) * segment }
    }
}

/// A sequence number for the segment behind the live ones that is above any that can have been written.
///
/// Sequence numbers grow by one from a segment whose first batch was durable before anything else was written in it
/// (the opening), and at most all segments of the region can have been entered since the newest one that is known. So
/// a batch that was lost or torn, and is not known, is at most that far above.
fn fresh_sequence(shape: &Shape, past: &Past) -> Option<u64> {
    let segments = shape.segments();
    let above = past.sequence.checked_add(segments + 1)?;
    let ahead = (past.next_slot + segments - shape.slot(above)) % segments;
    let sequence = above.checked_add(ahead)?;
    (sequence < shape.sequence_max()).then_some(sequence)
}

const _: () = assert!(crate::batch::HEADER as u64 <= BLOCK, "a header is in one block");
