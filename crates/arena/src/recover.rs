//! An arena is found again after its engine died.

use std::os::fd::OwnedFd;

use checksum::crc32c;
use types::{Dseq, Ino};

use crate::arena::{Arena, State};
use crate::chunks::Chunks;
use crate::index::{Index, Record};
use crate::journal::Journal;
use crate::late_errors::LateErrors;
use crate::layout::{
    self, HEAD, HEADER, Header, LayoutError, STATE_ACCEPTED, STATE_FREED, STATE_NONE, STATE_TIMES_SET,
};
use crate::memory::{Memory, MemoryFailed};
use crate::recover_journal::FoundJournal;

/// Why an arena was not found again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoverError {
    /// The memory is not an arena of this release.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// An entry, a mark or the slot of the journal is not what was written: what lies behind it cannot be found, and an
    /// order with a gap is none.
    #[error("the arena's journal is damaged at {at:#x}")]
    JournalDamaged {
        /// Where in the arena, in bytes.
        at: u64,
    },
    /// The memory cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryFailed),
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// Live records.
    pub records: usize,
    /// Records that had been accepted and are not what was written. They are left out; their bytes are lost.
    pub damaged: Vec<DamagedRecord>,
    /// What was run and may not be at the service.
    pub journal: FoundJournal,
}

/// An accepted record that is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamagedRecord {
    /// Where its head lies in the arena, in bytes.
    pub at: u64,
    /// Which write it was, if its head can be trusted. If not, what lies behind it in its chunk is lost too.
    pub record: Option<(Ino, Dseq)>,
}

/// What a walk over one chunk met.
#[derive(Default)]
struct Walk {
    tail: u64,
    live: Vec<Record>,
    damaged: Vec<DamagedRecord>,
}

impl Arena {
    /// Rebuilds an arena from its memory, whatever its engine was doing when it died. That engine must be dead.
    ///
    /// Records that were mapped just before may be live again: compare each inode's with its row's `(grant, applied)`.
    pub fn recover(fd: OwnedFd) -> Result<(Arena, Recovery), RecoverError> {
        let memory = Memory::from_fd(fd)?;
        if memory.len() < HEADER as u64 {
            return Err(LayoutError::NotAnArena.into());
        }
        let mut bytes = [0; HEADER];
        memory.read(0, &mut bytes)?;
        let header = Header::from_bytes(&bytes, memory.len())?;
        let (journal, found) = Journal::recover(memory.clone())?;
        let mut state = State {
            next: Dseq(header.dseq_below),
            chunks: Chunks::new(header.geometry),
            index: Index::default(),
            errors: LateErrors::recover(&memory)?,
            header,
            memory,
        };
        // Before this engine does anything: what it numbers must not be taken for the work of an earlier one.
        state.set_header(Header { engines_before: header.engines_before + 1, ..header })?;
        let recovery = Recovery { journal: found, ..state.find_records()? };
        Ok((Arena::from_state(state, journal), recovery))
    }
}

impl State {
    fn find_records(&mut self) -> Result<Recovery, MemoryFailed> {
        let mut live = Vec::new();
        let mut recovery = Recovery::default();
        for chunk in 0..self.header.geometry.chunks() {
            let walk = self.walk(chunk)?;
            recovery.damaged.extend(&walk.damaged);
            if walk.live.is_empty() {
                // Freed, spoilt or never used: zeros again before anything is laid here.
                self.memory.punch(self.header.geometry.chunk_at(chunk), self.header.geometry.stride())?;
            } else {
                self.chunks.found(chunk, walk.tail, walk.live.len() as u32);
                live.extend(walk.live);
            }
        }
        live.sort_by_key(|record| record.dseq);
        let mut last = Dseq(0);
        for record in live {
            if record.dseq > last {
                last = record.dseq;
                self.index.push(record);
            } else {
                recovery
                    .damaged
                    .push(DamagedRecord { at: record.at, record: Some((record.ino, record.dseq)) });
                if let Some(chunk) = self.chunks.drop_record(record.at) {
                    self.punch(chunk)?;
                }
            }
        }
        recovery.records = self.index.count();
        Ok(recovery)
    }

    /// Follows the records of a chunk to the first place where none was accepted.
    fn walk(&self, chunk: u32) -> Result<Walk, MemoryFailed> {
        let geometry = self.header.geometry;
        let from = geometry.chunk_at(chunk);
        let mut walk = Walk::default();
        while walk.tail + HEAD <= geometry.stride() {
            let at = from + walk.tail;
            let mut head = [0; HEAD as usize];
            self.memory.read(at, &mut head)?;
            let state = layout::state(&head);
            if state == STATE_NONE {
                break;
            }
            let sound = layout::head_from_bytes(&head, at).filter(|(record, _)| {
                let size = layout::footprint(record.len);
                let fits = record.len > 0 && walk.tail + size <= geometry.stride();
                fits && record.dseq.0 < self.header.dseq_below && record.offset <= i64::MAX as u64
            });
            let Some((record, crc)) = sound else {
                walk.damaged.push(DamagedRecord { at, record: None });
                break;
            };
            walk.tail += layout::footprint(record.len);
            if state == STATE_FREED {
                continue;
            }
            let mut data = vec![0; record.len as usize];
            self.memory.read(record.data_at(), &mut data)?;
            if matches!(state, STATE_ACCEPTED | STATE_TIMES_SET) && crc32c(&data) == crc {
                walk.live.push(record);
            } else {
                walk.damaged.push(DamagedRecord { at, record: Some((record.ino, record.dseq)) });
            }
        }
        Ok(walk)
    }
}
