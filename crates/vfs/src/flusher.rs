//! When what is flushed: by age, on close, under pressure, at the end.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use arena::Summary;
use futures_util::StreamExt;
use futures_util::stream;
use types::{Errno, Ino};

use crate::vfs::Vfs;

/// No accepted write is older than this when its flush begins.
const AGE_MAX: Duration = Duration::from_secs(1);

/// How long files gather that were closed: many that are flushed side by side share the flushes of the disk. Whoever
/// waits for one, by fsync, flushes it himself.
const LINGER: Duration = Duration::from_millis(10);

/// How many files are flushed at once.
const FLUSHES: usize = 8;

/// How many are looked at in one round.
const ROUND: usize = 256;

/// Dirty files are flushed, however young, when the arena is fuller than this many hundredths.
const PRESSURE: u64 = 60;

/// A file with so many bytes to flush is flushed at once: whoever writes on and then waits for all of it finds most of
/// it stored, and the disk has work while more is accepted.
pub(crate) const STREAM_BYTES: u64 = 8 << 20;

/// Inodes that were closed with data to flush.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    inos: BTreeSet<Ino>,
    /// When the first of them was.
    since: Duration,
}

impl Closed {
    /// Whether it is the first.
    fn add(&mut self, ino: Ino, now: Duration) -> bool {
        let first = self.inos.is_empty();
        if first {
            self.since = now;
        }
        self.inos.insert(ino);
        first
    }

    /// After which time they are to be flushed, if there are any.
    fn due_in(&self, now: Duration) -> Option<Duration> {
        (!self.inos.is_empty()).then(|| (self.since + LINGER).saturating_sub(now))
    }

    /// All of them, if it is time.
    fn take(&mut self, hurry: bool, now: Duration) -> BTreeSet<Ino> {
        match self.due_in(now) {
            Some(left) if hurry || left.is_zero() => std::mem::take(&mut self.inos),
            _ => BTreeSet::new(),
        }
    }
}

/// Not everything that was accepted is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{files} files have data that could not be stored: {errno}")]
pub struct FlushAllError {
    /// How many files.
    pub files: usize,
    /// The last error.
    pub errno: Errno,
}

impl Vfs {
    /// Flushes written data in the background until `stop` resolves: what is a second old, what was closed,
    /// files with much to flush, and everything while the arena is nearly full. A flush that failed is tried again, at growing intervals.
    ///
    /// It does not flush what is left when it ends: see [`Vfs::flush_everything`]. Dropping the future between two
    /// polls leaves nothing half done that a later flush would not do again.
    pub async fn run_flusher(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            self.looks_soon.store(false, Ordering::SeqCst);
            let pause = self.flush_round().await;
            // What comes before this wakes the flusher, what comes after it can wait.
            self.looks_soon.store(pause.is_some_and(|span| span <= AGE_MAX), Ordering::SeqCst);
            let pause = async {
                match pause {
                    Some(span) => self.clock.sleep(span).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // Nothing was begun: all of them only wait.
                () = &mut stop => return,
                () = self.work.notified() => {}
                () = self.next_landing() => self.after_landing().await,
                () = pause => {}
            }
        }
    }

    /// There is something for the flusher that may wait a second. It is woken only if it would sleep longer: waking it
    /// takes longer than to accept a write.
    pub(crate) fn tell_flusher(&self) {
        if !self.looks_soon.load(Ordering::SeqCst) {
            self.work.notify_one();
        }
    }

    /// Makes everything durable that was accepted before this was called, failed flushes included.
    pub async fn flush_everything(&self) -> Result<(), FlushAllError> {
        let mut seen = BTreeSet::new();
        let mut failed = None;
        loop {
            // Those that failed stay in the list, before others that were not tried yet.
            let dirty = self.arena.dirty(ROUND + seen.len());
            let fresh: Vec<Ino> = dirty.iter().map(|one| one.ino).filter(|ino| seen.insert(*ino)).collect();
            if fresh.is_empty() {
                let settled = self.settle().await;
                let files = self.in_the_air();
                return match (failed, settled) {
                    (Some(failed), _) => Err(failed),
                    (None, Err(errno)) if files > 0 => Err(FlushAllError { files, errno }),
                    (None, _) => Ok(()),
                };
            }
            let (_, failures) = self.flush_these(fresh).await;
            if let Some(errno) = failures.last() {
                let files = failures.len() + failed.map_or(0, |failed: FlushAllError| failed.files);
                failed = Some(FlushAllError { files, errno: *errno });
            }
        }
    }

