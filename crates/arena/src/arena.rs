//! An arena: writes are accepted, shown, and freed when they are in the rows.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use checksum::crc32c;
use types::{Dseq, Errno, Grant, Ino, Nanos};

use crate::chunks::Chunks;
use crate::index::{Index, Record, Summary};
use crate::journal::Journal;
use crate::late_errors::{LateError, LateErrors};
use crate::layout::{self, Geometry, Header, Owner, STATE_ACCEPTED, STATE_FREED, STATE_TIMES_SET};
use crate::memory::{Memory, MemoryFailed};

/// How many dseqs one write of the header sets aside.
const DSEQ_STEP: u64 = 1 << 16;
/// The most bytes of one record.
const RECORD_MAX: usize = 1 << 20;

/// How large an arena is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// The most bytes of memory that records may take, their heads included; whole pages, at least two chunks.
    pub capacity: u64,
    /// Bytes of a chunk, the unit in which memory is given back: whole pages, at most 64 MiB. A record is at most as
    /// long, and at most 1 MiB.
    pub chunk_bytes: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { capacity: 64 << 20, chunk_bytes: 1 << 20 }
    }
}

/// A write to accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Write<'a> {
    /// The file.
    pub ino: Ino,
    /// The write grant that allows it.
    pub grant: Grant,
    /// First byte in the file.
    pub offset: u64,
    /// The kernel's number of the request, without its resend bit; 0 for none.
    pub unique: u64,
    /// Now.
    pub time: Nanos,
    /// Whoever writes may not keep set-id bits and capabilities.
    pub kill_priv: bool,
    /// The bytes, 1 to 1 MiB.
    pub data: &'a [u8],
}

/// Why an arena was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CreateError {
    /// The sizes are out of their ranges.
    #[error("an arena of {} bytes in chunks of {} cannot be", .0.capacity, .0.chunk_bytes)]
    Options(Options),
    /// There is no memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryFailed),
}

/// Why a write was not accepted. Nothing of it shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AcceptError {
    /// There is no room until records are freed (see [`Arena::on_freed`]). At least one record is live.
    #[error("the arena is full")]
    ArenaFull,
    /// A record holds 1 byte to 1 MiB, and no more than a chunk.
    #[error("a record of {0} bytes cannot be")]
    Length(usize),
    /// It reaches over the largest offset of a file, 2^63 - 1.
    #[error("a write at {0} reaches over the end of every file")]
    Offset(u64),
    /// There is no memory for it, although the arena has room.
    #[error(transparent)]
    Memory(#[from] MemoryFailed),
}

/// The accepted writes of one mount. All methods can be called from any thread and block only on memory copies.
pub struct Arena {
    pub(crate) state: RwLock<State>,
    journal: Arc<Journal>,
    fd: Arc<OwnedFd>,
    owner: Owner,
    geometry: Geometry,
    freed: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// One writer at a time: so the only record that can be incomplete after a crash is the last of the open chunk.
pub(crate) struct State {
    pub(crate) memory: Memory,
    pub(crate) header: Header,
    pub(crate) next: Dseq,
    pub(crate) chunks: Chunks,
    pub(crate) index: Index,
    pub(crate) errors: LateErrors,
}

impl Arena {
    /// Makes an empty arena. It takes no memory but for its header, the journal's and the slot.
    pub fn create(owner: Owner, options: Options) -> Result<Arena, CreateError> {
        let geometry = Geometry { capacity: options.capacity, chunk_bytes: options.chunk_bytes };
        if !geometry.is_sound() {
            return Err(CreateError::Options(options));
        }
        let mut memory = Memory::create(geometry.total())?;
        let header = Header { owner, init_flags: 0, dseq_below: 1, engines_before: 0, geometry };
        let journal = Journal::create(memory.clone())?;
        memory.write(0, &header.to_bytes(), &[])?;
        let (chunks, index) = (Chunks::new(geometry), Index::default());
        let errors = LateErrors::default();
        Ok(Arena::from_state(State { memory, header, next: Dseq(1), chunks, index, errors }, journal))
    }

