//! Which of the batches that were found are the log.
//!
//! Each batch names the one before it. The log is what the newest batch leads back to, if that reaches the log's
//! beginning without a gap; else what the newest one before it does that so reaches it. So a batch that names one
//! further back ends all between the two: this is how an opening drops what it found torn. It does not matter for
//! what reason a batch did not come to be part of the log: none that was dropped can come back.

use crate::batch::{Header, NOTHING};
use crate::format::{Lsn, Shape};
use std::collections::HashMap;

/// Where the log begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Beginning {
    /// Segments before this sequence number are not needed.
    Segment(u64),
    /// At the first batch of some segment, whatever was before.
    Anywhere,
}

/// The log, oldest batch first, and what was found beside it.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) batches: Vec<Header>,
    /// The highest mark of any batch: what was below it when that was written was durable.
    pub(crate) flushed: Lsn,
    /// Nothing below is needed.
    pub(crate) needed: Lsn,
    /// Whole batches behind the end of the log that are not part of it.
    pub(crate) dropped: usize,
}

/// Something below the mark is missing.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Missing {
    pub(crate) at: Lsn,
    pub(crate) flushed: Lsn,
}

/// Picks the log out of `found`, whole batches in any order. Everything below `durable` is known to have been durable.
pub(crate) fn link(
    shape: &Shape,
    mut found: Vec<Header>,
    begins: Beginning,
    durable: Lsn,
) -> Result<Chain, Missing> {
    found.sort_unstable_by_key(|batch| batch.lsn);
    let flushed = found.iter().map(|batch| batch.flushed).fold(durable, Lsn::max);
    let needed = match begins {
        Beginning::Segment(first) => shape.begin_of(first),
        Beginning::Anywhere => found.iter().map(|batch| batch.needed).fold(NOTHING, Lsn::max),
    };
    found.retain(|batch| shape.sequence(batch.lsn) >= shape.sequence(needed));
    drop_remnants(shape, &mut found);
    let index: HashMap<Lsn, usize> = found.iter().enumerate().map(|(n, batch)| (batch.lsn, n)).collect();
    let is_first = |batch: &Header| match begins {
        _ if batch.previous == NOTHING => true,
        Beginning::Segment(first) => batch.previous < shape.begin_of(first),
        // What came before was durable and leads no further back, so its segment was used again, if only to be torn
        // by a crash. (Or it is damaged: whoever asks for the oldest there is checks what the records say.)
        Beginning::Anywhere => shape.offset_in_segment(batch.lsn) == 0 && batch.previous < flushed,
    };
    let (mut whole, mut first) = (vec![false; found.len()], vec![false; found.len()]);
    for (n, batch) in found.iter().enumerate() {
        // A batch that names itself or a later one is not ours.
        let links = index.get(&batch.previous).is_some_and(|before| *before < n && whole[*before]);
        first[n] = !links && is_first(batch);
        whole[n] = links || first[n];
    }
    let newest = whole.iter().rposition(|whole| *whole);
    let end = newest.map_or(needed, |newest| found[newest].end());
    if end < flushed {
        let behind = &found[newest.map_or(0, |newest| newest + 1)..];
        let lost =
            behind.iter().map(|batch| batch.previous).filter(|before| !index.contains_key(before)).min();
        return Err(Missing { at: lost.filter(|lost| *lost >= end).unwrap_or(end), flushed });
    }
    let mut batches = Vec::new();
    let mut next = newest;
    while let Some(n) = next {
        batches.push(found[n]);
        next = if first[n] { None } else { index.get(&found[n].previous).copied() };
    }
    batches.reverse();
    Ok(Chain { batches, flushed, needed, dropped: found.len() - newest.map_or(0, |newest| newest + 1) })
}

/// Drops what is left of older use behind a segment's first batch.
fn drop_remnants(shape: &Shape, found: &mut Vec<Header>) {
    let is_opening = |batch: &&Header| shape.offset_in_segment(batch.lsn) == 0;
    let sequences = found.iter().filter(is_opening).map(|batch| shape.sequence(batch.lsn));
    // One segment has one first block, so its slot is named once.
    let holds: HashMap<u64, u64> = sequences.map(|sequence| (shape.slot(sequence), sequence)).collect();
    found.retain(|batch| {
        let sequence = shape.sequence(batch.lsn);
        holds.get(&shape.slot(sequence)).is_none_or(|holds| *holds == sequence)
    });
}
