//! Who reads a file from front to back finds what comes next in memory.
//!
//! Extents never change and their ids are never used again, so what is kept of one is right for ever: what shows of it
//! in a file is asked of the rows at each read. Only sequential readers fill the memory; others would only empty it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use extents::{Extents, ReadExtentError};
use namespace::ExtentRow;
use tokio::sync::OnceCell;
use types::{EXTENT_MAX, ExtentId};

/// The most bytes of extents that are kept.
const KEPT_MAX: u64 = 16 << 20;

/// How far ahead of a reader extents are read, at most: half of what is kept, so that two readers do not push out what
/// the other one waits for.
const AHEAD_MAX: u64 = 8 << 20;

/// How far from where the last read ended the next one of a sequential reader begins: the kernel reads ahead with
/// several requests at once, which overtake each other.
const NEAR: u64 = 512 << 10;

/// How many bytes are read one behind the other before the reader counts as sequential.
const SEQUENTIAL: u64 = 512 << 10;

/// Where the readers of a file are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Stream {
    /// Where the furthest of the last reads ended.
    end: u64,
    /// Bytes that were read one behind the other.
    run: u64,
    /// Up to here extents were asked for already.
    ahead: u64,
}

impl Stream {
    /// Takes notice of a read of `len` bytes at `offset`. Answers the range that is to be read ahead, which may be
    /// empty; `None` if the reader is not sequential.
    pub(crate) fn note(&mut self, offset: u64, len: u64) -> Option<std::ops::Range<u64>> {
        let end = offset.saturating_add(len);
        if offset > self.end.saturating_add(NEAR) || end.saturating_add(NEAR) < self.end {
            *self = Stream { end, run: len, ahead: 0 };
            return None;
        }
        self.run = self.run.saturating_add(end.saturating_sub(self.end));
        self.end = self.end.max(end);
        if self.run < SEQUENTIAL {
            return None;
        }
        // As much ahead as was read already, in steps of half of it.
        let window = self.run.next_power_of_two().clamp(EXTENT_MAX, AHEAD_MAX);
        let from = self.ahead.max(self.end);
        let to = self.end.saturating_add(window);
        if to.saturating_sub(from) < window / 2 {
            return Some(from..from);
        }
        self.ahead = to;
        Some(from..to)
    }
}

/// Whole extents in memory.
#[derive(Default)]
pub(crate) struct Kept {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: HashMap<ExtentId, Arc<Slot>>,
    /// The oldest first.
    order: VecDeque<ExtentId>,
    bytes: u64,
}

/// An extent that is, or is to be, in memory.
pub(crate) struct Slot {
    row: ExtentRow,
    bytes: OnceCell<Vec<u8>>,
}

impl Slot {
    /// The extent's bytes, verified; read by the first who asks. After an error, or if who reads is dropped, the next
    /// one reads.
    pub(crate) async fn get(&self, extents: &Extents) -> Result<&[u8], ReadExtentError> {
        let read = self.bytes.get_or_try_init(|| extents.read(&self.row, 0..self.row.plain_len));
        read.await.map(Vec::as_slice)
    }
}

impl Kept {
    /// The extent, if it is kept.
    pub(crate) fn find(&self, id: ExtentId) -> Option<Arc<Slot>> {
        self.state().slots.get(&id).cloned()
    }

    /// A place for the extent, and whether it is new. The oldest ones go for it; who uses one keeps it so long.
    pub(crate) fn keep(&self, row: &ExtentRow) -> (Arc<Slot>, bool) {
        let mut state = self.state();
        if let Some(slot) = state.slots.get(&row.id) {
            return (Arc::clone(slot), false);
        }
        let slot = Arc::new(Slot { row: *row, bytes: OnceCell::new() });
        state.bytes += u64::from(row.plain_len);
        state.slots.insert(row.id, Arc::clone(&slot));
        state.order.push_back(row.id);
        while state.bytes > KEPT_MAX
            && let Some(oldest) = state.order.pop_front()
        {
            let gone = state.slots.remove(&oldest);
            state.bytes -= gone.map_or(0, |slot| u64::from(slot.row.plain_len));
        }
        (slot, true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{AHEAD_MAX, KEPT_MAX, Kept, Stream};
    use namespace::ExtentRow;
    use types::{EXTENT_MAX, ExtentId, GroupId, LayoutId, SessionId, VolumeId};

    const PAGE: u64 = 128 << 10;

    #[test]
    fn a_sequential_reader_is_read_ahead_of_and_no_byte_twice() {
        let mut stream = Stream::default();
        let (mut asked, mut widest) = (0, 0);
        for at in 0..1024 {
            // Every other pair of requests comes in the wrong order.
            let at = if at % 4 < 2 { at } else { at ^ 1 };
            let Some(range) = stream.note(at * PAGE, PAGE) else {
                assert!(at < 6, "{at}");
                continue;
            };
            if !range.is_empty() {
                assert!(range.start >= asked, "{range:?} after {asked}");
                asked = range.end;
            }
            widest = widest.max(asked.saturating_sub((at + 1) * PAGE));
            assert!(at < 16 || asked > (at + 1) * PAGE, "the reader has overtaken it at {at}");
        }
        assert!((AHEAD_MAX / 2..=AHEAD_MAX + 2 * PAGE).contains(&widest), "{widest}");
    }

    #[test]
    fn a_random_reader_is_not() {
        let mut stream = Stream::default();
        for at in 0..1000_u64 {
            let offset = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (1 << 40);
            assert_eq!(stream.note(offset, 4096), None);
        }
        for _ in 0..1000 {
            assert_eq!(stream.note(0, 4096), None, "the same place again and again");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes() {
        let kept = Kept::default();
        let row = |counter| ExtentRow {
            id: ExtentId { volume: VolumeId(1), session: SessionId(1), counter },
            group: GroupId(1),
            layout: LayoutId(0),
            codec: 0,
            plain_len: EXTENT_MAX as u32,
            stored_len: EXTENT_MAX as u32,
            content_crc: 0,
        };
        for counter in 1..=100 {
            assert!(kept.keep(&row(counter)).1);
            assert!(!kept.keep(&row(counter)).1);
        }
        let there = (1..=100).filter(|counter| kept.find(row(*counter).id).is_some()).count() as u64;
        assert_eq!(there * EXTENT_MAX, KEPT_MAX);
        assert!(kept.find(row(100).id).is_some() && kept.find(row(1).id).is_none());
    }
}
