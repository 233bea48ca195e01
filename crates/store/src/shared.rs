//! What callers and the driver of a store share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clock::Clock;
use device::{BlockDev, IoError, IoFuture, IoVec};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use types::{BLOCK, Epoch, FragmentId, GroupId};

use crate::alloc::Allocator;
use crate::bad::BadBlocks;
use crate::checkpoint::{self, Group};
use crate::fragments::ReadError;
use crate::headers::HeaderCache;
use crate::index::{Entry, Index, Left, Run};
use crate::layout::{DiskId, Layout};

/// The most that puts and deletes may have in flight, in blocks: bounds memory, and what a recovery must verify.
pub(crate) const IN_FLIGHT_BLOCKS: usize = (64 << 20) / BLOCK as usize;

/// Groups whose epochs may arrive when the checkpoint has no room for fragments any more.
const GROUPS_SPARE: u64 = 256;

/// What waits for its place in the journal. Each holds a part of the admission bound until it is answered.
pub(crate) enum Op {
    /// A fragment whose data is being written.
    Put {
        id: FragmentId,
        entry: Entry,
        write: IoFuture<IoVec>,
        _admitted: OwnedSemaphorePermit,
    },
    Delete {
        ids: Vec<FragmentId>,
        answer: oneshot::Sender<Result<(), IoError>>,
        _admitted: OwnedSemaphorePermit,
    },
    Group {
        id: GroupId,
        group: Group,
        answer: oneshot::Sender<Result<(), IoError>>,
        _admitted: OwnedSemaphorePermit,
    },
    /// The disk failed: wakes the driver.
    Poisoned,
    Close {
        answer: oneshot::Sender<Result<(), IoError>>,
    },
}

/// A put between its admission and its answer.
pub(crate) struct InFlight {
    pub(crate) content_crc: u32,
    pub(crate) stored_len: u32,
    pub(crate) waiting: Vec<oneshot::Sender<Result<(), IoError>>>,
}

/// The state of an open disk. Each lock is held for a few instructions and never across a wait.
pub(crate) struct Shared {
    pub(crate) dev: Arc<dyn BlockDev>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: DiskId,
    pub(crate) layout: Layout,
    pub(crate) index: Index,
    pub(crate) alloc: Allocator,
    pub(crate) bad: BadBlocks,
    pub(crate) headers: HeaderCache,
    pub(crate) in_flight: Mutex<HashMap<FragmentId, InFlight>>,
    pub(crate) groups: Mutex<BTreeMap<GroupId, Group>>,
    pub(crate) admission: Arc<Semaphore>,
    /// Bounded by `admission`: who sends holds permits.
    pub(crate) queue: mpsc::UnboundedSender<Op>,
    /// The most ids of one delete that are admitted at once, so that they fit a batch; more go one after another.
    pub(crate) delete_ids_max: usize,
    pub(crate) read_only: bool,
    pub(crate) poisoned: AtomicBool,
    /// Checkpoints that were taken since the open.
    pub(crate) checkpoints: AtomicU64,
    pub(crate) closed: AtomicBool,
}

impl Shared {
    /// Whether the disk still serves.
    pub(crate) fn check(&self) -> Result<(), IoError> {
        if self.poisoned.load(Ordering::Acquire) || self.closed.load(Ordering::Acquire) {
            return Err(IoError::Gone);
        }
        Ok(())
    }

    /// Ends all service: what is on the disk is not known any more.
    pub(crate) fn poison(&self, why: &IoError) {
        if !self.poisoned.swap(true, Ordering::AcqRel) {
            tracing::error!(disk = %self.disk, error = %why, "the store is poisoned: its disk failed");
        }
        self.admission.close();
        // The driver may be gone already.
        let _ = self.queue.send(Op::Poisoned);
    }

    pub(crate) fn check_not_poisoned(&self) -> Result<(), IoError> {
        if self.poisoned.load(Ordering::Acquire) { Err(IoError::Gone) } else { Ok(()) }
    }

