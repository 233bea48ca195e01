//! One file's accepted writes become the file's: sealed into extents, then committed in their order.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arena::Record;
use futures_util::future::join_all;
use namespace::{Answer, Attr, Command, Commit, Content, NewExtent, Query, Reply, Segment};
use tokio::sync::MutexGuard;
use types::{Dseq, EXTENT_MAX, Errno};

use crate::errno;
use crate::landing::Landing;
use crate::layout::{self, Dirty};
use crate::node::{Failing, Node};
use crate::pack;
use crate::space::Charge;
use crate::vfs::Vfs;

/// A file of at most so many bytes is kept in a row.
const INLINE_MAX: u64 = 4096;

/// How many extents of one batch are sealed at once.
const SEALS: usize = 4;

/// Between two tries of a flush that failed.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What a file's rows hold before a commit.
struct Before {
    attr: Attr,
    /// The bytes that are in a row and not in extents: the whole file, or its first bytes.
    inline: Vec<u8>,
}

/// What was charged for the writes that a flush stores. Given back to the node if the flush fails or is dropped.
struct TakenCharge<'a> {
    vfs: &'a Vfs,
    node: &'a Node,
    charge: Charge,
}

impl<'a> TakenCharge<'a> {
    fn take(vfs: &'a Vfs, node: &'a Node) -> TakenCharge<'a> {
        let mut state = node.state();
        // Blocks that are written from here on are charged anew: this flush may not hold them.
        state.charged_run = (0, 0);
        let charge = std::mem::take(&mut state.charge);
        TakenCharge { vfs, node, charge }
    }

    /// The flush has succeeded: it is given back when its commits are durable.
    fn land(mut self) {
        let charge = std::mem::take(&mut self.charge);
        if !charge.is_nothing() {
            self.vfs.land_later(Landing { charge, ..Landing::of(self.node.ino) });
        }
    }
}

impl Drop for TakenCharge<'_> {
    fn drop(&mut self) {
        if !self.charge.is_nothing() {
            let mut state = self.node.state();
            let newer = std::mem::replace(&mut state.charge, self.charge);
            if !newer.is_nothing() {
                self.vfs.add_charge(&mut state.charge, newer);
            }
        }
    }
}

impl Vfs {
    /// Commits everything that was accepted for a file before this was called. Its data is on the disks then; it is
    /// durable as part of the file with the next [`Vfs::settle`], and whatever is done to the file comes after it.
    pub(crate) async fn flush_node(&self, node: &Node) -> Result<(), Errno> {
        if self.arena.summary(node.ino).is_none() {
            return Ok(());
        }
        let no_flush = node.flush.lock().await;
        self.flush_all_of(node, &no_flush).await
    }

