//! Rows in one LSM tree on a filesystem, without a journal of its own. docs/decisions/2026-11-21-row-store.md says why
//! and lists the guards that are kept here.

mod check;
mod frozen;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lsm_tree::compaction::Leveled;
use lsm_tree::{AbstractTree, AnyTree, Cache, Config, Guard, SequenceNumberCounter};
use namespace::{Batch, Rows, RowsError, Write};

use crate::rows::{Applied, LOG_KEY, RowStore, RowView, SyncError};
pub use check::RowsOpenError;
pub use frozen::FrozenRows;

/// Bytes of decoded blocks that are kept in memory.
const CACHE: u64 = 32 << 20;

/// Syncs that a view may outlive. Each pins a memtable and superseded tables, so one that lives on is ended.
const VIEW_SYNCS: u64 = 3;

/// Rows below a folder.
pub struct LsmRows {
    tree: AnyTree,
    path: PathBuf,
    seqno: SequenceNumberCounter,
    /// One batch at a time, and no rotation within one: else a sync would make half a batch durable.
    batch: Mutex<Applied>,
    /// Views read below this. The tree's own mark passes a half-inserted batch with every flush and compaction.
    committed: AtomicU64,
    views: Arc<Views>,
    /// One sync at a time; `true` once one has failed.
    sync: Mutex<bool>,
    room: OnceLock<MakeRoom>,
}

/// What a sync finds on its filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// Enough for everything.
    Plenty,
    /// Enough for what must be written; compaction waits.
    Short,
}

/// Makes room for a sync if there is little, and says how much there is.
pub type MakeRoom = Box<dyn Fn() -> Room + Send + Sync>;

impl LsmRows {
    /// Makes empty rows in a new folder, for the log with this id. Durable on return but for the folder's own name.
    pub fn create(path: &Path, log: [u8; 16]) -> Result<(), RowsOpenError> {
        std::fs::create_dir(path).map_err(|source| RowsOpenError::Io { path: path.to_path_buf(), source })?;
        let rows = LsmRows::open_tree(path)?;
        let identity = Batch::from([(LOG_KEY.to_vec(), Write::Put(log.to_vec()))]);
        rows.commit(identity, Applied::default()).map_err(|error| rows.damaged(error))?;
        rows.sync().map_err(|source| RowsOpenError::FirstSync { source }).map(drop)
    }

    /// Opens the rows of the log with this id, as they were at the last sync.
    pub fn open(path: &Path, log: [u8; 16]) -> Result<LsmRows, RowsOpenError> {
        check::manifest(path)?;
        let rows = LsmRows::open_tree(path)?;
        let view = rows.view();
        let damaged = |error: RowsError| rows.damaged(error);
        let of = view.get(&LOG_KEY).map_err(damaged)?;
        if of.as_deref() != Some(&log) {
            return Err(RowsOpenError::Foreign { path: path.to_path_buf() });
        }
        *rows.lock() = Applied::read(&view).map_err(damaged)?;
        drop(view);
        Ok(rows)
    }

