//! Where a file has data and where it has holes: lseek(2) with `SEEK_DATA` and `SEEK_HOLE`.

use std::ops::Range;

use namespace::{Answer, Query};
use types::{Errno, Ino};

use crate::errno;
use crate::layout;
use crate::op::{Handle, Outcome, SeekTo};
use crate::vfs::Vfs;

/// How many segments of a map are asked for at once.
const SEGMENTS: u32 = 256;

/// The data of a part of a file: ascending ranges; what is between them up to `end` is holes.
struct Part {
    data: Vec<Range<u64>>,
    end: u64,
}

impl Vfs {
    /// Data is what was ever written, in whole blocks or less; space that was only set aside is a hole.
    pub(crate) async fn seek(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        to: SeekTo,
    ) -> Result<Outcome, Errno> {
        let node = self.node(ino);
        let attr = self.known_attr(&node).await?;
        self.check_data(&attr, handle.reads() || handle.writes())?;
        // What is accepted and what is in the rows are looked at one after the other: none may become the other
        // between.
        let _no_flush = node.flush.lock().await;
        let attr = self.known_attr(&node).await?;
        let dirty = self.arena.summary(ino);
        let size = Vfs::size_shown(&attr, dirty.as_ref());
        let records = dirty.map(|dirty| self.arena.records(ino, dirty.last)).unwrap_or_default();
        let written = layout::union(records.iter().map(arena::Record::range));
        let mut at = offset;
        while at < size {
            let part = self.stored_data(ino, at, size).await?;
            let known = at..part.end;
            let written = written.iter().map(|range| range.start.max(at)..range.end.min(part.end));
            let data = layout::union(part.data.into_iter().chain(written));
            if let Some(found) = find(&data, &known, to) {
                return Ok(Outcome::Offset(found));
            }
            at = known.end;
        }
        match to {
            // There is always a hole behind the end.
            SeekTo::Hole if offset < size => Ok(Outcome::Offset(size)),
            _ => Err(Errno::ENXIO),
        }
    }

    /// What the rows have as data from `at` on, at least one byte further and at most up to `size`.
    async fn stored_data(&self, ino: Ino, at: u64, size: u64) -> Result<Part, Errno> {
        let query = Query::Map { volume: self.volume(), ino, start: at, end: size, max: SEGMENTS };
        let (prefix, segments) = match self.ask(query).await? {
            Answer::Inline { bytes, .. } => (bytes, Vec::new()),
            Answer::Map { prefix, segments, .. } => (prefix, segments),
            other => return Err(errno::of_wrong_answer(&other)),
        };
        let end = match segments.last() {
            Some(last) if segments.len() == SEGMENTS as usize => (last.start + last.len).min(size),
            _ => size,
        };
        let stored = segments.iter().filter(|segment| segment.data.is_some());
        let stored = stored.map(|segment| segment.start..segment.start + segment.len);
        let data = std::iter::once(0..prefix.len() as u64)
            .chain(stored)
            .map(|range| range.start.max(at)..range.end.min(end))
            .filter(|range| range.start < range.end)
            .collect();
        Ok(Part { data, end })
    }
}

/// The first byte of `within` that is what is looked for; `data` is all that is data in it, ascending and apart.
fn find(data: &[Range<u64>], within: &Range<u64>, to: SeekTo) -> Option<u64> {
    match (to, data.first()) {
        (SeekTo::Data, first) => first.map(|first| first.start),
        (SeekTo::Hole, Some(first)) if first.start == within.start => {
            (first.end < within.end).then_some(first.end)
        }
        (SeekTo::Hole, _) => Some(within.start),
    }
}

#[cfg(test)]
mod tests {
    use super::find;
    use crate::op::SeekTo::{Data, Hole};

    #[test]
    fn the_first_byte_of_a_kind_is_found() {
        let two = [10..20, 30..40];
        assert_eq!(find(&two, &(5..100), Data), Some(10));
        assert_eq!(find(&two, &(5..100), Hole), Some(5));
        assert_eq!(find(&two, &(10..100), Hole), Some(20));
        let one = std::slice::from_ref(&two[0]);
        assert_eq!(find(one, &(10..20), Hole), None, "it is data up to the end of what is known");
        assert_eq!(find(&[], &(10..20), Data), None);
        assert_eq!(find(&[], &(10..20), Hole), Some(10));
    }
}
