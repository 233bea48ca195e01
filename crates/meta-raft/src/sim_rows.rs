//! Rows in memory that lose what was not synced, for simulations.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use namespace::{Batch, Rows, RowsError, Write};

use crate::rows::{Applied, RowStore, RowView, SyncError};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A simulated disk with rows. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimRows {
    shared: Arc<Mutex<Shared>>,
    /// Which start of the machine this handle is from; a handle from before a crash is dead.
    start: u64,
}

#[derive(Default)]
struct Shared {
    rows: Arc<Map>,
    applied: Applied,
    unsynced: u64,
    disk: (Arc<Map>, Applied),
    start: u64,
    history: Option<History>,
    /// Syncs until one is cut off by a crash before it took effect.
    fail_after: Option<u64>,
    syncs: u64,
}

/// What a disk held at each moment.
struct History {
    now: Box<dyn Fn() -> u64 + Send>,
    synced: Vec<(u64, Arc<Map>, Applied)>,
    committed: Vec<(u64, Arc<Map>)>,
}

impl SimRows {
    /// An empty disk.
    pub fn new() -> SimRows {
        SimRows::default()
    }

    /// A power cut: batches since the last sync are gone. Answers a handle for the next start, and how many rows
    /// changed by it.
    pub fn crash(&self) -> (SimRows, usize) {
        let mut shared = self.lock();
        shared.start += 1;
        let before = std::mem::take(&mut shared.rows);
        (shared.rows, shared.applied) = shared.disk.clone();
        shared.unsynced = 0;
        shared.fail_after = None;
        let lost = before.iter().filter(|(key, value)| shared.rows.get(*key) != Some(value)).count();
        (SimRows { shared: self.shared.clone(), start: shared.start }, lost)
    }

    /// From now on remembers what every batch and every sync made; `now` names the moment of a sync, never falling.
    pub fn record_history(&self, now: impl Fn() -> u64 + Send + 'static) {
        let mut shared = self.lock();
        let synced = vec![(0, shared.disk.0.clone(), shared.disk.1.clone())];
        shared.history = Some(History { now: Box::new(now), synced, committed: Vec::new() });
    }

    /// A disk as a power cut would have left it just before `moment`: with the last sync that was done at an earlier one.
    /// `None` if that was not recorded.
    pub fn cut_before(&self, moment: u64) -> Option<SimRows> {
        let shared = self.lock();
        let synced = &shared.history.as_ref()?.synced;
        let (_, rows, applied) = synced.iter().rev().find(|(at, _, _)| *at == 0 || *at < moment)?;
        let disk = (rows.clone(), applied.clone());
        let cut = Shared { rows: rows.clone(), applied: applied.clone(), disk, ..Shared::default() };
        Some(SimRows { shared: Arc::new(Mutex::new(cut)), start: 0 })
    }

    /// The rows after each batch that was recorded, by the index of its entry.
    pub fn states(&self) -> Vec<(u64, SimView)> {
        let shared = self.lock();
        let committed = shared.history.iter().flat_map(|history| &history.committed);
        committed.map(|(index, rows)| (*index, SimView(rows.clone()))).collect()
    }

    /// The `n`-th sync from now on (0 is the next) fails and changes nothing on the disk.
    pub fn fail_sync(&self, n: u64) {
        self.lock().fail_after = Some(n);
    }

    /// How many syncs have succeeded.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A view of simulated rows.
#[derive(Clone)]
pub struct SimView(Arc<Map>);

impl Rows for SimView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        Ok(self.0.get(key).cloned())
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
        let mut range = self.0.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        while let Some((key, value)) = if backward { range.next_back() } else { range.next() } {
            if !each(key, value) {
                break;
            }
        }
        Ok(())
    }
}

impl RowView for SimView {
    fn is_ended(&self) -> bool {
        false
    }
}

impl RowStore for SimRows {
    type View = SimView;

    fn view(&self) -> SimView {
        SimView(self.lock().rows.clone())
    }

    fn applied(&self) -> Applied {
        self.lock().applied.clone()
    }

    fn commit(&self, mut batch: Batch, applied: Applied) -> Result<(), RowsError> {
        let mut shared = self.lock();
        if shared.start != self.start {
            return Err(RowsError("the simulated machine is off".into()));
        }
        applied.add_to(&mut batch, &shared.applied);
        assert!(batch.is_sorted_by(|a, b| a.0 < b.0), "a batch has each key once, in order");
        shared.applied = applied;
        let mut bytes = 0;
        let rows = Arc::make_mut(&mut shared.rows);
        for (key, write) in batch {
            bytes += key.len() as u64;
            match write {
                Write::Put(value) => {
                    bytes += value.len() as u64;
                    rows.insert(key, value);
                }
                Write::Delete => {
                    rows.remove(&key);
                }
            }
        }
        shared.unsynced += bytes;
        let (rows, index) = (shared.rows.clone(), shared.applied.position.map_or(0, |at| at.index));
        if let Some(history) = &mut shared.history {
            history.committed.push((index, rows));
        }
        Ok(())
    }

    fn sync(&self) -> Result<Applied, SyncError> {
        let mut shared = self.lock();
        if shared.start != self.start {
            return Err(SyncError::Off);
        }
        match &mut shared.fail_after {
            Some(0) => return Err(SyncError::Off),
            Some(left) => *left -= 1,
            None => {}
        }
        shared.disk = (shared.rows.clone(), shared.applied.clone());
        shared.unsynced = 0;
        shared.syncs += 1;
        let (rows, at) = shared.disk.clone();
        if let Some(history) = &mut shared.history {
            let now = (history.now)();
            history.synced.push((now, rows, at));
        }
        Ok(shared.applied.clone())
    }

    fn unsynced_bytes(&self) -> u64 {
        self.lock().unsynced
    }
}
