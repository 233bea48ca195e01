//! Which record shows at each byte of a file.

use std::collections::BTreeMap;
use std::ops::Range;

use types::Dseq;

/// A run of bytes of one record that no later record hides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    /// One past its last byte in the file.
    pub(crate) end: u64,
    /// Whose bytes they are.
    pub(crate) dseq: Dseq,
    /// Where its first byte lies in the arena.
    pub(crate) at: u64,
}

/// Pieces by their first byte in the file; none overlap.
#[derive(Debug, Default)]
pub(crate) struct Pieces(BTreeMap<u64, Piece>);

impl Pieces {
    /// The bytes of a new record hide what was there.
    pub(crate) fn cover(&mut self, range: Range<u64>, dseq: Dseq, at: u64) {
        if let Some((start, piece)) = self.0.range_mut(..range.start).next_back()
            && piece.end > range.start
        {
            let (start, whole) = (*start, *piece);
            piece.end = range.start;
            self.keep_behind(range.end, start, whole);
        }
        while let Some((start, whole)) = self.0.range(range.clone()).next().map(|(s, p)| (*s, *p)) {
            self.0.remove(&start);
            self.keep_behind(range.end, start, whole);
        }
        self.0.insert(range.start, Piece { end: range.end, dseq, at });
    }

    /// What of `piece`, which began at `start`, lies behind `end` stays.
    fn keep_behind(&mut self, end: u64, start: u64, piece: Piece) {
        if piece.end > end {
            self.0.insert(end, Piece { at: piece.at + (end - start), ..piece });
        }
    }

    /// The oldest record goes: what shows of it shows no more. Nothing lies below it.
    pub(crate) fn uncover(&mut self, range: Range<u64>, dseq: Dseq) {
        let gone: Vec<u64> =
            self.0.range(range).filter(|(_, piece)| piece.dseq == dseq).map(|(start, _)| *start).collect();
        for start in gone {
            self.0.remove(&start);
        }
    }

    /// What shows in `range`, in order: range of the file, place in the arena.
    pub(crate) fn within(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, u64)> {
        let before = self.0.range(..range.start).next_back();
        let inside = self.0.range(range.clone());
        before.into_iter().chain(inside).filter_map(move |(start, piece)| {
            let shown = range.start.max(*start)..range.end.min(piece.end);
            (!shown.is_empty()).then(|| (shown.clone(), piece.at + (shown.start - start)))
        })
    }
}