    pub(crate) fn from_state(state: State, journal: Journal) -> Arena {
        let Header { owner, geometry, .. } = state.header;
        let fd = state.memory.fd();
        let journal = Arc::new(journal);
        Arena { state: RwLock::new(state), journal, fd, owner, geometry, freed: OnceLock::new() }
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// The commands that the mount has run itself.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// How many engines have had it before this one: what each of them alone has numbered can be told apart by it.
    pub fn engines_before(&self) -> u64 {
        self.read().header.engines_before
    }

    /// The flags of the kernel's FUSE_INIT, as [`Arena::set_init_flags`] kept them; 0 before.
    pub fn init_flags(&self) -> u64 {
        self.read().header.init_flags
    }

    /// Keeps the flags of the kernel's FUSE_INIT for the next engine.
    pub fn set_init_flags(&self, init_flags: u64) -> Result<(), MemoryFailed> {
        let mut state = self.write();
        let header = Header { init_flags, ..state.header };
        state.set_header(header)
    }

    /// Copies a write into the arena. On return it survives the engine and shows in [`Arena::overlay`].
    pub fn accept(&self, write: Write<'_>) -> Result<Dseq, AcceptError> {
        let Write { ino, grant, offset, unique, time, kill_priv, data } = write;
        let longest = RECORD_MAX.min(self.geometry.chunk_bytes as usize);
        if !(1..=longest).contains(&data.len()) {
            return Err(AcceptError::Length(data.len()));
        }
        let len = data.len() as u32;
        if offset > i64::MAX as u64 - u64::from(len) {
            return Err(AcceptError::Offset(offset));
        }
        let crc = crc32c(data);
        let mut state = self.write();
        let dseq = state.next;
        if dseq.0 >= state.header.dseq_below {
            let header = Header { dseq_below: dseq.0 + DSEQ_STEP, ..state.header };
            state.set_header(header)?;
        }
        let size = layout::footprint(len);
        let at = state.place(size)?.ok_or(AcceptError::ArenaFull)?;
        let record = Record { ino, grant, dseq, offset, len, unique, time, kill_priv, times_set: false, at };
        if let Err(failed) = state.lay(&record, crc, data) {
            state.give_up(at, size);
            return Err(failed.into());
        }
        state.next = Dseq(dseq.0 + 1);
        state.chunks.laid(at, size);
        state.index.push(record);
        Ok(dseq)
    }

    /// The live records of an inode up to `through`, in dseq order.
    pub fn records(&self, ino: Ino, through: Dseq) -> Vec<Record> {
        self.read().index.records(ino).take_while(|record| record.dseq <= through).copied().collect()
    }

    /// Copies the bytes of a record into `buf`, which is as long. `false` if it is live no more.
    ///
    /// # Panics
    /// If `buf` has another length.
    pub fn read_record(&self, record: &Record, buf: &mut [u8]) -> Result<bool, MemoryFailed> {
        assert_eq!(buf.len(), record.len as usize, "the buffer is as long as the record");
        let state = self.read();
        match state.index.find(record.ino, record.dseq) {
            Some(live) => state.memory.read(live.data_at(), buf).map(|()| true),
            None => Ok(false),
        }
    }

    /// Lays all live records of an inode over `buf`, which holds the file's bytes from `offset` on; a later record
    /// lies on top. Answers how many bytes of `buf` they are.
    pub fn overlay(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<u64, MemoryFailed> {
        self.read().overlay(ino, offset, buf)
    }

    /// As [`Arena::overlay`], with the records up to `through` only.
    pub fn overlay_through(
        &self,
        ino: Ino,
        through: Dseq,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), MemoryFailed> {
        let state = self.read();
        if state.index.last(ino).is_none_or(|last| last <= through) {
            return state.overlay(ino, offset, buf).map(drop);
        }
        let end = offset.saturating_add(buf.len() as u64);
        for record in state.index.records(ino).take_while(|record| record.dseq <= through) {
            let range = record.range();
            let (from, to) = (range.start.max(offset), range.end.min(end));
            if from < to {
                let part = &mut buf[(from - offset) as usize..(to - offset) as usize];
                state.memory.read(record.data_at() + (from - range.start), part)?;
            }
        }
        Ok(())
    }

    /// The times of a file are set: its newest record, as it is now, does not move them when it is committed. For the next
    /// engine, which finds it in [`Record::times_set`].
    pub fn times_are_set(&self, ino: Ino) -> Result<(), MemoryFailed> {
        let mut state = self.write();
        let State { memory, index, .. } = &mut *state;
        let newest = index.last(ino).and_then(|last| index.find(ino, last));
        newest.map_or(Ok(()), |record| memory.write(record.at, &STATE_TIMES_SET.to_le_bytes(), &[]))
    }

    /// Whether records hide every byte of the file from `offset` on for `len` bytes: nobody needs to read the map.
    pub fn covers(&self, ino: Ino, offset: u64, len: u64) -> bool {
        let range = offset..offset.saturating_add(len);
        let shown: u64 = self.read().index.shown(ino, range.clone()).map(|(r, _)| r.end - r.start).sum();
        shown == range.end - range.start
    }

    /// The records of an inode up to `through` are in the rows, or are not wanted any more: they go, and a chunk
    /// without live records gives its memory back, but for the one where the next record goes. Answers the bytes of data
    /// that went.
    ///
    /// If the engine dies meanwhile any of them may still be there for the next one, which compares them with the
    /// inode row's `(grant, applied)`. On an error they are gone for this engine all the same.
    pub fn mapped(&self, ino: Ino, through: Dseq) -> Result<u64, MemoryFailed> {
        let (bytes, freed) = self.write().free(ino, through);
        if bytes > 0
            && let Some(tell) = self.freed.get()
        {
            tell();
        }
        freed.map(|()| bytes)
    }

    /// `tell` is called after each [`Arena::mapped`] that freed something, by its thread, with no lock held. Only the
    /// first call of this counts.
    pub fn on_freed(&self, tell: impl Fn() + Send + Sync + 'static) {
        // A second caller would take the wake-ups of the first.
        drop(self.freed.set(Box::new(tell)));
    }

    /// The live record of a request: it was accepted and is to be answered, not applied again.
    pub fn find_unique(&self, unique: u64) -> Option<Record> {
        self.read().index.find_unique(unique)
    }

    /// The live records of an inode in sum, `None` if it has none.
    pub fn summary(&self, ino: Ino) -> Option<Summary> {
        self.read().index.summary(ino)
    }

    /// At most `max` inodes with live records, the one with the oldest record first.
    pub fn dirty(&self, max: usize) -> Vec<Summary> {
        let state = self.read();
        state.index.by_age().take(max).filter_map(|ino| state.index.summary(ino)).collect()
    }

    /// Bytes of data in live records.
    pub fn dirty_bytes(&self) -> u64 {
        self.read().index.bytes()
    }

    /// How many records are live.
    pub fn record_count(&self) -> usize {
        self.read().index.count()
    }

    /// Bytes of memory that records take of [`Arena::capacity`]: their heads, and what is freed but shares a chunk
    /// with live ones, included. Flush before it gets near.
    pub fn used(&self) -> u64 {
        self.read().chunks.used()
    }

    /// The most bytes that [`Arena::used`] may reach.
    pub fn capacity(&self) -> u64 {
        self.geometry.capacity
    }

    /// Bytes of memory that the whole takes of the machine, as the kernel counts them.
    pub fn resident(&self) -> Result<u64, MemoryFailed> {
        self.read().memory.resident()
    }

    /// What went wrong with accepted writes of an inode so far.
    pub fn late_error(&self, ino: Ino) -> LateError {
        self.read().errors.get(ino)
    }

    /// An accepted write of an inode was lost: whoever has it open is to hear of it once. Survives the engine.
    pub fn raise_late_error(&self, ino: Ino, errno: Errno) -> Result<LateError, MemoryFailed> {
        let mut state = self.write();
        let State { memory, errors, .. } = &mut *state;
        errors.raise(memory, ino, errno)?;
        Ok(errors.get(ino))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Arena {
    /// The memory's descriptor, for keepers: [`Arena::recover`] takes a duplicate of it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl State {
    pub(crate) fn set_header(&mut self, header: Header) -> Result<(), MemoryFailed> {
        // Within one page, so a kill leaves the old one or the new one.
        self.memory.write(0, &header.to_bytes(), &[])?;
        self.header = header;
        Ok(())
    }

    /// Writes a record, and accepts it by the store of its state: a page holds a state whole, and the kernel makes
    /// the stores of one process visible in their order.
    fn lay(&mut self, record: &Record, crc: u32, data: &[u8]) -> Result<(), MemoryFailed> {
        self.memory.write(record.at, &layout::head_to_bytes(record, crc), data)?;
        self.memory.write(record.at, &STATE_ACCEPTED.to_le_bytes(), &[])
    }

    /// Where the next record goes. Before another chunk is begun, one in which nothing is live gives its memory back.
    fn place(&mut self, size: u64) -> Result<Option<u64>, MemoryFailed> {
        let place = self.chunks.place(size);
        if place.is_some_and(|at| self.chunks.is_open(at)) {
            return Ok(place);
        }
        let Some(dead) = self.chunks.retire() else { return Ok(place) };
        self.punch(dead)?;
        Ok(self.chunks.place(size))
    }

    /// Gives up a place where a record could not be written whole.
    fn give_up(&mut self, at: u64, size: u64) {
        if let Some(chunk) = self.chunks.spoilt(at, size) {
            // If this fails too the chunk stays out of use; the error that the caller gets is the first.
            let _ = self.punch(chunk);
        }
    }

    fn free(&mut self, ino: Ino, through: Dseq) -> (u64, Result<(), MemoryFailed>) {
        let gone = self.index.pop_through(ino, through);
        let mut result = Ok(());
        let mut shared = Vec::new();
        for record in &gone {
            match self.chunks.drop_record(record.at) {
                Some(chunk) => result = result.and(self.punch(chunk)),
                None => shared.push(record.at),
            }
        }
        for at in shared {
            if self.chunks.is_kept(at) {
                result = result.and(self.memory.write(at, &STATE_FREED.to_le_bytes(), &[]));
            }
        }
        (gone.iter().map(|record| u64::from(record.len)).sum(), result)
    }

    pub(crate) fn punch(&mut self, chunk: u32) -> Result<(), MemoryFailed> {
        let geometry = self.header.geometry;
        self.memory.punch(geometry.chunk_at(chunk), geometry.stride())?;
        self.chunks.punched(chunk);
        Ok(())
    }

    fn overlay(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<u64, MemoryFailed> {
        let mut laid = 0;
        for (range, at) in self.index.shown(ino, offset..offset.saturating_add(buf.len() as u64)) {
            let part = &mut buf[(range.start - offset) as usize..(range.end - offset) as usize];
            self.memory.read(at, part)?;
            laid += range.end - range.start;
        }
        Ok(laid)
    }
}
