//! How dirty ranges become extents: pure.

use std::ops::Range;

use types::{BLOCK, EXTENT_MAX, Grant};

/// An accepted write, as far as its place matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Dirty {
    pub(crate) range: Range<u64>,
    pub(crate) grant: Grant,
}

/// One commit brings in at most so many bytes and records: they are in memory until it is done, and its segments are
/// one log entry. A full batch ends where an extent ends if it can.
const BATCH_BYTES: u64 = 8 * EXTENT_MAX;
const BATCH_RECORDS: usize = 256;

/// How many of these writes, which are in their order, go into one commit: at least one, and all of one grant.
pub(crate) fn batch(writes: &[Dirty]) -> usize {
    let (mut bytes, mut aligned) = (0, 0);
    for (count, write) in writes.iter().enumerate() {
        bytes += write.range.end - write.range.start;
        if count > 0 && (write.grant != writes[0].grant || bytes > BATCH_BYTES || count == BATCH_RECORDS) {
            // Cut in the second half only, or a batch could become tiny.
            let cut_aligned = write.grant == writes[0].grant && aligned > count / 2;
            return if cut_aligned { aligned } else { count };
        }
        if write.range.end.is_multiple_of(EXTENT_MAX) {
            aligned = count + 1;
        }
    }
    writes.len()
}

/// The bytes that are in any of these ranges, ascending and apart.
pub(crate) fn union(ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
    ranges.sort_by_key(|range| range.start);
    let mut apart: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

/// The extents that hold these bytes of a file of `size` bytes: whole blocks but at the file's end, at most 1 MiB each
/// and over no multiple of that. A file's first `whole` bytes go together.
pub(crate) fn extents(dirty: &[Range<u64>], size: u64, whole: u64) -> Vec<Range<u64>> {
    let blocks = dirty.iter().map(|range| {
        let start = if range.start < whole { 0 } else { range.start / BLOCK * BLOCK };
        let end = if range.start < whole { range.end.max(whole) } else { range.end };
        start..end.next_multiple_of(BLOCK).min(size)
    });
    let mut extents = Vec::new();
    for mut run in union(blocks) {
        while run.start < run.end {
            let end = (run.start / EXTENT_MAX + 1) * EXTENT_MAX;
            extents.push(run.start..end.min(run.end));
            run.start = end;
        }
    }
    extents
}

/// The bytes of `range` that are in none of these, which are ascending and apart.
pub(crate) fn gaps(range: &Range<u64>, dirty: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut at = range.start;
    for dirty in dirty {
        if dirty.end <= at {
            continue;
        }
        if dirty.start >= range.end {
            break;
        }
        if dirty.start > at {
            gaps.push(at..dirty.start);
        }
        at = dirty.end;
    }
    if at < range.end {
        gaps.push(at..range.end);
    }
    gaps
}

/// The bytes of the whole blocks that a range touches.
pub(crate) fn block_bytes(range: &Range<u64>) -> u64 {
    range.end.next_multiple_of(BLOCK) - range.start / BLOCK * BLOCK
}

#[cfg(test)]
mod tests;