    /// As [`Vfs::flush_node`], by who holds the node's `flush` lock.
    pub(crate) async fn flush_all_of(&self, node: &Node, _alone: &MutexGuard<'_, ()>) -> Result<(), Errno> {
        // Before the look at the records: a write adds both at once, so whatever was charged up to here is theirs. A
        // charge of a later record that this flush gave back would let more be accepted than there is room for.
        let charge = TakenCharge::take(self, node);
        let Some(dirty) = self.arena.summary(node.ino) else {
            charge.land();
            return Ok(());
        };
        let result = match self.broken.get() {
            Some(errno) => Err(*errno),
            None => self.flush_through(node, dirty.last).await,
        };
        match result {
            Ok(()) => {
                charge.land();
                node.state().flushed(dirty.last);
                self.flushes.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(errno) => {
                let now = self.clock.elapsed();
                let mut state = node.state();
                let delay = state.failing.map_or(RETRY_FIRST, |failing| failing.delay);
                state.failing = Some(Failing { errno, next: now + delay, delay: (delay * 2).min(RETRY_MAX) });
                drop(state);
                self.flush_failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(ino = node.ino.0, %errno, "written data could not be stored yet");
                Err(errno)
            }
        }
    }

    async fn flush_through(&self, node: &Node, last: Dseq) -> Result<(), Errno> {
        loop {
            let records = self.arena.records(node.ino, last);
            if records.is_empty() {
                return Ok(());
            }
            let places: Vec<Dirty> =
                records.iter().map(|r| Dirty { range: r.range(), grant: r.grant }).collect();
            let batch = &records[..layout::batch(&places)];
            match self.flush_batch(node, batch).await {
                Ok(()) => {}
                // It was deleted: what was written to it is nobody's.
                Err(Errno::ESTALE) if self.is_deleted(node).await => {
                    self.free_records(node, last);
                    return Ok(());
                }
                // There, but not as this mount left it: nobody may take that for a deleted file.
                Err(Errno::ESTALE) => return Err(Errno::EIO),
                Err(errno) => return Err(errno),
            }
        }
    }

    async fn is_deleted(&self, node: &Node) -> bool {
        let query = Query::GetAttr { volume: self.volume(), ino: node.ino };
        self.ask(query).await == Err(Errno::ESTALE)
    }

    /// Commits records that follow one another in the inode's order, all of one grant.
    async fn flush_batch(&self, node: &Node, records: &[Record]) -> Result<(), Errno> {
        let (Some(last), Some(end)) = (records.last(), records.iter().map(|r| r.range().end).max()) else {
            return Ok(());
        };
        let before = self.rows_before(node).await?;
        let size = before.attr.size.max(end);
        let content = if size <= INLINE_MAX {
            let mut bytes = vec![0; size as usize];
            self.read_rows(node.ino, 0, &mut bytes).await?;
            self.lay_over(node, last.dseq, 0, &mut bytes)?;
            Content::Inline(bytes)
        } else {
            self.seal_all(node, last.dseq, records, &before, size).await?
        };
        let (ids, pieces): (Vec<_>, Vec<_>) = match &content {
            Content::Segments { extents, segments } => {
                let short = segments.iter().filter(|segment| u64::from(segment.len) < EXTENT_MAX);
                (
                    extents.iter().map(|extent| extent.id).collect(),
                    short.map(|segment| segment.start).collect(),
                )
            }
            Content::Inline(_) => (Vec::new(), Vec::new()),
        };
        let (kill_priv, mtime) = {
            let state = node.state();
            (state.kill_priv.is_some(), (!state.has_times_set_after(last.dseq)).then_some(last.time))
        };
        let commit =
            Commit { ino: node.ino, grant: last.grant, applied: last.dseq, content, size, mtime, kill_priv };
        let asked = self.table.asked();
        match self.session.call(Command::Commit(commit)).await {
            Ok(Reply::Attr(attr)) => {
                let moved = Some((before.attr.allocated, attr));
                self.land_later(Landing { ids, pieces, moved, ..Landing::of(node.ino) });
                let mut state = node.state();
                state.store(asked, attr);
                // Before the records go: whoever finds none has to know for what to wait.
                state.committed = Some(self.session.mark());
                if state.kill_priv.is_some_and(|dseq| kill_priv && dseq <= last.dseq) {
                    state.kill_priv = None;
                }
                drop(state);
                self.free_records(node, last.dseq);
                Ok(())
            }
            Ok(refused) => {
                ids.iter().for_each(|id| self.extents.abandoned(*id));
                Err(errno::of_wrong_reply(&refused))
            }
            Err(error) => {
                // After anything but a refusal it is unknown whether rows name them: they stay in flight.
                if errno::session_goes_on(&error) {
                    ids.iter().for_each(|id| self.extents.abandoned(*id));
                }
                Err(self.no_answer(&error))
            }
        }
    }

    async fn rows_before(&self, node: &Node) -> Result<Before, Errno> {
        let query = Query::Map { volume: self.volume(), ino: node.ino, start: 0, end: 1, max: 1 };
        match self.ask(query).await? {
            Answer::Inline { bytes, attr } => Ok(Before { attr, inline: bytes }),
            Answer::Map { prefix, attr, .. } => Ok(Before { attr, inline: prefix }),
            other => Err(errno::of_wrong_answer(&other)),
        }
    }

    /// Seals what records up to `through` wrote, with what the rows have around it in the same blocks.
    async fn seal_all(
        &self,
        node: &Node,
        through: Dseq,
        records: &[Record],
        before: &Before,
        size: u64,
    ) -> Result<Content, Errno> {
        let dirty = layout::union(records.iter().map(Record::range));
        let ranges = layout::extents(&dirty, size, before.inline.len() as u64);
        let mut content = (Vec::new(), Vec::with_capacity(ranges.len()));
        let mut failed = None;
        for packs in pack::packs(&ranges).chunks(SEALS) {
            let seals = packs.iter().map(|pack| self.seal(node, through, &dirty, pack));
            for (pack, sealed) in packs.iter().zip(join_all(seals).await) {
                match sealed {
                    Ok(extents) => {
                        content.1.extend(pack::segments(pack, &extents));
                        content.0.extend(extents);
                    }
                    Err(errno) => failed = Some(errno),
                }
            }
            if failed.is_some() {
                break;
            }
        }
        let (extents, segments): (Vec<NewExtent>, Vec<Segment>) = content;
        match failed {
            None => Ok(Content::Segments { extents, segments }),
            Some(errno) => {
                extents.iter().for_each(|extent| self.extents.abandoned(extent.id));
                Err(errno)
            }
        }
    }

    /// Seals ranges, one behind the other, into one extent, or into several where the disks have no run that long.
    async fn seal(
        &self,
        node: &Node,
        through: Dseq,
        dirty: &[Range<u64>],
        pack: &[Range<u64>],
    ) -> Result<Vec<NewExtent>, Errno> {
        let mut bytes = vec![0; pack.iter().map(|range| (range.end - range.start) as usize).sum()];
        let mut rest = bytes.as_mut_slice();
        for range in pack {
            let (part, behind) = rest.split_at_mut((range.end - range.start) as usize);
            for gap in layout::gaps(range, dirty) {
                let hole = (gap.start - range.start) as usize..(gap.end - range.start) as usize;
                self.read_rows(node.ino, gap.start, &mut part[hole]).await?;
            }
            self.lay_over(node, through, range.start, part)?;
            rest = behind;
        }
        self.seal_when_there_is_room(&bytes).await.map_err(|error| {
            tracing::warn!(ino = node.ino.0, %error, "an extent was not stored");
            errno::of_seal(&error)
        })
    }

    fn lay_over(&self, node: &Node, through: Dseq, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let laid = self.arena.overlay_through(node.ino, through, offset, bytes);
        laid.map_err(|failed| errno::of_memory(&failed))
    }

    /// Drops accepted writes that nobody wants any more, and what was charged for them. The caller holds the node's
    /// `flush` lock, and no write comes in.
    pub(crate) fn drop_records(&self, node: &Node, through: Dseq) {
        let charge = {
            let mut state = node.state();
            state.charged_run = (0, 0);
            state.kill_priv = None;
            state.flushed(through);
            std::mem::take(&mut state.charge)
        };
        self.give_back(charge);
        self.free_records(node, through);
    }

    fn free_records(&self, node: &Node, through: Dseq) {
        // Before they go, so that a read that misses them sees it.
        node.state().mapped += 1;
        if let Err(error) = self.arena.mapped(node.ino, through) {
            // They are gone for this engine; only their memory may not be.
            tracing::warn!(ino = node.ino.0, %error, "the arena kept memory that is not used");
        }
    }
}
