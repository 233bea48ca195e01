//! The table of a session's command slots: which are free, and the sequence each has reached.

use std::collections::BTreeSet;

/// How many commands of one session can be in flight.
pub(crate) const SLOTS: usize = 256;

/// Slots that no command is using, and every slot's last sequence.
///
/// A slot that is taken and not given back stays unusable: that is the right end for a command whose fate is unknown,
/// because another command under the same sequence could be answered with the reply of the first.
#[derive(Debug)]
pub(crate) struct SlotTable {
    free: BTreeSet<u8>,
    last: [u64; SLOTS],
}

impl SlotTable {
    /// A new session's table: every slot is free, and its first sequence is 1.
    pub(crate) fn new() -> SlotTable {
        SlotTable { free: (0..=u8::MAX).collect(), last: [0; SLOTS] }
    }

    /// The table of a session that goes on: its first slot has reached `last`, the others were never used.
    pub(crate) fn resumed(last: u64) -> SlotTable {
        let mut table = SlotTable::new();
        table.last[0] = last;
        table
    }

    /// The sequence that the next command of the first slot has.
    pub(crate) fn next_of_first(&self) -> u64 {
        self.last[0] + 1
    }

    /// The lowest free slot and the sequence that its next command has. Low ones first, so that a session that does
    /// one thing at a time has one slot row.
    pub(crate) fn take(&mut self) -> Option<(u8, u64)> {
        let slot = self.free.pop_first()?;
        Some((slot, self.last[usize::from(slot)] + 1))
    }

    /// The command of a taken slot was answered under its sequence.
    pub(crate) fn answered(&mut self, slot: u8) {
        self.last[usize::from(slot)] += 1;
        self.give_back(slot);
    }

    /// The command of a taken slot was refused before it was logged: its sequence was not used.
    pub(crate) fn unused(&mut self, slot: u8) {
        self.give_back(slot);
    }

    fn give_back(&mut self, slot: u8) {
        assert!(self.free.insert(slot), "a free slot was given back");
    }
}
