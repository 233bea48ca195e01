//! Compaction: bytes that lie in too many extents, or in extents that hold little else any more, are written anew.
//!
//! A walk over the map rows finds windows of 1 MiB that would take less in one extent. One window at a time is read,
//! sealed, and committed by comparing its rows, without a lock: whatever changed a row meanwhile wins, and the new
//! extents are garbage. Nobody sees more of it than that an extent, once read from the map, may be gone a moment later.
//!
//! While there is much room only what is worth it is rewritten, slowly and beside other work. The less room is left the
//! less a window must give back; writers that find none wait as long as compaction finds something. It works with room
//! that nobody was promised, and when that is short only where what it takes comes back at once.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use extents::SealError;
use futures_util::future::join_all;
use namespace::{Answer, Command, NewExtent, Query, Reply, Scattered, Segment};
use tokio::sync::Notify;
use types::{Errno, Ino};

use crate::errno;
use crate::pack;
use crate::space::WALKS_MAX;
use crate::vfs::Vfs;

/// Map rows that one step of the walk looks at.
const LOOK: u32 = 4096;

/// Map rows that one rewrite replaces at most.
const ROWS: u32 = 8192;

/// A window may have so many rows that one extent would not need.
const NEEDLESS_ROWS: u32 = 32;

/// A rewrite that finds only runs shorter than this gives back too little.
const PIECE_MIN: usize = 128 << 10;

/// From one window to the next while there is much room: about 20 MiB in a second.
const UNHURRIED: Duration = Duration::from_millis(50);

/// How long a window waits at most for a moment in which nothing is flushed.
const BUSY_WAITS: u32 = 20;

/// Between two walks: the shortest and the longest pause, and how many times as long as the walk it is.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);
const REST_FACTOR: u32 = 10;

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
}

