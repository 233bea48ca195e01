//! Compaction: bytes that lie in too many extents, or in extents that hold little else any more, are written anew.
//!
//! A walk over the map rows, of everything or of what was just written, finds windows of 1 MiB that would take less in
//! one extent. One window at a time is read, sealed, and committed by comparing its rows, without a lock: whatever
//! changed a row meanwhile wins, and the new extents are garbage. Nobody sees more of it than that an extent, once read
//! from the map, may be gone a moment later.
//!
//! While there is much room only what is worth it is rewritten, slowly and beside other work. The less room is left the
//! less a window must give back; writers that find none wait as long as compaction finds something. It works with room
//! that nobody was promised, and when that is short only where what it takes comes back at once.

mod rewrite;
mod walk;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use extents::SealError;
use namespace::{NewExtent, Scattered};
use tokio::sync::Notify;
use types::{Errno, Ino};

use self::walk::Compactor;
use crate::errno;
use crate::space::WALKS_MAX;
use crate::vfs::Vfs;

/// A window may have so many rows that one extent would not need.
const NEEDLESS_ROWS: u32 = 32;

/// How long what was rewritten takes to be reclaimed, at most: tries, and the wait between two.
const RECLAIM_TRIES: u32 = 30;
const RECLAIM_WAIT: Duration = Duration::from_millis(100);

/// What compaction has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CompactionFigures {
    /// Walks over all map rows.
    pub walks: u64,
    /// Windows of files that were written anew.
    pub windows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Windows that somebody changed meanwhile.
    pub lost: u64,
    /// Windows that could not be read or written.
    pub failed: u64,
}

/// How much must come back for a window to be rewritten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Need {
    /// There is room: half of the bytes must be waste, or the rows many.
    Little,
    /// Less than a fifth of the disks is free: an eighth.
    Some,
    /// Somebody waits for room, or will soon: a thirty-second.
    Urgent,
}

impl Need {
    fn wants(self, window: &Scattered) -> bool {
        let part = match self {
            Need::Little => 2,
            Need::Some => 8,
            Need::Urgent => 32,
        };
        // A new extent has a header too: where not even that is given back nothing is.
        let gives = window.waste >= types::BLOCK && window.waste * part >= window.bytes;
        // Fewer rows alone give nothing back: extents that other files share stay.
        match self {
            Need::Little => gives || window.needless_rows > NEEDLESS_ROWS,
            Need::Some => gives,
            // What it takes has to come back at once: other windows may never get their turn.
            Need::Urgent => gives && window.frees >= window.bytes,
        }
    }
}

/// What the compactor and those who wait for it share.
#[derive(Default)]
pub(crate) struct Compaction {
    running: AtomicBool,
    waiting: AtomicU32,
    wake: Notify,
    /// How many flushes there had been, plus one, when a walk began that was urgent and found nothing.
    barren: AtomicU64,
    walks: AtomicU64,
    windows: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    failed: AtomicU64,
    /// Windows that were written in pieces since the walk that looked at them.
    written: Mutex<BTreeSet<(Ino, u64)>>,
}

impl Compaction {
    fn written(&self) -> MutexGuard<'_, BTreeSet<(Ino, u64)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Walks that have ended.
    pub(crate) fn walks(&self) -> u64 {
        self.walks.load(Ordering::Relaxed)
    }

    pub(crate) fn figures(&self) -> CompactionFigures {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CompactionFigures {
            walks: now(&self.walks),
            windows: now(&self.windows),
            bytes: now(&self.bytes),
            lost: now(&self.lost),
            failed: now(&self.failed),
        }
    }
}

/// Somebody waits for room: while it lives compaction hurries.
pub(crate) struct WaitsForRoom<'a>(&'a Compaction);

impl Drop for WaitsForRoom<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says that nobody runs the compactor any more.
struct Running<'a>(&'a Compaction);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Relaxed);
    }
}

impl Vfs {
    /// Rewrites scattered data in the background until `stop` resolves. Dropping the future leaves at most an extent
    /// that nothing names, which is given up with the session.
    pub async fn run_compactor(&self, stop: impl Future<Output = ()>) {
        let compaction = &self.compaction;
        compaction.running.store(true, Ordering::Relaxed);
        let _running = Running(compaction);
        let mut stop = pin!(stop);
        let mut compactor = Compactor::default();
        loop {
            let pause = match self.compact_step(&mut compactor).await {
                Ok(pause) => pause,
                Err(errno) => {
                    tracing::debug!(%errno, "compaction pauses");
                    compactor.rest_long(self.clock.elapsed())
                }
            };
            let pause = if self.is_waited_for() { pause.min(Duration::from_millis(1)) } else { pause };
            // A simulated clock does not wait, so others get their turn here.
            tokio::task::yield_now().await;
            tokio::select! {
                biased;
                // Nothing is half done between two steps: all three only wait.
                () = &mut stop => return,
                () = compaction.wake.notified() => {}
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    /// Asks compaction to hurry as long as the answer lives.
    pub(crate) fn wait_for_room(&self) -> WaitsForRoom<'_> {
        self.compaction.waiting.fetch_add(1, Ordering::Relaxed);
        self.compaction.wake.notify_one();
        WaitsForRoom(&self.compaction)
    }

    /// Whether compaction may still find room: it runs, and no urgent walk since the last flush has found nothing.
    pub(crate) fn may_find_room(&self) -> bool {
        let flushes = self.flushes.load(Ordering::Relaxed);
        self.compaction.running.load(Ordering::Relaxed)
            && self.compaction.barren.load(Ordering::Relaxed) != flushes + 1
            && self.broken.get().is_none()
    }

    /// Seals bytes. While no disk has room it waits for compaction, as long as that finds something, and a moment longer
    /// for what was found to be reclaimed.
    pub(crate) async fn seal_when_there_is_room(&self, bytes: &[u8]) -> Result<Vec<NewExtent>, SealError> {
        let mut hurry = None;
        let (walks, mut last_tries) = (self.compaction.walks(), RECLAIM_TRIES);
        loop {
            let error = match self.extents.seal_in_pieces(bytes, types::BLOCK as usize).await {
                Err(error) if errno::of_seal(&error) == Errno::ENOSPC => error,
                sealed => return sealed,
            };
            match self.may_find_room() {
                true if self.compaction.walks() > walks + WALKS_MAX => return Err(error),
                true => last_tries = RECLAIM_TRIES,
                false if hurry.is_none() || last_tries == 0 => return Err(error),
                false => last_tries -= 1,
            }
            hurry.get_or_insert_with(|| self.wait_for_room());
            self.clock.sleep(RECLAIM_WAIT).await;
        }
    }

    fn is_waited_for(&self) -> bool {
        self.compaction.waiting.load(Ordering::Relaxed) > 0
    }

    fn need(&self) -> Need {
        let space = self.extents.space();
        match () {
            () if self.is_waited_for() || space.free < space.total / 24 => Need::Urgent,
            () if space.free < space.total / 5 => Need::Some,
            () => Need::Little,
        }
    }
}
