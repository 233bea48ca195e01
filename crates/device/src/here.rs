//! Threads that do short operations of real disks themselves.
//!
//! Handing a write to another thread costs two changes of threads: one that has nothing to do until the disk answers is
//! quicker by itself.

use std::cell::Cell;

thread_local! {
    static WAITS_HERE: Cell<bool> = const { Cell::new(false) };
}

/// From now on the calling thread does short writes and flushes of real disks within the call, and the future that it
/// gets is ready. For threads that serve nobody else: one that drives a log, not one of a runtime.
pub fn wait_here() {
    WAITS_HERE.set(true);
}

/// Whether the calling thread does what is short itself.
pub(crate) fn waits() -> bool {
    WAITS_HERE.get()
}
