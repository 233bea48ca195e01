//! `G`: work that is left for later, in bounded steps. Rows of class 1 (inodes that nothing holds, by inode) and 4
//! (extents that no map row names, by id) are keys alone: [`super::Empty`].

use alloc::vec::Vec;

use crate::row::data::Map;
use crate::wire::{wire_enum, wire_struct};

/// Truncates that one tail row remembers; the next one deletes its rows at once.
pub(crate) const CUTS_MAX: usize = 8;

/// One truncate that left its tail to reclaim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cut {
    /// The size that it set.
    pub(crate) from: u64,
    /// Map rows that start at or behind `from` and are of an older generation are cut off.
    pub(crate) generation: u32,
}
wire_struct!(Cut { from, generation });

/// Class 2, by inode: map rows that truncates cut off.
///
/// A truncate sets the size at once. The rows behind it can be too many for one command: it raises the inode's map
/// generation and notes a [`Cut`] instead. Rows behind a cut of an older generation are as good as gone: no answer
/// shows them, and a write over one cuts it as any other. What is written later has the new generation, so the
/// file may grow again over its old tail and reads zeros there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tail {
    /// Ascending in both fields: a cut at or before an older one covers it.
    pub(crate) cuts: Vec<Cut>,
    /// Every cut-off row starts at or behind it.
    pub(crate) cursor: u64,
}
wire_struct!(Tail { cuts, cursor });

impl Tail {
    /// Whether the row at `start` is cut off.
    pub(crate) fn has(&self, start: u64, row: &Map) -> bool {
        self.cuts.iter().any(|cut| cut.from <= start && row.generation < cut.generation)
    }

    /// Notes a cut of the newest generation; `false` if there is no room for it.
    pub(crate) fn push(&mut self, cut: Cut) -> bool {
        let keep = self.cuts.iter().take_while(|older| older.from < cut.from).count();
        if keep == CUTS_MAX {
            return false;
        }
        self.cursor = if self.cuts.is_empty() { cut.from } else { self.cursor.min(cut.from) };
        self.cuts.truncate(keep);
        self.cuts.push(cut);
        true
    }
}

/// Which rows of a closed session are being looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SessionPhase {
    Slots,
    Writers,
    Pinned,
}
wire_enum!(SessionPhase {
    0 => Slots,
    1 => Writers,
    2 => Pinned,
});

/// Class 3, by session: the rows of a closed session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeadSession {
    pub(crate) phase: SessionPhase,
    /// The next inode to look at.
    pub(crate) cursor: u64,
}
wire_struct!(DeadSession { phase, cursor });
