//! The commands that an exclusive mount has run itself, and the batch of them that is on its way to the service.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::entry::{self, END_MARK, IN_ORDER, WITHDRAWN, WRAPS};
use crate::layout::{JOURNAL, PAGE, SLOTS};
use crate::memory::{Memory, MemoryFailed};
use crate::ring::{RING_END, RING_START, Ring};

/// Where the marks lie: what is first in the ring, and what is at the service.
pub(crate) const HEAD_MARK: u64 = JOURNAL.0;
pub(crate) const SETTLED_MARK: u64 = JOURNAL.0 + 64;

/// A command to put into the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The kernel's number of the request whose effect it is, without its resend bit; 0: of none.
    pub unique: u64,
    /// The command, as the caller reads it again.
    pub command: &'a [u8],
    /// What the request is answered, if that is known; else empty.
    pub reply: &'a [u8],
    /// Bytes that a reply may take that comes later; at least those of `reply`.
    pub reply_room: usize,
}

/// Why a command is not in the order. Nothing of it shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no room until entries are settled and answered.
    #[error("the journal is full")]
    Full,
    /// There is no memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryFailed),
}

/// The entry of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RanEntry {
    /// Its place in the order.
    pub jseq: u64,
    /// What the request is to be answered; `None` until it is known.
    pub reply: Option<Vec<u8>>,
}

/// See the module. Entries have consecutive numbers, `jseq`, from 1 on. All methods can be called from any thread and
/// each is one store, or leaves nothing to be seen until its last.
#[derive(Debug)]
pub struct Journal(Mutex<State>);

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) memory: Memory,
    pub(crate) ring: Ring,
    /// The entries from the head on.
    pub(crate) held: VecDeque<Held>,
    /// The `jseq` of the first of them.
    pub(crate) first: u64,
    pub(crate) settled: u64,
    /// Requests that have an entry here and may come again.
    pub(crate) awaited: HashMap<u64, u64>,
    /// Where entries are put together.
    pub(crate) scratch: Vec<u8>,
}

/// An entry in the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) at: u64,
    pub(crate) command: u32,
    pub(crate) room: u32,
    /// 0 once its request cannot come again.
    pub(crate) unique: u64,
}

impl Journal {
    /// An empty journal, and a free slot that was never used. Takes the pages of the marks and of the slot.
    pub(crate) fn create(mut memory: Memory) -> Result<Journal, MemoryFailed> {
        memory.write(SLOTS.0, &entry::slot_word(0, false).to_le_bytes(), &[])?;
        memory.write(SETTLED_MARK, &entry::mark(0, 0), &[])?;
        memory.write(HEAD_MARK, &entry::mark(RING_START, 1), &[])?;
        Ok(Journal::from_state(State {
            memory,
            ring: Ring { head: RING_START, tail: RING_START },
            held: VecDeque::new(),
            first: 1,
            settled: 0,
            awaited: HashMap::new(),
            scratch: Vec::new(),
        }))
    }

    pub(crate) fn from_state(state: State) -> Journal {
        Journal(Mutex::new(state))
    }

    /// Puts a command behind all others, and answers its `jseq`. On return it survives the engine.
    ///
    /// # Panics
    /// If the whole is longer than 1 MiB, or the reply than its room.
    pub fn append(&self, entry: Entry<'_>) -> Result<u64, AppendError> {
        self.state().append(entry)
    }

    /// Whether a command of so many bytes, its reply's room included, would find no room now.
    pub fn is_full_for(&self, bytes: usize) -> bool {
        let (mut state, size) = (self.state(), entry::size(bytes, 0) + 8);
        // If the mark cannot be moved the next try will.
        state.ring.place(size).is_none() && (state.advance().is_err() || state.ring.place(size).is_none())
    }

    /// The reply to a command that only the service could run. To be stored before the command is settled.
    ///
    /// # Panics
    /// If it is longer than the room that the entry has for it, or the entry is not there.
    pub fn set_reply(&self, jseq: u64, reply: &[u8]) -> Result<(), MemoryFailed> {
        let mut state = self.state();
        let held = state.held_at(jseq);
        assert!(reply.len() <= held.room as usize, "a reply is longer than its room");
        state.memory.write(held.at + entry::reply_at(held.command as usize), reply, &[])?;
        state.memory.write(held.at + entry::REPLY_AT, &entry::reply_head(reply), &[])
    }

    /// A command was refused after all: its place in the order stays and does nothing, and its request is not known here
    /// any more. It must not be in the range of a busy slot.
    ///
    /// # Panics
    /// If the entry is not there.
    pub fn withdraw(&self, jseq: u64) -> Result<(), MemoryFailed> {
        let mut state = self.state();
        let held = state.held_at(jseq);
        state.memory.write(held.at, &WITHDRAWN.to_le_bytes(), &[])?;
        state.forget_unique(jseq);
        Ok(())
    }

    /// The entries `first` to `last` are sent under the sequence `seq`: to be called before they are.
    pub fn set_busy(&self, seq: u64, first: u64, last: u64) -> Result<(), MemoryFailed> {
        self.state().memory.write(SLOTS.0, &entry::slot(seq, first, last), &[])
    }