    pub(crate) fn in_flight(&self) -> MutexGuard<'_, HashMap<FragmentId, InFlight>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch below which puts of a group are refused.
    pub(crate) fn epoch_of(&self, group: GroupId) -> Epoch {
        self.groups().get(&group).map_or(Epoch(0), |group| group.epoch)
    }

    /// The first block of the data region: the allocator counts from there.
    pub(crate) fn first_block(&self) -> u64 {
        self.layout.data.at / BLOCK
    }

    /// A run of the disk as the allocator counts; the run has been checked to lie in the data region.
    fn to_alloc(&self, run: Run) -> Run {
        Run { block: run.block - self.first_block(), ..run }
    }

    /// Takes a run of blocks of the disk.
    pub(crate) fn claim(&self, blocks: u32) -> Option<Run> {
        let block = self.alloc.claim(blocks)?;
        Some(Run { block: block + self.first_block(), blocks })
    }

    /// Frees a run that nothing has any more, unless it is withheld.
    pub(crate) fn release(&self, run: Run) {
        if self.bad.may_free(run) {
            self.alloc.free_run(self.to_alloc(run));
        }
    }

    /// Takes the run of an entry that was read from the disk; `false` if it cannot be.
    pub(crate) fn mark(&self, run: Run) -> bool {
        run.block >= self.first_block() && self.alloc.mark(self.to_alloc(run))
    }

    /// Whether a run is taken.
    pub(crate) fn is_taken(&self, run: Run) -> bool {
        run.block >= self.first_block() && self.alloc.is_taken(self.to_alloc(run))
    }

    /// Frees the blocks of a fragment that left the index, unless a reader has them.
    pub(crate) fn left(&self, left: Left) {
        if let Left::Free(run) = left {
            self.release(run);
        }
    }

    /// Passes on what a read of a fragment came to; a failure makes its blocks suspect. The caller has them pinned.
    pub(crate) fn judged<T>(&self, entry: &Entry, read: Result<T, ReadError>) -> Result<T, ReadError> {
        if let Err(ReadError::Damaged { .. } | ReadError::Io(IoError::Failed { .. })) = read {
            self.bad.suspect(entry.run());
        }
        read
    }

    /// The fragment on a run is to leave: whether its blocks are withheld from now on.
    pub(crate) fn withhold(&self, run: Run) -> bool {
        // Under the lock under which puts look for room: it takes some of the checkpoint's too.
        let in_flight = self.in_flight();
        self.index_has_room(in_flight.len(), 1) && self.bad.withhold(run)
    }

    /// Whether the checkpoint area has room for `more` fragments on top of those there and in flight.
    pub(crate) fn index_has_room(&self, in_flight: usize, more: u64) -> bool {
        more <= self.index_left(in_flight)
    }

    /// How many more fragments the checkpoint area has room for.
    pub(crate) fn index_room(&self) -> u64 {
        let in_flight = self.in_flight().len();
        self.index_left(in_flight)
    }

    fn index_left(&self, in_flight: usize) -> u64 {
        let groups = self.groups().len() as u64 + self.bad.count();
        // More groups than there are: putting never adds one, but epochs may arrive.
        let taken = checkpoint::bytes_needed(self.index.len() + in_flight as u64, groups + GROUPS_SPARE);
        let left = checkpoint::capacity(self.layout.checkpoints[0].len).saturating_sub(taken);
        left / checkpoint::bytes_needed(1, 0)
    }

    /// Finds a fragment and keeps its blocks until the guard is dropped.
    pub(crate) fn pin(self: &Arc<Self>, id: FragmentId) -> Option<Pinned> {
        let entry = self.index.pin(&id)?;
        Some(Pinned { shared: Arc::clone(self), id, entry })
    }
}

/// Keeps the blocks of a fragment from being handed out.
pub(crate) struct Pinned {
    shared: Arc<Shared>,
    id: FragmentId,
    pub(crate) entry: Entry,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(run) = self.shared.index.unpin(&self.id, &self.entry) {
            self.shared.release(run);
        }
    }
}
