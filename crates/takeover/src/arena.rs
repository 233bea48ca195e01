//! Shared memory that outlives engines. Each change here is one store.

use crate::file::Answer;
use crate::kernel::Unique;
use crate::scope::APPS;
use crate::service::Command;

/// The order of records.
pub(crate) type Dseq = u8;

/// Command slots: one for each application, one for the background.
pub(crate) const SLOTS: usize = APPS + 1;

/// Request slots: nothing is read before one is free.
pub(crate) const REQUESTS: usize = APPS;

/// The slot of flushes and batches.
pub(crate) const BACKGROUND: usize = APPS;

/// A request that was read, for kernels that cannot send it again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct RequestSlot {
    pub(crate) unique: Unique,
    /// Its answer, once its effect is in the arena or at the service.
    pub(crate) answer: Option<Answer>,
}

/// An accepted write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Record {
    pub(crate) dseq: Dseq,
    pub(crate) unique: Unique,
    pub(crate) grant: u8,
    pub(crate) value: u8,
}

/// A place for one command in flight. What was sent is not changed until its reply is known.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) seq: u8,
    pub(crate) busy: Option<(Unique, Command)>,
}

/// A command that was run here and answered. Commits have the `unique` of the write that they map.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entry {
    pub(crate) jseq: u8,
    pub(crate) unique: Unique,
    pub(crate) command: Command,
}

impl Entry {
    pub(crate) fn is_commit(&self) -> bool {
        matches!(self.command, Command::Commit { .. })
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Arena {
    /// In the order of `unique`, at most [`REQUESTS`].
    pub(crate) requests: Vec<RequestSlot>,
    pub(crate) records: Vec<Record>,
    pub(crate) last_dseq: Dseq,
    pub(crate) slots: [Slot; SLOTS],
    pub(crate) journal: Vec<Entry>,
    pub(crate) last_jseq: u8,
    /// Entries up to it are at the service.
    pub(crate) settled: u8,
}

impl Arena {
    pub(crate) fn take_request_slot(&mut self, unique: Unique) {
        self.requests.push(RequestSlot { unique, answer: None });
        self.requests.sort_by_key(|slot| slot.unique);
    }

    /// The request slot of a request.
    pub(crate) fn request_slot(&mut self, unique: Unique) -> Option<&mut RequestSlot> {
        self.requests.iter_mut().find(|slot| slot.unique == unique)
    }

    /// The answer that is kept in a request slot.
    pub(crate) fn kept_answer(&self, unique: Unique) -> Option<Answer> {
        self.requests.iter().find(|slot| slot.unique == unique)?.answer
    }

    pub(crate) fn accept(&mut self, unique: Unique, grant: u8, value: u8) {
        self.last_dseq += 1;
        self.records.push(Record { dseq: self.last_dseq, unique, grant, value });
    }

    pub(crate) fn append(&mut self, unique: Unique, command: Command) {
        self.last_jseq += 1;
        self.journal.push(Entry { jseq: self.last_jseq, unique, command });
    }

    /// Takes a slot for a command. The slot's sequence moves in the same store.
    pub(crate) fn take_slot(&mut self, slot: usize, unique: Unique, command: Command) {
        let slot = &mut self.slots[slot];
        slot.seq += 1;
        slot.busy = Some((unique, command));
    }

    pub(crate) fn free_slot(&self) -> Option<usize> {
        (0..BACKGROUND).find(|slot| self.slots[*slot].busy.is_none())
    }

    pub(crate) fn slot_of(&self, unique: Unique) -> Option<usize> {
        (0..BACKGROUND)
            .find(|slot| self.slots[*slot].busy.as_ref().is_some_and(|(owner, _)| *owner == unique))
    }

    /// The first record that is in no map: they are mapped in their order.
    pub(crate) fn first_unmapped(&self, applied: Dseq) -> Option<Record> {
        self.records.iter().copied().find(|record| record.dseq > applied)
    }

    /// The value that a read finds: records lie over the map.
    pub(crate) fn over(&self, mapped: u8, applied: Dseq) -> u8 {
        self.records.last().filter(|record| record.dseq > applied).map_or(mapped, |record| record.value)
    }

    /// Entries that may not be at the service.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = &Entry> {
        self.journal.iter().filter(|entry| entry.jseq > self.settled)
    }

    /// Whether the journal has the command of a request. Commits are of many writes, and of none.
    pub(crate) fn has_entry_of(&self, unique: Unique) -> bool {
        self.journal.iter().any(|entry| entry.unique == unique && !entry.is_commit())
    }

    pub(crate) fn has_record_of(&self, unique: Unique) -> bool {
        self.records.iter().any(|record| record.unique == unique)
    }

    /// Whether the effect of a request reaches the service from here, whatever becomes of the engine.
    pub(crate) fn holds(&self, unique: Unique) -> bool {
        self.has_record_of(unique)
            || self.unsettled().any(|entry| entry.unique == unique)
            || self.slots.iter().any(|slot| slot.busy.as_ref().is_some_and(|(owner, _)| *owner == unique))
    }

    /// Whether nothing is left: no entry leaks.
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
            && self.records.is_empty()
            && self.journal.is_empty()
            && self.slots.iter().all(|slot| slot.busy.is_none())
    }
}
