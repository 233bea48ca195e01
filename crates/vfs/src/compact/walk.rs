//! Which windows are looked at, in which order, and how long compaction rests in between.
//!
//! A walk over everything reads all map rows of the volume, which takes long where there are many files. What was
//! written in pieces since is known, and looked at long before the next such walk.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use namespace::{Answer, Query, Scattered};
use types::{BLOCK, EXTENT_MAX, Errno, Ino};

use super::{NEEDLESS_ROWS, Need};
use crate::vfs::Vfs;

/// Map rows that one step of a walk over everything looks at.
const LOOK: u32 = 4096;

/// Map rows that one step looks at for a window that was written in pieces: twice as many as it has pages.
const LOOK_WRITTEN: u32 = 512;

/// From one window to the next while there is much room: about 20 MiB in a second.
const UNHURRIED: Duration = Duration::from_millis(50);

/// How long a window waits at most for a moment in which nothing is flushed.
const BUSY_WAITS: u32 = 20;

/// How many times as long as a walk worked is the rest after it.
const REST_FACTOR: u32 = 10;

/// The shortest and the longest rest.
const REST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// The same between two walks over everything while there is much room: what is written is looked at anyhow, and a mount
/// that nobody uses shall be still.
const REST_UNHURRIED: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(600)];

/// Windows that are remembered as written in pieces; others are found by the next walk over everything.
const WRITTEN_MAX: usize = 1024;

/// A file of so many bytes has not the rows that make one worth compacting; what it left in other extents is found when
/// everything is looked at.
const FEW_ROWS_SIZE: u64 = NEEDLESS_ROWS as u64 * BLOCK;

/// A window of 1 MiB of a file, by its first byte.
type Window = (Ino, u64);

/// The compactor between two steps.
#[derive(Default)]
pub(super) struct Compactor {
    walk: Option<Walk>,
    /// No walk begins before.
    rests_until: Duration,
    /// No walk over everything begins before.
    all_rests_until: Duration,
}

/// What a walk has yet to look at.
enum Route {
    /// All map rows from here on.
    All(Option<Window>),
    /// These windows.
    Written(BTreeSet<Window>),
}

/// Where a walk is.
struct Walk {
    route: Route,
    found: VecDeque<Scattered>,
    /// How long it has looked and rewritten; waiting for others is no work.
    worked: Duration,
    /// The least need of any of its steps.
    need: Need,
    /// Flushes there had been when it began, and at the last step.
    flushes: u64,
    seen: u64,
    rewritten: u64,
    busy: u32,
}

impl Compactor {
    /// The service did not answer, or refuses changes: nothing for the longest pause, which is answered.
    pub(super) fn rest_long(&mut self, now: Duration) -> Duration {
        let [_, longest] = REST;
        *self = Compactor { walk: None, rests_until: now + longest, all_rests_until: now + longest };
        longest
    }
}

impl Vfs {
    /// A file of now `size` bytes was written in pieces, shorter than a window, that start at these places: their
    /// windows may be worth compacting.
    pub(crate) fn written_in_pieces(&self, ino: Ino, size: u64, starts: &[u64]) {
        if size <= FEW_ROWS_SIZE || starts.is_empty() {
            return;
        }
        let mut written = self.compaction.written();
        let first = written.is_empty();
        for start in starts {
            if written.len() == WRITTEN_MAX {
                break;
            }
            written.insert((ino, start / EXTENT_MAX * EXTENT_MAX));
        }
        drop(written);
        if first {
            self.compaction.wake.notify_one();
        }
    }

    /// Begins a walk, looks for windows, or rewrites one. Answers how long to pause.
    pub(super) async fn compact_step(&self, compactor: &mut Compactor) -> Result<Duration, Errno> {
        let need = self.need();
        let Some(walk) = &mut compactor.walk else { return Ok(self.begin_walk(compactor)) };
        walk.need = walk.need.min(need);
        let began = self.clock.elapsed();
        let pause = if let Some(window) = walk.found.front().copied() {
            let flushes = self.flushes.load(Ordering::Relaxed);
            if need == Need::Little && walk.busy < BUSY_WAITS && flushes != walk.seen {
                (walk.seen, walk.busy) = (flushes, walk.busy + 1);
                return Ok(UNHURRIED);
            }
            walk.busy = 0;
            walk.found.pop_front();
            walk.rewritten += u64::from(self.rewrite(&window).await?);
            if need == Need::Little { UNHURRIED } else { Duration::ZERO }
        } else if let Some((from, look)) = walk.next() {
            let query = Query::Scattered { volume: self.volume(), ino: from.0, start: from.1, look };
            let Answer::Scattered { windows, next } = self.ask(query).await? else { return Err(Errno::EIO) };
            walk.found.extend(windows.into_iter().filter(|window| need.wants(window)));
            walk.looked(next);
            Duration::ZERO
        } else {
            return Ok(self.end_walk(compactor, need));
        };
        walk.worked += self.clock.elapsed().saturating_sub(began);
        Ok(pause)
    }

    /// A walk over everything if it is time, over what was written if there is such, or a pause.
    fn begin_walk(&self, compactor: &mut Compactor) -> Duration {
        let now = self.clock.elapsed();
        let mut written = self.compaction.written();
        let route = match () {
            () if self.is_waited_for() || now >= compactor.all_rests_until => Route::All(Some((Ino(0), 0))),
            () if written.is_empty() => return compactor.all_rests_until - now,
            () if now < compactor.rests_until => return compactor.rests_until - now,
            () => Route::Written(std::mem::take(&mut *written)),
        };
        drop(written);
        let flushes = self.flushes.load(Ordering::Relaxed);
        compactor.walk = Some(Walk {
            route,
            found: VecDeque::new(),
            worked: Duration::ZERO,
            need: Need::Urgent,
            flushes,
            seen: flushes,
            rewritten: 0,
            busy: 0,
        });
        Duration::ZERO
    }

    fn end_walk(&self, compactor: &mut Compactor, need: Need) -> Duration {
        let Some(walk) = compactor.walk.take() else { return Duration::ZERO };
        let now = self.clock.elapsed();
        let rest = |[least, most]: [Duration; 2]| (walk.worked * REST_FACTOR).clamp(least, most);
        compactor.rests_until = now + rest(REST);
        if let Route::All(_) = walk.route {
            self.compaction.walks.fetch_add(1, Ordering::Relaxed);
            if walk.rewritten == 0 && walk.need == Need::Urgent {
                self.compaction.barren.store(walk.flushes + 1, Ordering::Relaxed);
            }
            compactor.all_rests_until = match need {
                Need::Little => now + rest(REST_UNHURRIED),
                _ if walk.rewritten > 0 => now,
                _ => now + rest(REST),
            };
        }
        Duration::ZERO
    }
}

impl Walk {
    /// Where it looks next, and at how many rows.
    fn next(&self) -> Option<(Window, u32)> {
        match &self.route {
            Route::All(next) => next.map(|from| (from, LOOK)),
            Route::Written(windows) => windows.first().map(|from| (*from, LOOK_WRITTEN)),
        }
    }

    /// Everything before `next` was looked at, or all there is.
    fn looked(&mut self, next: Option<Window>) {
        match (&mut self.route, next) {
            (Route::All(at), next) => *at = next,
            (Route::Written(windows), Some(next)) => {
                // A window with more rows than were looked at is not looked at to its end: what is left of it is found
                // when everything is.
                windows.pop_first();
                *windows = windows.split_off(&next);
            }
            (Route::Written(windows), None) => windows.clear(),
        }
    }
}

#[cfg(test)]
mod tests;
