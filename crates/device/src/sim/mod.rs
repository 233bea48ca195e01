//! A disk in memory that fails as disks fail, the same way for the same seed.
//!
//! A write is *in flight* until its future was polled to completion, then it is in the volatile cache until a flush, or
//! durable if it asked for that. A power cut keeps any subset of what is not durable and tears some of it. So a caller
//! who flushes before a write has completed, or acknowledges before a flush has, loses data here as it would on a disk.

mod cache;
mod fault;
mod pages;
mod rng;

pub use cache::Keep;
pub use fault::Fault;

use crate::file_disk::{MAX_IO, check_fit, check_write};
use crate::oneshot::ready;
use crate::{BlockDev, Durability, Geometry, IoBuf, IoClass, IoError, IoFuture, IoVec};
use cache::Cache;
use fault::Faults;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use types::{BLOCK, ByteOffset, Errno};

/// What an operation was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpKind {
    /// A read.
    Read,
    /// A write.
    Write(Durability),
    /// A flush.
    Flush,
}

/// One operation that a disk was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpRecord {
    /// What it was.
    pub kind: OpKind,
    /// Where, in bytes; 0 for a flush.
    pub at: u64,
    /// How much, in bytes; 0 for a flush.
    pub len: u64,
    /// How many blocks were not durable once it was under way.
    pub at_risk: usize,
}

/// A simulated disk. Clones are the same disk; [`SimDisk::after_power_cut`] and [`SimDisk::fork`] give others.
///
/// Like a real one it is poisoned by a failed write or flush: everything after answers [`IoError::Gone`].
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    bytes: u64,
    first_writes_cost: bool,
}

struct State {
    cache: Cache,
    faults: Faults,
    log: Vec<OpRecord>,
    /// The cache as it was when each operation was under way, if that is recorded.
    history: Option<Vec<Cache>>,
    gone: bool,
}

/// The disk's whole content at one moment, to go back to.
#[derive(Clone)]
pub struct SimImage {
    cache: Cache,
    bytes: u64,
}

impl SimDisk {
    /// A disk of zeros, `bytes` rounded down to whole blocks. Memory is taken only for blocks that are not zero.
    pub fn new(bytes: u64) -> SimDisk {
        let bytes = bytes - bytes % BLOCK;
        SimDisk::with(Cache::new(bytes / BLOCK), bytes)
    }

    fn with(cache: Cache, bytes: u64) -> SimDisk {
        let state = State { cache, faults: Faults::default(), log: Vec::new(), history: None, gone: false };
        SimDisk { state: Arc::new(Mutex::new(state)), bytes, first_writes_cost: false }
    }

    /// The same disk, which says that first writes cost, as a preallocated file does.
    pub fn like_a_file(self) -> SimDisk {
        SimDisk { first_writes_cost: true, ..self }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `fault` happen, now or when its operation comes. Operations count from 1.
    pub fn inject(&self, fault: Fault) {
        let mut state = self.state();
        let State { cache, faults, .. } = &mut *state;
        faults.add(fault, cache);
    }

    /// How many operations the disk was asked for since it was made. The next one has this number plus one.
    pub fn operations(&self) -> u64 {
        self.state().log.len() as u64
    }

    /// Every operation so far. A refused one (gone, misfit) is not among them, except the one that met the power cut.
    pub fn op_log(&self) -> Vec<OpRecord> {
        self.state().log.clone()
    }

    /// How many blocks a power cut now could lose: 0 says that a cut would prove nothing.
    pub fn at_risk(&self) -> usize {
        self.state().cache.at_risk()
    }

    /// From now on remembers the state at each operation, for [`SimDisk::cut_at`].
    pub fn record_history(&self) {
        let mut state = self.state();
        let now = state.cache.clone();
        // Operations before this one cannot be cut at: they show the state at the start of the recording.
        state.history = Some(vec![now; state.log.len()]);
    }

    /// The disk after power was cut now: `keep` says what of the unflushed blocks is there. No fault is carried over except
    /// unreadable blocks. Costs as much as there are unflushed blocks.
    pub fn after_power_cut(&self, seed: u64, keep: Keep) -> SimDisk {
        SimDisk::with(self.state().cache.cut(seed, keep), self.bytes)
    }

    /// The disk after power was cut while operation `op` (counted from 1) was in flight and nothing had come back of
    /// it: what was acknowledged when [`SimDisk::operations`] was below `op` has to be there. `None` if that was not
    /// recorded.
    pub fn cut_at(&self, op: u64, seed: u64, keep: Keep) -> Option<SimDisk> {
        let state = self.state();
        let cache = state.history.as_ref()?.get(usize::try_from(op.checked_sub(1)?).ok()?)?;
        Some(SimDisk::with(cache.cut(seed, keep), self.bytes))
    }

    /// A disk of the same content, cache included, as a process finds it that was killed and comes back: no fault, not gone.
    pub fn fork(&self) -> SimDisk {
        SimDisk::with(self.state().cache.settled(), self.bytes)
    }

    /// The disk's content now, to be put back by [`SimDisk::from_image`]: a disk that was rolled back.
    pub fn image(&self) -> SimImage {
        SimImage { cache: self.state().cache.settled(), bytes: self.bytes }
    }

    /// A disk of that content.
    pub fn from_image(image: &SimImage) -> SimDisk {
        SimDisk::with(image.cache.clone(), image.bytes)
    }

    /// Reads past every fault, for tests to look at the content. `at` and `len` in bytes, inside the disk.
    pub fn peek(&self, at: u64, len: usize) -> Vec<u8> {
        let state = self.state();
        let mut bytes = vec![0; len];
        for (n, byte) in bytes.iter_mut().enumerate() {
            let place = at + n as u64;
            *byte = state.cache.latest(place / BLOCK).map_or(0, |page| page[(place % BLOCK) as usize]);
        }
        bytes
    }

    /// Changes the content behind everybody's back, durably: bit rot, or what another program wrote.
    pub fn poke(&self, at: u64, bytes: &[u8]) {
        let mut state = self.state();
        for (n, byte) in bytes.iter().enumerate() {
            let place = at + n as u64;
            state.cache.overwrite(place / BLOCK, |page| page[(place % BLOCK) as usize] = *byte);
        }
    }
}

impl State {
    /// Counts an operation in. `Err`: it fails before it did anything.
    fn begin(&mut self, kind: OpKind, at: u64, len: u64) -> Result<u64, IoError> {
        if self.gone {
            return Err(IoError::Gone);
        }
        self.log.push(OpRecord { kind, at, len, at_risk: 0 });
        Ok(self.log.len() as u64)
    }

