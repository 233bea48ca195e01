//! An engine: its memory, which dies with it, and what it does in the background.

use crate::arena::{Arena, BACKGROUND, Record, SLOTS};
use crate::file::Answer;
use crate::kernel::Unique;
use crate::scope::{Mistake, Scope};
use crate::service::{Command, Message, Reply, Rows};
use crate::state::State;

/// How far an engine's start has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Phase {
    /// Waits for the death of the one before, has done nothing.
    Waits,
    /// Busy slots are sent again.
    Sent,
    /// Rows are here, with the journal over them.
    Fetched,
    /// The resend was asked for; reads requests.
    Serves,
}

/// A request in an engine's hands.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Task {
    pub(crate) unique: Unique,
    pub(crate) at: At,
}

/// What is done next for a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum At {
    /// Copy it into its request slot.
    Copy,
    /// It came again: look whether it was run.
    Match,
    /// Run it.
    Begin,
    /// Store the slot of a command that was sent.
    Slot(usize),
    /// Wait for the reply in this slot.
    Wait(usize),
    /// Wait until the records up to this one are mapped.
    Map(u8),
    /// Wait until the journal up to this entry is settled.
    Settle(u8),
    /// Store the answer in the request slot.
    Keep(Answer),
    /// Tell the kernel.
    Tell(Answer),
    /// Store an effect that was answered already.
    Late,
    /// Free the request slot.
    Clear,
}

/// The memory of an engine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Engine {
    pub(crate) number: u8,
    pub(crate) phase: Phase,
    pub(crate) tasks: Vec<Task>,
    /// Replies to what is in the slots.
    pub(crate) replies: [Option<Reply>; SLOTS],
    /// The last journal entry, or the record, that the background slot was last taken for.
    pub(crate) in_flight: u8,
    /// Rows as they will be when the journal is settled; on shared mounts only what this engine learned by itself.
    pub(crate) rows: Rows,
}

impl Engine {
    pub(crate) fn new(number: u8, rows: Rows) -> Engine {
        let phase = if number == 0 { Phase::Serves } else { Phase::Waits };
        Engine { number, phase, tasks: Vec::new(), replies: [None; SLOTS], in_flight: 0, rows }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.phase == Phase::Serves
    }

    /// The message with what a slot holds.
    pub(crate) fn message(&self, arena: &Arena, slot: usize) -> Message {
        let (unique, command) = arena.slots[slot].busy.clone().expect("only what is in a slot is sent");
        Message { engine: self.number, slot, seq: arena.slots[slot].seq, unique, command }
    }
}

/// What an engine does by itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Chore {
    /// The first unmapped record's data is sealed, and its commit is in the background slot and sent, or in the journal.
    Flush,
    /// The unsettled journal is in the background slot, and sent.
    Gather,
    /// The reply to it is here: note what it settles.
    Note,
    /// The background slot is free again.
    Done,
    /// This record is freed.
    FreeRecord(usize),
    /// The first journal entry is freed.
    FreeEntry,
    /// This command slot is freed.
    FreeSlot(usize),
}

