//! What the background work has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counters since the agent started, shared by its loops.
#[derive(Debug, Default)]
pub struct Figures {
    pub(crate) sweeps: AtomicU64,
    pub(crate) listed: AtomicU64,
    pub(crate) orphans: AtomicU64,
    pub(crate) orphan_bytes: AtomicU64,
    pub(crate) dead_extents: AtomicU64,
    pub(crate) out_of_reach: AtomicU64,
    pub(crate) failures: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Times that all groups were swept for fragments without a row.
    pub sweeps: u64,
    /// Fragments that the sweeps looked at.
    pub listed: u64,
    /// Fragments without a row that were deleted.
    pub orphans: u64,
    /// Their stored bytes.
    pub orphan_bytes: u64,
    /// Dead extents whose fragments were deleted and whose rows went.
    pub dead_extents: u64,
    /// Dead extents that wait because their group is not on this node, as the last round saw it.
    pub out_of_reach: u64,
    /// Rounds that a disk or the metadata service failed; each is tried again.
    pub failures: u64,
}

impl Figures {
    /// The counters now, each on its own.
    pub fn counts(&self) -> Counts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sweeps: now(&self.sweeps),
            listed: now(&self.listed),
            orphans: now(&self.orphans),
            orphan_bytes: now(&self.orphan_bytes),
            dead_extents: now(&self.dead_extents),
            out_of_reach: now(&self.out_of_reach),
            failures: now(&self.failures),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
