//! The journal of an engine that died.

use std::collections::{HashMap, VecDeque};

use crate::entry::{self, IN_ORDER, SLOT, WITHDRAWN, WRAPS};
use crate::journal::{HEAD_MARK, Held, Journal, SETTLED_MARK, State, is_place};
use crate::layout::{JOURNAL, SLOTS, u32_at};
use crate::memory::Memory;
use crate::recover::RecoverError;
use crate::ring::{RING_START, Ring};

/// What an engine had run itself, and what of it was on its way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FoundJournal {
    /// Entries whose requests may come again or that may not be at the service, in their order, without a gap.
    pub entries: Vec<FoundEntry>,
    /// Entries up to this one are at the service.
    pub settled: u64,
    /// The last sequence of the slot that was used.
    pub seq: u64,
    /// The first and the last entry of what was sent under it, if its fate is not known. It may have arrived, and is to be
    /// sent again with the same sequence and the same bytes before anything else is.
    pub busy: Option<(u64, u64)>,
}

/// An entry of a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundEntry {
    /// Its place in the order.
    pub jseq: u64,
    /// The request whose effect it is; 0: of none.
    pub unique: u64,
    /// The command.
    pub command: Vec<u8>,
    /// It was taken back: it keeps its place and does nothing.
    pub is_withdrawn: bool,
}

impl Journal {
    /// Rebuilds a journal from its memory, whatever its engine was doing when it died.
    pub(crate) fn recover(memory: Memory) -> Result<(Journal, FoundJournal), RecoverError> {
        let damaged = |at| RecoverError::JournalDamaged { at };
        let mut bytes = vec![0; JOURNAL.1 as usize];
        memory.read(JOURNAL.0, &mut bytes)?;
        let mark = |at: u64| entry::read_mark(&bytes[(at - JOURNAL.0) as usize..]).ok_or(damaged(at));
        let (head, first) = mark(HEAD_MARK)?;
        let (_, settled) = mark(SETTLED_MARK)?;
        if !is_place(head) || first == 0 {
            return Err(damaged(HEAD_MARK));
        }
        let (mut entries, mut held, mut awaited) = (Vec::new(), VecDeque::new(), HashMap::new());
        let (mut at, mut wrapped) = (head, false);
        loop {
            let rest = &bytes[(at - JOURNAL.0) as usize..];
            match u32_at(rest, 0) {
                0 => break,
                WRAPS if !wrapped => {
                    (at, wrapped) = (RING_START, true);
                    // It shows only once what it leads to is whole.
                    if u32_at(&bytes[(at - JOURNAL.0) as usize..], 0) == 0 {
                        return Err(damaged(at));
                    }
                    continue;
                }
                IN_ORDER | WITHDRAWN => {}
                _ => return Err(damaged(at)),
            }
            let jseq = first + held.len() as u64;
            let found = entry::read(rest, at, jseq).ok_or(damaged(at))?;
            let unique = if found.is_withdrawn { 0 } else { found.unique };
            let (command, is_withdrawn) = (found.command.to_vec(), found.is_withdrawn);
            held.push_back(Held { at, command: command.len() as u32, room: found.room, unique });
            if unique != 0 {
                awaited.insert(unique, jseq);
            }
            at += found.size;
            if wrapped && at >= head {
                return Err(damaged(at));
            }
            entries.push(FoundEntry { jseq, unique, command, is_withdrawn });
        }
        let last = first + held.len() as u64 - 1;
        // The head does not pass what is not settled.
        if settled < first - 1 || settled > last {
            return Err(damaged(SETTLED_MARK));
        }
        let mut slot = [0; SLOT];
        memory.read(SLOTS.0, &mut slot)?;
        let (seq, busy) = entry::read_slot(&slot).ok_or(damaged(SLOTS.0))?;
        // What is on its way begins where what is settled ends. It may be settled already, and not freed.
        if busy.is_some_and(|(from, to)| from > to || to > last || (from != settled + 1 && to != settled)) {
            return Err(damaged(SLOTS.0));
        }
        let busy = busy.filter(|(_, to)| *to > settled);
        let (ring, scratch) = (Ring { head, tail: at }, Vec::new());
        let state = State { memory, ring, held, first, settled, awaited, scratch };
        Ok((Journal::from_state(state), FoundJournal { entries, settled, seq, busy }))
    }
}
