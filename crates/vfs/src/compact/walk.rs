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
    /// No walk over what was written begins before.
    rests_until: Duration,
    /// No walk at all begins before.
    paused_until: Duration,
    /// The last walk over everything.
    last: Option<Last>,
}

/// A walk that has ended.
struct Last {
    ended: Duration,
    worked: Duration,
    rewritten: u64,
}

impl Last {
    /// When the next one may begin.
    fn rests_until(&self, need: Need) -> Duration {
        match need {
            Need::Little => self.ended + rest(self.worked, REST_UNHURRIED),
            _ if self.rewritten > 0 => self.ended,
            _ => self.ended + rest(self.worked, REST),
        }
    }
}

fn rest(worked: Duration, [least, most]: [Duration; 2]) -> Duration {
    (worked * REST_FACTOR).clamp(least, most)
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
        self.walk = None;
        self.paused_until = now + longest;
        longest
    }
}

impl Vfs {
    /// A file of now `size` bytes was written in pieces, shorter than a window, that start at these places, and the
    /// service has the rows: their windows may be worth compacting.
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
        let Some(walk) = &mut compactor.walk else { return Ok(self.begin_walk(compactor, need)) };
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
            // Since it was found there may have become less room, and others are worth more.
            if !need.wants(&window) {
                return Ok(Duration::ZERO);
            }
            walk.rewritten += u64::from(self.rewrite(&window).await?);
            if need == Need::Little { UNHURRIED } else { Duration::ZERO }
        } else if let Some((from, look)) = walk.next() {
            let query = Query::Scattered { volume: self.volume(), ino: from.0, start: from.1, look };
            let Answer::Scattered { windows, next } = self.ask(query).await? else { return Err(Errno::EIO) };
            walk.found.extend(windows.into_iter().filter(|window| need.wants(window)));
            walk.looked(next);
            Duration::ZERO
        } else {
            self.end_walk(compactor);
            return Ok(Duration::ZERO);
        };
        walk.worked += self.clock.elapsed().saturating_sub(began);
        Ok(pause)
    }

    /// A walk over everything if it is time, over what was written if there is such, or a pause.
    fn begin_walk(&self, compactor: &mut Compactor, need: Need) -> Duration {
        let now = self.clock.elapsed();
        let mut written = self.compaction.written();
        let all_from = compactor.last.as_ref().map_or(Duration::ZERO, |last| last.rests_until(need));
        let [_, longest] = REST;
        let route = match () {
            () if self.is_waited_for() => Route::All(Some((Ino(0), 0))),
            () if now < compactor.paused_until => return compactor.paused_until - now,
            () if now >= all_from => Route::All(Some((Ino(0), 0))),
            // Room may become short meanwhile.
            () if written.is_empty() => return (all_from - now).min(longest),
            () if now < compactor.rests_until => return (compactor.rests_until - now).min(all_from - now),
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

    fn end_walk(&self, compactor: &mut Compactor) {
        let Some(walk) = compactor.walk.take() else { return };
        let ended = self.clock.elapsed();
        compactor.rests_until = ended + rest(walk.worked, REST);
        if let Route::All(_) = walk.route {
            self.compaction.walks.fetch_add(1, Ordering::Relaxed);
            if walk.rewritten == 0 && walk.need == Need::Urgent {
                self.compaction.barren.store(walk.flushes + 1, Ordering::Relaxed);
            }
            compactor.last = Some(Last { ended, worked: walk.worked, rewritten: walk.rewritten });
        }
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
                // when everything is. That of the next row was not looked at, wherever in it the row is.
                windows.pop_first();
                *windows = windows.split_off(&(next.0, next.1 / EXTENT_MAX * EXTENT_MAX));
            }
            (Route::Written(windows), None) => windows.clear(),
        }
    }
}

#[cfg(test)]
mod tests;