/// What engine `of` could do by itself now.
pub(crate) fn chores(state: &State, scope: &Scope, of: usize) -> Vec<Chore> {
    let (engine, arena) = (&state.engines[of], &state.arena);
    let (is_serving, background) = (engine.phase == Phase::Serves, &arena.slots[BACKGROUND]);
    let mut chores = Vec::new();
    let is_noted = engine.in_flight <= if scope.is_exclusive() { arena.settled } else { engine.rows.applied };
    match (&background.busy, engine.replies[BACKGROUND]) {
        (Some(_), Some(_)) if is_noted || scope.makes(Mistake::SlotBeforeMark) => chores.push(Chore::Done),
        (Some(_), Some(_)) => chores.push(Chore::Note),
        (None, Some(_)) => chores.push(Chore::Note),
        (None, None) if is_serving && scope.is_exclusive() && arena.unsettled().next().is_some() => {
            chores.push(Chore::Gather);
        }
        _ => {}
    }
    if !is_serving {
        return chores;
    }
    let can_flush = scope.is_exclusive() || background.busy.is_none();
    if can_flush && arena.first_unmapped(engine.rows.applied).is_some() {
        chores.push(Chore::Flush);
    }
    let mapped = |(_, record): &(usize, &Record)| record.dseq <= engine.rows.applied;
    let may_free_record = |(_, record): &(usize, &Record)| {
        scope.makes(Mistake::RecordFreedEarly) || !can_come_again(state, scope, of, record.unique)
    };
    let records = arena.records.iter().enumerate().filter(mapped).filter(may_free_record);
    chores.extend(records.map(|(index, _)| Chore::FreeRecord(index)));
    if let Some(entry) = arena.journal.first().filter(|entry| entry.jseq <= arena.settled)
        && (entry.is_commit()
            || scope.makes(Mistake::EntryFreedEarly)
            || !can_come_again(state, scope, of, entry.unique))
    {
        chores.push(Chore::FreeEntry);
    }
    for slot in 0..BACKGROUND {
        if let Some((unique, _)) = arena.slots[slot].busy
            && engine.replies[slot].is_some()
            && !engine.tasks.iter().any(|task| task.at == At::Wait(slot))
            && (scope.makes(Mistake::SlotFreedEarly) || !can_come_again(state, scope, of, unique))
        {
            chores.push(Chore::FreeSlot(slot));
        }
    }
    chores
}

/// Whether a request may be given to this engine or a later one again without a word of its answer: then what shows
/// that it was run must stay.
///
/// With RESEND that is until its reply is out. A new engine knows which replies are out once it has read all that was
/// resent. Without RESEND it is until the request slot has the answer.
fn can_come_again(state: &State, scope: &Scope, of: usize, unique: Unique) -> bool {
    if scope.resend {
        let engine = &state.engines[of];
        return state.kernel.has_resent() || engine.tasks.iter().any(|task| task.unique == unique);
    }
    state.arena.requests.iter().any(|request| request.unique == unique && request.answer.is_none())
}

/// Does one chore.
pub(crate) fn do_chore(state: &mut State, scope: &Scope, of: usize, chore: Chore) {
    let State { engines, arena, wire, .. } = state;
    let engine = &mut engines[of];
    match chore {
        Chore::Flush => {
            let record = arena.first_unmapped(engine.rows.applied).expect("there is one");
            let command = Command::Commit { value: record.value, dseq: record.dseq, grant: record.grant };
            if scope.is_exclusive() {
                engine.rows.apply(&command);
                arena.append(record.unique, command);
            } else {
                arena.take_slot(BACKGROUND, record.unique, command);
                engine.in_flight = record.dseq;
                wire.push(engine.message(arena, BACKGROUND));
            }
        }
        Chore::Gather => {
            let entries = arena.unsettled().cloned().collect();
            arena.take_slot(BACKGROUND, 0, Command::Batch(entries));
            engine.in_flight = arena.last_jseq;
            wire.push(engine.message(arena, BACKGROUND));
        }
        Chore::Note => {
            if scope.is_exclusive() {
                arena.settled = engine.in_flight;
            } else {
                engine.rows.applied = engine.in_flight;
            }
            if arena.slots[BACKGROUND].busy.is_none() {
                engine.replies[BACKGROUND] = None;
            }
        }
        Chore::Done => {
            arena.slots[BACKGROUND].busy = None;
            if !scope.makes(Mistake::SlotBeforeMark) {
                engine.replies[BACKGROUND] = None;
            }
        }
        Chore::FreeRecord(index) => {
            arena.records.remove(index);
        }
        Chore::FreeEntry => {
            arena.journal.remove(0);
        }
        Chore::FreeSlot(slot) => {
            arena.slots[slot].busy = None;
            engine.replies[slot] = None;
        }
    }
}
