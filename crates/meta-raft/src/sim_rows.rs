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
    /// Syncs until one is cut off by a crash before it took effect.
    fail_after: Option<u64>,
    syncs: u64,
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
        Ok(shared.applied.clone())
    }

    fn unsynced_bytes(&self) -> u64 {
        self.lock().unsynced
    }
}