impl Compaction {
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

/// Where a walk is.
struct Walk {
    next: Option<(Ino, u64)>,
    found: VecDeque<Scattered>,
    began: Duration,
    /// The least need of any of its steps.
    need: Need,
    /// Flushes there had been when it began, and at the last step.
    flushes: u64,
    seen: u64,
    rewritten: u64,
    busy: u32,
}

impl Vfs {
    /// Rewrites scattered data in the background until `stop` resolves. Dropping the future leaves at most an extent
    /// that nothing names, which is given up with the session.
    pub async fn run_compactor(&self, stop: impl Future<Output = ()>) {
        let compaction = &self.compaction;
        compaction.running.store(true, Ordering::Relaxed);
        let _running = Running(compaction);
        let mut stop = pin!(stop);
        let mut walk = self.new_walk();
        loop {
            let pause = match self.compact_step(&mut walk).await {
                Ok(pause) => pause,
                Err(errno) => {
                    tracing::debug!(%errno, "compaction pauses");
                    walk = self.new_walk();
                    REST_MAX
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

    fn new_walk(&self) -> Walk {
        Walk {
            next: Some((Ino(0), 0)),
            found: VecDeque::new(),
            began: self.clock.elapsed(),
            need: Need::Urgent,
            flushes: self.flushes.load(Ordering::Relaxed),
            seen: 0,
            rewritten: 0,
            busy: 0,
        }
    }

    /// Looks for windows, or rewrites one. Answers how long to pause.
    async fn compact_step(&self, walk: &mut Walk) -> Result<Duration, Errno> {
        let need = self.need();
        walk.need = walk.need.min(need);
        if let Some(window) = walk.found.front().copied() {
            let flushes = self.flushes.load(Ordering::Relaxed);
            if need == Need::Little && walk.busy < BUSY_WAITS && flushes != walk.seen {
                (walk.seen, walk.busy) = (flushes, walk.busy + 1);
                return Ok(UNHURRIED);
            }
            walk.busy = 0;
            walk.found.pop_front();
            walk.rewritten += u64::from(self.rewrite(&window).await?);
            return Ok(if need == Need::Little { UNHURRIED } else { Duration::ZERO });
        }
        if let Some((ino, start)) = walk.next {
            let query = Query::Scattered { volume: self.volume(), ino, start, look: LOOK };
            let Answer::Scattered { windows, next } = self.ask(query).await? else { return Err(Errno::EIO) };
            walk.found.extend(windows.into_iter().filter(|window| need.wants(window)));
            walk.next = next;
            return Ok(Duration::ZERO);
        }
        self.compaction.walks.fetch_add(1, Ordering::Relaxed);
        let (began, rewritten) = (walk.began, walk.rewritten);
        if rewritten == 0 && walk.need == Need::Urgent {
            self.compaction.barren.store(walk.flushes + 1, Ordering::Relaxed);
        }
        *walk = self.new_walk();
        let rest = (walk.began.saturating_sub(began) * REST_FACTOR).clamp(REST_MIN, REST_MAX);
        Ok(if rewritten > 0 && need != Need::Little { Duration::ZERO } else { rest })
    }

    /// Writes what lies in a window into new extents; `false` if it was changed meanwhile, or cannot be read or written.
    async fn rewrite(&self, window: &Scattered) -> Result<bool, Errno> {
        let ino = window.ino;
        let query =
            Query::Map { volume: self.volume(), ino, start: window.start, end: window.end, max: ROWS };
        let segments = match self.ask(query).await {
            Ok(Answer::Map { segments, .. }) => segments,
            Ok(_) | Err(Errno::ESTALE) => return Ok(self.lose()),
            Err(errno) => return Err(errno),
        };
        let rows: Vec<_> = segments
            .into_iter()
            .filter(|row| row.start >= window.start && row.start + row.len <= window.end)
            .filter_map(|row| row.data.map(|(extent, offset)| (row.start, row.len as u32, extent, offset)))
            .collect();
        let bytes: u64 = rows.iter().map(|(_, len, ..)| u64::from(*len)).sum();
        if rows.is_empty() || bytes > 2 * types::EXTENT_MAX {
            return Ok(self.lose());
        }
        // What was accepted has its room: compaction takes none of it, and is in nobody's way when it waits for its own.
        let takes = bytes.next_multiple_of(types::BLOCK) + (bytes / PIECE_MIN as u64 + 2) * types::BLOCK;
        let Some(_lent) = self.space.lend(takes, || self.extents.space()) else {
            self.compaction.failed.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        };
        let mut plain = Vec::with_capacity(bytes as usize);
        for rows in rows.chunks(16) {
            let reads = rows
                .iter()
                .map(|(_, len, extent, offset)| self.extents.read(extent, *offset..*offset + *len));
            for read in join_all(reads).await {
                match read {
                    Ok(read) => plain.extend_from_slice(&read),
                    Err(error) => {
                        // Overwritten since the map was read, or damaged: then whoever reads the file is told.
                        tracing::debug!(ino = ino.0, %error, "a window was not compacted");
                        self.compaction.failed.fetch_add(1, Ordering::Relaxed);
                        return Ok(false);
                    }
                }
            }
        }
        let mut extents = Vec::new();
        for part in plain.chunks(types::EXTENT_MAX as usize) {
            match self.extents.seal_in_pieces(part, PIECE_MIN).await {
                Ok(sealed) => extents.extend(sealed),
                Err(error) => {
                    tracing::debug!(ino = ino.0, %error, "a window was not compacted");
                    self.discard(&extents).await;
                    self.compaction.failed.fetch_add(1, Ordering::Relaxed);
                    return Ok(false);
                }
            }
        }
        let from: Vec<Segment> = rows
            .iter()
            .map(|(start, len, extent, offset)| Segment {
                start: *start,
                len: *len,
                extent: extent.id,
                offset: *offset,
            })
            .collect();
        let ranges: Vec<_> = from.iter().map(|row| row.start..row.start + u64::from(row.len)).collect();
        let to = pack::segments(&ranges, &extents);
        let command = Command::Rewrite { ino, from, extents: extents.clone(), to };
        match self.session.call(command).await {
            Ok(Reply::Attr(_)) => {
                extents.iter().for_each(|extent| self.extents.committed(extent.id));
                self.compaction.windows.fetch_add(1, Ordering::Relaxed);
                self.compaction.bytes.fetch_add(bytes, Ordering::Relaxed);
                // What it gives back comes with reclaim.
                self.space.shrank();
                Ok(true)
            }
            Ok(Reply::Failed(Errno::EAGAIN | Errno::ESTALE)) => {
                self.discard(&extents).await;
                Ok(self.lose())
            }
            Ok(refused @ Reply::Failed(_)) => {
                self.discard(&extents).await;
                Err(errno::of_wrong_reply(&refused))
            }
            // From here on it is unknown whether rows name them: they stay in flight, and nothing is deleted.
            Ok(unknown) => Err(errno::of_wrong_reply(&unknown)),
            Err(error) => Err(self.no_answer(&error)),
        }
    }

    /// Takes back extents of a rewrite that did not come about: a busy file must not fill the disk with them.
    async fn discard(&self, extents: &[NewExtent]) {
        for extent in extents {
            self.extents.discard(extent).await;
        }
    }

    /// Somebody changed a window first.
    fn lose(&self) -> bool {
        self.compaction.lost.fetch_add(1, Ordering::Relaxed);
        false
    }
}
