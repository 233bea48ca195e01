//! Data, written: accepted into the arena.

use std::ops::Range;
use std::sync::PoisonError;
use std::time::Duration;

use arena::AcceptError;
use namespace::{Command, FallocateMode, Reply};
use types::{BLOCK, Errno, Grant, Ino};

use crate::attr::SIZE_MAX;
use crate::errno;
use crate::flusher::STREAM_BYTES;
use crate::layout::block_bytes;
use crate::node::Node;
use crate::op::{Ctx, Handle, Outcome};
use crate::space::Charge;
use crate::vfs::Vfs;

/// The most bytes of one record.
const RECORD_MAX: usize = 1 << 20;

/// A write that found the arena full, and whose wait saw nothing but failed flushes, gives up after this.
const STUCK: Duration = Duration::from_secs(5);

/// A part of a write as it goes into one record.
struct Piece<'a> {
    offset: u64,
    data: &'a [u8],
    /// 0 for all but the last piece: a repeated request is taken as accepted only if all of it was.
    unique: u64,
    /// The number of the request.
    request: u64,
    kill_priv: bool,
    /// What the file counts for.
    label: Ino,
}

impl Piece<'_> {
    fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.data.len() as u64
    }
}

/// Why a piece was not accepted now.
enum Refused {
    /// It must be known for sure that there is space for it.
    Space,
    /// The arena is full.
    Arena,
    Failed(Errno),
}