    /// Makes durable what is accepted now, each file once: unlike [`Vfs::flush_everything`] it comes to an end while
    /// others write on.
    pub async fn flush_accepted(&self) -> Result<(), FlushAllError> {
        self.store_touches().await;
        let dirty: Vec<Ino> = self.arena.dirty(usize::MAX).iter().map(|one| one.ino).collect();
        let (_, failures) = self.flush_these(dirty).await;
        let settled = self.settle().await;
        match (failures.last(), settled) {
            (Some(errno), _) => Err(FlushAllError { files: failures.len(), errno: *errno }),
            (None, Err(errno)) => Err(FlushAllError { files: self.in_the_air(), errno }),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Stores atimes and flushes what is due. Answers after which time something more may be due, `None` if nothing
    /// will be until somebody writes.
    async fn flush_round(&self) -> Option<Duration> {
        self.store_touches().await;
        if let Some(errno) = self.broken.get() {
            self.give_up(*errno);
            return None;
        }
        let pressure = self.is_under_pressure();
        let closed = self.closed().take(pressure, self.clock.elapsed());
        let dirty = self.arena.dirty(ROUND);
        let is_due = |one: &&Summary| pressure || one.bytes >= STREAM_BYTES || self.age(one) >= AGE_MAX;
        let due: BTreeSet<Ino> = dirty.iter().filter(is_due).map(|one| one.ino).collect();
        let due: Vec<Ino> = due.union(&closed).copied().filter(|ino| self.may_try(*ino)).collect();
        let (flushed, failures) = self.flush_these(due).await;
        let stuck = if flushed > 0 { None } else { failures.last().copied() };
        if flushed > 0 || !failures.is_empty() {
            *self.stuck.lock().unwrap_or_else(PoisonError::into_inner) = stuck;
            self.freed.notify_waiters();
        }
        self.next_round()
    }

    /// The data of a closed file, if it has any, is to be flushed soon.
    pub(crate) fn flush_soon(&self, ino: Ino) {
        if self.arena.summary(ino).is_some() && self.closed().add(ino, self.clock.elapsed()) {
            self.work.notify_one();
        }
    }

    fn closed(&self) -> MutexGuard<'_, Closed> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_round(&self) -> Option<Duration> {
        /// Not to spin when clocks are set or disagree.
        const SHORTEST: Duration = Duration::from_millis(5);
        let now = self.clock.elapsed();
        let touched = !self.touched.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let pressure = self.is_under_pressure();
        let waits = self.arena.dirty(ROUND).into_iter().map(|one| {
            let failing = self.table.find(one.ino).and_then(|node| node.state().failing);
            match failing {
                Some(failing) => failing.next.saturating_sub(now),
                None if pressure || one.bytes >= STREAM_BYTES => Duration::ZERO,
                None => AGE_MAX.saturating_sub(self.age(&one)),
            }
        });
        let soonest = waits.chain(self.closed().due_in(now)).min().map(|span| span.max(SHORTEST));
        if touched { Some(soonest.unwrap_or(AGE_MAX).min(AGE_MAX)) } else { soonest }
    }

    /// Flushes these files, several at once; how many succeeded, and the errors of the others.
    async fn flush_these(&self, inos: Vec<Ino>) -> (usize, Vec<Errno>) {
        let flushes = stream::iter(inos).map(|ino| async move {
            let node = self.node(ino);
            self.flush_node(&node).await
        });
        let results: Vec<Result<(), Errno>> = flushes.buffer_unordered(FLUSHES).collect().await;
        let failures: Vec<Errno> = results.iter().filter_map(|result| result.err()).collect();
        (results.len() - failures.len(), failures)
    }

    async fn store_touches(&self) {
        let touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stores = stream::iter(touched).map(|ino| async move {
            let node = self.node(ino);
            self.store_touch(&node).await;
        });
        stores.buffer_unordered(FLUSHES).collect::<()>().await;
    }

    /// Something has landed, or nothing ever will.
    async fn after_landing(&self) {
        self.land();
        if let Some(first) = self.first_landing()
            && self.session.is_over()
            && let Err(errno) = self.settle_to(first).await
        {
            self.give_up(errno);
        }
    }

    /// Nothing can be stored any more: whoever has written hears of it.
    fn give_up(&self, errno: Errno) {
        let accepted = self.arena.dirty(usize::MAX).into_iter().map(|dirty| dirty.ino);
        for ino in accepted.chain(self.take_lost_landings()) {
            let node = self.node(ino);
            if std::mem::replace(&mut node.state().lost, true) {
                continue;
            }
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(ino = ino.0, "written data was lost");
            if let Err(error) = self.arena.raise_late_error(ino, errno) {
                tracing::error!(ino = ino.0, %error, "nobody can be told of written data that was lost");
            }
        }
        self.freed.notify_waiters();
    }

    fn age(&self, dirty: &Summary) -> Duration {
        let nanos = self.now().0.saturating_sub(dirty.oldest.0);
        // A clock that was set back makes everything due.
        u64::try_from(nanos).map_or(AGE_MAX, Duration::from_nanos)
    }

    fn may_try(&self, ino: Ino) -> bool {
        let failing = self.table.find(ino).and_then(|node| node.state().failing);
        failing.is_none_or(|failing| failing.next <= self.clock.elapsed())
    }

    /// Whether writes fill the arena faster than age flushes it.
    pub(crate) fn is_under_pressure(&self) -> bool {
        self.arena.used() * 100 >= self.arena.capacity() * PRESSURE
    }

    /// The error of the last round, if it flushed nothing.
    pub(crate) fn stuck(&self) -> Option<Errno> {
        *self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