    /// Notes how things stand once operation `op` is under way, then lets its fault strike.
    fn under_way(&mut self, op: u64) -> Result<(), IoError> {
        let record = self.log[op as usize - 1];
        self.log[op as usize - 1].at_risk = self.cache.at_risk();
        if let Some(history) = &mut self.history {
            history.push(self.cache.clone());
        }
        if self.faults.power_is_off(op) {
            self.gone = true;
            return Err(IoError::Gone);
        }
        let Some(errno) = self.faults.errno(op) else { return Ok(()) };
        self.gone = record.kind != OpKind::Read;
        let name = match record.kind {
            OpKind::Read => "read",
            OpKind::Write(_) => "write",
            OpKind::Flush => "flush",
        };
        Err(IoError::Failed { op: name, at: record.at, len: record.len, errno })
    }

    fn read(&mut self, at: u64, mut buf: IoBuf) -> Result<IoBuf, IoError> {
        let len = buf.len() as u64;
        let op = self.begin(OpKind::Read, at, len)?;
        self.under_way(op)?;
        for (n, block) in buf.chunks_mut(BLOCK as usize).enumerate() {
            let number = at / BLOCK + n as u64;
            if self.cache.is_unreadable(number) {
                return Err(IoError::Failed { op: "read", at, len, errno: Errno::EIO });
            }
            match self.cache.latest(number) {
                Some(page) => block.copy_from_slice(&page[..]),
                None => block.fill(0),
            }
        }
        Ok(buf)
    }

    fn write(&mut self, at: u64, bufs: &IoVec, sync: Durability) -> Result<u64, IoError> {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        let op = self.begin(OpKind::Write(sync), at, len)?;
        let place = self.faults.place(op, at).filter(|place| place.saturating_add(len) <= self.cache.bytes());
        let blocks = bufs.iter().flat_map(|buf| buf.as_chunks::<{ BLOCK as usize }>().0);
        if let Some(place) = place {
            for (n, block) in blocks.enumerate() {
                self.cache.write(op, place / BLOCK + n as u64, Arc::new(*block));
            }
        }
        self.under_way(op)?;
        Ok(op)
    }

    fn flush(&mut self) -> Result<u64, IoError> {
        let op = self.begin(OpKind::Flush, 0, 0)?;
        self.under_way(op)?;
        self.cache.note_flush(op);
        Ok(op)
    }

    /// What happens when the answer to operation `op` is taken.
    fn complete(&mut self, op: u64) -> Result<(), IoError> {
        if self.gone {
            return Err(IoError::Gone);
        }
        match self.log[op as usize - 1].kind {
            OpKind::Read => {}
            OpKind::Write(Durability::Buffered) => self.cache.complete(op),
            OpKind::Write(Durability::Durable) => {
                self.cache.complete(op);
                if !self.faults.cache_lies(op) {
                    self.cache.persist_write(op);
                }
            }
            OpKind::Flush if planted::is(planted::Bug::NoFlush) || self.faults.cache_lies(op) => {}
            OpKind::Flush => self.cache.persist_flushed(op),
        }
        Ok(())
    }
}

/// The answer to a write or flush. It completes when it is polled, which is ready at once.
struct Completion<T> {
    disk: SimDisk,
    op: u64,
    answer: Option<T>,
}

impl<T: Unpin> Future for Completion<T> {
    type Output = Result<T, IoError>;

    fn poll(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.answer.take().expect("a disk's future was polled after it was ready");
        let op = self.op;
        Poll::Ready(self.disk.state().complete(op).map(|()| answer))
    }
}

impl BlockDev for SimDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            bytes: self.bytes,
            max_io: MAX_IO,
            volatile_cache: true,
            first_writes_cost: self.first_writes_cost,
        }
    }

    fn read(&self, at: ByteOffset, buf: IoBuf, _class: IoClass) -> IoFuture<IoBuf> {
        if let Err(misfit) = check_fit(self.bytes, at.0, buf.len() as u64) {
            return ready(Err(misfit));
        }
        ready(self.state().read(at.0, buf))
    }

    fn write(&self, at: ByteOffset, bufs: IoVec, sync: Durability, _class: IoClass) -> IoFuture<IoVec> {
        if let Err(misfit) = check_write(self.bytes, at.0, &bufs) {
            return ready(Err(misfit));
        }
        let begun = self.state().write(at.0, &bufs, sync);
        match begun {
            Ok(op) => Box::pin(Completion { disk: self.clone(), op, answer: Some(bufs) }),
            Err(error) => ready(Err(error)),
        }
    }

    fn flush(&self) -> IoFuture<()> {
        let begun = self.state().flush();
        match begun {
            Ok(op) => Box::pin(Completion { disk: self.clone(), op, answer: Some(()) }),
            Err(error) => ready(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests;