impl Vfs {
    pub(crate) async fn write(
        &self,
        ctx: Ctx,
        ino: Ino,
        handle: Handle,
        offset: u64,
        data: &[u8],
        kill_priv: bool,
    ) -> Result<Outcome, Errno> {
        self.unless_broken()?;
        let node = self.node(ino);
        let attr = self.known_attr(&node).await?;
        self.check_data(&attr, handle.writes())?;
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > SIZE_MAX) {
            return Err(Errno::EFBIG);
        }
        let label = self.label_of(&node).await?;
        let mut written = 0;
        let repeated = ctx.unique != 0
            && self
                .arena
                .find_unique(ctx.unique)
                .is_some_and(|record| record.ino == ino && record.range().end == offset + data.len() as u64);
        if repeated {
            written = data.len();
        }
        while written < data.len() {
            let part = &data[written..data.len().min(written + RECORD_MAX)];
            let last = written + part.len() == data.len();
            let unique = if last { ctx.unique } else { 0 };
            let (offset, request) = (offset + written as u64, ctx.unique);
            let piece = Piece { offset, data: part, unique, request, kill_priv, label };
            match self.write_piece(&node, &piece).await {
                Ok(()) => written += part.len(),
                // As write(2) does: what was written counts, and the next call gets the error.
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        if handle.is_sync() && written > 0 {
            self.flush_node(&node).await?;
            self.settle().await?;
        }
        Ok(Outcome::Written(written as u32))
    }

    async fn write_piece(&self, node: &Node, piece: &Piece<'_>) -> Result<(), Errno> {
        let mut charged = None;
        let result = self.write_charged(node, piece, &mut charged).await;
        if let (Err(_), Some(charged)) = (&result, charged) {
            self.give_back(charged);
        }
        result
    }

    /// `charged`: what was charged for the piece and is not the node's yet.
    async fn write_charged(
        &self,
        node: &Node,
        piece: &Piece<'_>,
        charged: &mut Option<Charge>,
    ) -> Result<(), Errno> {
        let (mut waiting_since, mut room_wait) = (None, None);
        loop {
            // Made before the arena is looked at, or what is freed in between would not be heard of.
            let freed = self.freed.notified();
            let refused = {
                let _size_stays = node.size.read().await;
                let grant = self.grant(node).await?;
                match self.accept(node, grant, piece, charged) {
                    Ok(()) => return Ok(()),
                    Err(refused) => refused,
                }
            };
            match refused {
                Refused::Failed(errno) => return Err(errno),
                Refused::Space => {
                    let range = piece.range();
                    let whole = Charge::of(&range, block_bytes(&range), piece.label);
                    *charged = Some(self.make_room(node.ino, &range, whole).await?);
                }
                Refused::Arena => {
                    self.unless_broken()?;
                    let since = *waiting_since.get_or_insert_with(|| self.clock.elapsed());
                    if let Some(errno) = self.stuck()
                        && self.clock.elapsed().saturating_sub(since) >= STUCK
                    {
                        return Err(errno);
                    }
                    if room_wait.get_or_insert_with(|| self.waits_for_room(piece.request)).is_unwanted() {
                        return Err(Errno::EINTR);
                    }
                    self.work.notify_one();
                    freed.await;
                }
            }
        }
    }

    /// Accepts a piece, without waiting.
    fn accept(
        &self,
        node: &Node,
        grant: Grant,
        piece: &Piece<'_>,
        charged: &mut Option<Charge>,
    ) -> Result<(), Refused> {
        let ended = self.writes_ended.read().unwrap_or_else(PoisonError::into_inner);
        if *ended {
            return Err(Refused::Failed(Errno::EIO));
        }
        let before = self.arena.summary(node.ino).map(|dirty| dirty.bytes);
        let len = piece.data.len() as u64;
        let is_much = before.is_some_and(|bytes| bytes / STREAM_BYTES < (bytes + len) / STREAM_BYTES);
        let mut state = node.state();
        if state.is_gone() {
            return Err(Refused::Failed(Errno::ESTALE));
        }
        let range = piece.range();
        let blocks = (range.start / BLOCK, range.end.div_ceil(BLOCK));
        let (run, growth) = extend_run(state.charged_run, blocks);
        if charged.is_none() {
            let charge = Charge::of(&range, growth, piece.label);
            if !self.charge(charge) {
                return Err(Refused::Space);
            }
            *charged = Some(charge);
        }
        let write = arena::Write {
            ino: node.ino,
            grant,
            offset: piece.offset,
            unique: piece.unique,
            time: self.now(),
            kill_priv: piece.kill_priv,
            data: piece.data,
        };
        match self.arena.accept(write) {
            Ok(dseq) => {
                if let Some(charged) = charged.take() {
                    self.add_charge(&mut state.charge, charged);
                }
                state.charged_run = run;
                if piece.kill_priv {
                    state.kill_priv = Some(dseq);
                }
            }
            Err(error) => {
                if !matches!(error, AcceptError::ArenaFull) {
                    tracing::error!(ino = node.ino.0, %error, "a write was not accepted");
                }
                return Err(errno::of_accept(&error).map_or(Refused::Arena, Refused::Failed));
            }
        }
        drop(state);
        if is_much || self.is_under_pressure() {
            self.work.notify_one();
        } else if before.is_none() {
            self.tell_flusher();
        }
        Ok(())
    }

    /// The grant under which the mount writes a file; asked for at the first write.
    async fn grant(&self, node: &Node) -> Result<Grant, Errno> {
        if let Some(grant) = node.state().grant {
            return Ok(grant);
        }
        // Two that ask at once would each void the other's.
        let _one = node.flush.lock().await;
        if let Some(grant) = node.state().grant {
            return Ok(grant);
        }
        // Records of a grant are committed under it; those that are left of a node that was forgotten are ours too.
        let grant = match self.arena.summary(node.ino) {
            Some(dirty) => dirty.grant,
            None => match self.call(Command::GrantWrite { ino: node.ino }).await? {
                Reply::Granted(grant) => grant,
                other => return Err(errno::of_wrong_reply(&other)),
            },
        };
        node.state().grant = Some(grant);
        Ok(grant)
    }

    pub(crate) async fn fallocate(
        &self,
        ctx: Ctx,
        ino: Ino,
        handle: Handle,
        mode: FallocateMode,
        offset: u64,
        len: u64,
    ) -> Result<Outcome, Errno> {
        self.unless_broken()?;
        let node = self.node(ino);
        let attr = self.known_attr(&node).await?;
        self.check_data(&attr, handle.writes())?;
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let range = match offset.checked_add(len) {
            Some(end) if end <= SIZE_MAX => offset..end,
            _ => return Err(Errno::EFBIG),
        };
        let grows = mode != FallocateMode::PunchHole;
        let charge = Charge::of_reserve(&range, self.label_of(&node).await?);
        let charged = match grows {
            true if self.charge(charge) => charge,
            true => self.make_room(ino, &range, charge).await?,
            false => Charge::default(),
        };
        let done = self.fallocate_charged(ctx, &node, mode, &range).await;
        self.give_back(charged);
        done.map(|()| Outcome::Done)
    }

    async fn fallocate_charged(
        &self,
        ctx: Ctx,
        node: &Node,
        mode: FallocateMode,
        range: &Range<u64>,
    ) -> Result<(), Errno> {
        let _alone = node.size.write().await;
        let no_flush = node.flush.lock().await;
        self.flush_all_of(node, &no_flush).await?;
        let asked = self.table.asked();
        let before = self.known_attr(node).await?.allocated;
        // The kernel leaves it to us whether the caller may keep set-id bits (HANDLE_KILLPRIV_V2), and does not say.
        let kill_priv = ctx.cred.uid != 0;
        let (offset, len) = (range.start, range.end - range.start);
        let command = Command::Fallocate { ino: node.ino, mode, offset, len, kill_priv };
        match self.call(command).await? {
            Reply::Attr(attr) => {
                node.state().store(asked, attr);
                self.moved(before, &attr);
                Ok(())
            }
            other => Err(errno::of_wrong_reply(&other)),
        }
    }
}

/// The run of blocks that was charged last, longer by the blocks of a write, and the bytes to charge for those that
/// are new. A write elsewhere starts a new run.
pub(crate) fn extend_run(run: (u64, u64), blocks: (u64, u64)) -> ((u64, u64), u64) {
    let touches = run.0 < run.1 && blocks.0 <= run.1 && blocks.1 >= run.0;
    if !touches {
        return (blocks, (blocks.1 - blocks.0) * BLOCK);
    }
    let whole = (run.0.min(blocks.0), run.1.max(blocks.1));
    (whole, ((whole.1 - whole.0) - (run.1 - run.0)) * BLOCK)
}

#[cfg(test)]
mod tests {
    use super::extend_run;
    use types::BLOCK;

    #[test]
    fn blocks_of_a_run_are_charged_once() {
        let cases = [
            ((0, 0), (5, 7), (5, 7), 2),
            ((5, 7), (6, 7), (5, 7), 0),
            ((5, 7), (6, 9), (5, 9), 2),
            ((5, 7), (7, 8), (5, 8), 1),
            ((5, 7), (3, 5), (3, 7), 2),
            ((5, 7), (8, 9), (8, 9), 1),
            ((5, 7), (0, 20), (0, 20), 18),
        ];
        for (run, blocks, whole, count) in cases {
            assert_eq!(extend_run(run, blocks), (whole, count * BLOCK), "{run:?} {blocks:?}");
        }
    }
}