    fn open_tree(path: &Path) -> Result<LsmRows, RowsOpenError> {
        let (seqno, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let tree = Config::new(path, seqno.clone(), visible.clone())
            .use_cache(Arc::new(Cache::with_capacity_bytes(CACHE)))
            .open()
            .map_err(|error| RowsOpenError::of(path, error))?;
        let committed = tree.get_highest_seqno().map_or(0, |highest| highest + 1);
        seqno.fetch_max(committed);
        visible.fetch_max(committed);
        Ok(LsmRows {
            tree,
            path: path.to_path_buf(),
            seqno,
            batch: Mutex::default(),
            committed: AtomicU64::new(committed),
            views: Arc::default(),
            sync: Mutex::new(false),
            room: OnceLock::new(),
        })
    }

    /// Has `make_room` called at the start of each sync from now on. Only the first call counts.
    pub fn before_sync(&self, make_room: MakeRoom) {
        // A second one would belong to a second owner, which rows do not have.
        let _ = self.room.set(make_room);
    }

    fn damaged(&self, error: RowsError) -> RowsOpenError {
        RowsOpenError::Damaged { path: self.path.clone(), detail: error.0 }
    }

    /// Waits until no sync is under way: nothing is written below the folder then until the next one.
    pub fn quiesce(&self) {
        drop(self.sync.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Applied> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Versions of rows below this are not read any more.
    fn watermark(&self) -> u64 {
        let oldest = self.views.lock().keys().next().map(|(seqno, _)| *seqno);
        let committed = self.committed.load(Ordering::Acquire);
        oldest.map_or(committed, |oldest| oldest.min(committed))
    }

    fn failed(&self, error: lsm_tree::Error) -> SyncError {
        let path = self.path.clone();
        match error {
            lsm_tree::Error::Io(source) => SyncError::Io { path, source },
            error => SyncError::Damaged { path, detail: error.to_string() },
        }
    }
}

/// Views that live, by what they read at and a number of their own.
#[derive(Default)]
struct Views {
    open: Mutex<BTreeMap<(u64, u64), OpenView>>,
    next: AtomicU64,
    syncs: AtomicU64,
}

struct OpenView {
    since: u64,
    ended: Arc<AtomicBool>,
}

impl Views {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), OpenView>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the views that have seen too many syncs.
    fn end_old(&self) {
        let now = self.syncs.fetch_add(1, Ordering::Relaxed) + 1;
        self.lock().retain(|_, view| {
            let keep = now - view.since <= VIEW_SYNCS;
            if !keep {
                view.ended.store(true, Ordering::Release);
            }
            keep
        });
    }
}

/// The rows after one batch.
pub struct LsmView {
    tree: AnyTree,
    views: Arc<Views>,
    key: (u64, u64),
    ended: Arc<AtomicBool>,
}

impl LsmView {
    fn check(&self) -> Result<(), RowsError> {
        if self.ended.load(Ordering::Acquire) {
            return Err(RowsError(format!("the view outlived {VIEW_SYNCS} syncs of the rows")));
        }
        Ok(())
    }
}

impl Drop for LsmView {
    fn drop(&mut self) {
        self.views.lock().remove(&self.key);
    }
}

fn unreadable(error: lsm_tree::Error) -> RowsError {
    RowsError(format!("the rows cannot be read: {error}"))
}

impl Rows for LsmView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        let value = self.tree.get(key, self.key.0).map_err(unreadable)?;
        // After the read: a view that was ended before it may have met rows of a later batch.
        self.check()?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        backward: bool,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        if from >= to {
            return Ok(());
        }
        let mut range = self.tree.range(from..to, self.key.0, None);
        while let Some(row) = if backward { range.next_back() } else { range.next() } {
            let (key, value) = row.into_inner().map_err(unreadable)?;
            self.check()?;
            if !each(&key, &value) {
                break;
            }
        }
        self.check()
    }
}

impl RowView for LsmView {
    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl RowStore for LsmRows {
    type View = LsmView;

    fn view(&self) -> LsmView {
        let number = self.views.next.fetch_add(1, Ordering::Relaxed);
        let ended = Arc::new(AtomicBool::new(false));
        let mut open = self.views.lock();
        // Under the lock: a watermark taken before this view is registered is not above what it reads at.
        let key = (self.committed.load(Ordering::Acquire), number);
        let since = self.views.syncs.load(Ordering::Relaxed);
        open.insert(key, OpenView { since, ended: ended.clone() });
        drop(open);
        LsmView { tree: self.tree.clone(), views: self.views.clone(), key, ended }
    }

    fn applied(&self) -> Applied {
        self.lock().clone()
    }

    fn commit(&self, mut batch: Batch, applied: Applied) -> Result<(), RowsError> {
        let mut last = self.lock();
        applied.add_to(&mut batch, &last);
        assert!(batch.is_sorted_by(|a, b| a.0 < b.0), "a batch has each key once, in order");
        let seqno = self.seqno.next();
        for (key, write) in batch {
            match write {
                Write::Put(value) => self.tree.insert(key, value, seqno),
                Write::Delete => self.tree.remove(key, seqno),
            };
        }
        self.committed.store(seqno + 1, Ordering::Release);
        *last = applied;
        Ok(())
    }

    fn sync(&self) -> Result<Applied, SyncError> {
        let mut failed = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(SyncError::Poisoned);
        }
        // Until it is done it counts as failed, a panic included.
        *failed = true;
        self.views.end_old();
        let room = self.room.get().map_or(Room::Plenty, |make_room| make_room());
        let applied = {
            let applied = self.lock();
            self.tree.rotate_memtable();
            applied.clone()
        };
        let error = |error| self.failed(error);
        self.tree.flush(&self.tree.get_flush_lock(), self.watermark()).map_err(error)?;
        if room == Room::Plenty {
            self.tree.compact(Arc::new(Leveled::default()), self.watermark()).map_err(error)?;
        }
        *failed = false;
        Ok(applied)
    }

    fn unsynced_bytes(&self) -> u64 {
        self.tree.active_memtable().size()
    }
}

#[cfg(test)]
mod tests;