    /// The last sequence that was used is `seq`, and nothing is on its way: its reply is here and what it settles is
    /// [`Journal::settle`]d, or the one after it was refused without being logged.
    pub fn set_free(&self, seq: u64) -> Result<(), MemoryFailed> {
        self.state().memory.write(SLOTS.0, &entry::slot_word(seq, false).to_le_bytes(), &[])
    }

    /// All entries up to `last` are at the service.
    pub fn settle(&self, last: u64) -> Result<(), MemoryFailed> {
        let mut state = self.state();
        state.memory.write(SETTLED_MARK, &entry::mark(0, last), &[])?;
        state.settled = last;
        Ok(())
    }

    /// Gives room back: the head moves over entries that are settled and whose requests cannot come again.
    pub fn reclaim(&self) -> Result<(), MemoryFailed> {
        self.state().advance()
    }

    /// A request has its reply, or will not come again for another reason. Whether it had an entry.
    pub fn answered(&self, unique: u64) -> bool {
        let mut state = self.state();
        let entry = state.awaited.get(&unique).copied();
        entry.inspect(|jseq| state.forget_unique(*jseq)).is_some()
    }

    /// No request of an entry up to `last` can come again, but for these.
    pub fn answered_through(&self, last: u64, but: &[u64]) {
        let mut state = self.state();
        let State { held, awaited, first, .. } = &mut *state;
        awaited.retain(|unique, jseq| *jseq > last || but.contains(unique));
        for (_, held) in (*first..=last).zip(held) {
            held.unique = if but.contains(&held.unique) { held.unique } else { 0 };
        }
    }

    /// The entry of a request: it was run and is to be answered, not run again.
    pub fn find_unique(&self, unique: u64) -> Result<Option<RanEntry>, MemoryFailed> {
        let state = self.state();
        let Some(&jseq) = state.awaited.get(&unique) else { return Ok(None) };
        let held = state.held_at(jseq);
        let mut head = [0; 8];
        state.memory.read(held.at + entry::REPLY_AT, &mut head)?;
        let len = crate::layout::u32_at(&head, 0) as usize;
        let mut reply = vec![0; len];
        state.memory.read(held.at + entry::reply_at(held.command as usize), &mut reply)?;
        Ok(Some(RanEntry { jseq, reply: (len > 0).then_some(reply) }))
    }

    /// The last entry that is at the service, with all before it.
    pub fn settled(&self) -> u64 {
        self.state().settled
    }

    /// The last entry, or what would be the one before the first.
    pub fn last(&self) -> u64 {
        let state = self.state();
        state.first + state.held.len() as u64 - 1
    }

    /// How many entries the ring holds.
    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, entry: Entry<'_>) -> Result<u64, AppendError> {
        let Entry { unique, command, reply, reply_room: room } = entry;
        let size = entry::size(command.len(), room);
        assert!(size <= entry::ENTRY_MAX && reply.len() <= room, "no command is so long");
        let at = match self.ring.place(size) {
            Some(at) => at,
            None => {
                self.advance()?;
                self.ring.place(size).ok_or(AppendError::Full)?
            }
        };
        let jseq = self.first + self.held.len() as u64;
        // What shows it: its state, or the word that leads to it where the ring's end is passed.
        let wraps = at != self.ring.tail;
        let is_one_store = at / PAGE == (at + size + END_MARK.len() as u64 - 1) / PAGE;
        let is_last_store = !wraps && !is_one_store;
        let state = if is_last_store { 0 } else { IN_ORDER };
        entry::write(&mut self.scratch, (state, at, jseq, unique), command, reply, room);
        self.memory.write(at, &self.scratch, &[])?;
        if wraps {
            self.memory.write(self.ring.tail, &WRAPS.to_le_bytes(), &[])?;
        } else if is_last_store {
            self.memory.write(at, &IN_ORDER.to_le_bytes(), &[])?;
        }
        self.ring.tail = at + size;
        self.held.push_back(Held { at, command: command.len() as u32, room: room as u32, unique });
        if unique != 0 {
            self.awaited.insert(unique, jseq);
        }
        Ok(jseq)
    }

    /// Moves the head over what nobody needs any more.
    pub(crate) fn advance(&mut self) -> Result<(), MemoryFailed> {
        let unsettled = self.settled + 1;
        let settled = usize::try_from(unsettled.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let done = self.held.iter().take(settled).take_while(|held| held.unique == 0).count();
        if done == 0 {
            return Ok(());
        }
        let (first, head) =
            (self.first + done as u64, self.held.get(done).map_or(self.ring.tail, |held| held.at));
        self.memory.write(HEAD_MARK, &entry::mark(head, first), &[])?;
        self.held.drain(..done);
        (self.first, self.ring.head) = (first, head);
        Ok(())
    }

    fn held_at(&self, jseq: u64) -> Held {
        let index = jseq.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        *index.and_then(|index| self.held.get(index)).expect("an entry that is in the journal")
    }

    fn forget_unique(&mut self, jseq: u64) {
        if let Some(held) = self.held.get_mut((jseq - self.first) as usize) {
            self.awaited.remove(&held.unique);
            held.unique = 0;
        }
    }
}

/// Whether a place can hold an entry's head or end mark.
pub(crate) fn is_place(at: u64) -> bool {
    (RING_START..=RING_END - END_MARK.len() as u64).contains(&at) && at.is_multiple_of(8)
}
