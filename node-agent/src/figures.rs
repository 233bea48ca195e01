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
    pub(crate) bad_copies: AtomicU64,
    pub(crate) repaired: AtomicU64,
    pub(crate) filled_fragments: AtomicU64,
    pub(crate) filled_bytes: AtomicU64,
    pub(crate) unfillable: AtomicU64,
    pub(crate) fill_slots: AtomicU64,
    pub(crate) fill_done: AtomicU64,
    pub(crate) fill_total: AtomicU64,
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
    /// Copies that were found bad while another one served.
    pub bad_copies: u64,
    /// Of these, those that were written anew.
    pub repaired: u64,
    /// Copies that were made in slots that lacked them.
    pub filled_fragments: u64,
    /// Their stored bytes.
    pub filled_bytes: u64,
    /// Copies that could not be made because none could be read.
    pub unfillable: u64,
    /// Slots that lack copies now.
    pub fill_slots: u64,
    /// Of the slot that is being filled: bytes that it got.
    pub fill_done: u64,
    /// Of the slot that is being filled: bytes that it lacked.
    pub fill_total: u64,
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
            bad_copies: now(&self.bad_copies),
            repaired: now(&self.repaired),
            filled_fragments: now(&self.filled_fragments),
            filled_bytes: now(&self.filled_bytes),
            unfillable: now(&self.unfillable),
            fill_slots: now(&self.fill_slots),
            fill_done: now(&self.fill_done),
            fill_total: now(&self.fill_total),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
