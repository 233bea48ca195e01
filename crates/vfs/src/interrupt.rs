//! Writes that wait for room, and callers that are gone meanwhile.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::vfs::Vfs;

/// The writes that wait for room in the arena by their request's number, and whether their caller is gone.
#[derive(Default)]
pub(crate) struct RoomWaits(Mutex<BTreeMap<u64, bool>>);

impl RoomWaits {
    fn map(&self) -> MutexGuard<'_, BTreeMap<u64, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a write waits.
    #[cfg(test)]
    pub(crate) fn has(&self, unique: u64) -> bool {
        self.map().contains_key(&unique)
    }
}

/// A write that waits, as long as it lives.
pub(crate) struct RoomWait<'a> {
    waits: &'a RoomWaits,
    unique: u64,
}

impl RoomWait<'_> {
    pub(crate) fn is_unwanted(&self) -> bool {
        self.waits.map().get(&self.unique) == Some(&true)
    }
}

impl Drop for RoomWait<'_> {
    fn drop(&mut self) {
        self.waits.map().remove(&self.unique);
    }
}

impl Vfs {
    /// The caller of the request `unique` is gone. If that is a write which waits for room in the arena it ends now: with
    /// what was accepted of it, or with `EINTR`. Any other request goes on.
    pub fn interrupt(&self, unique: u64) {
        let waits = self.room_waits.map().get_mut(&unique).map(|gone| *gone = true).is_some();
        if waits {
            self.freed.notify_waiters();
        }
    }

    pub(crate) fn waits_for_room(&self, unique: u64) -> RoomWait<'_> {
        self.room_waits.map().insert(unique, false);
        RoomWait { waits: &self.room_waits, unique }
    }
}
