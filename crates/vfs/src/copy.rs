//! copy_file_range(2): the destination names the extents of the source; what is small or inline is written anew.

use std::ops::Range;

use namespace::{Command, Reply};
use types::{BLOCK, Errno, Ino};

use crate::attr::SIZE_MAX;
use crate::errno;
use crate::layout::block_bytes;
use crate::node::Node;
use crate::op::{Ctx, Handle, Outcome};
use crate::space::Charge;
use crate::vfs::Vfs;

/// The most bytes of one call: a longer copy is told short, as copy_file_range(2) may, and the caller goes on.
const COPY_MAX: u64 = 1 << 30;

/// Less than this is written anew: a map row and half an extent for it would cost more than the bytes.
const SHARE_MIN: u64 = 16 << 10;

/// Bytes that are written anew in one step.
const BYTES_MAX: u64 = 256 << 10;

/// A place in an open file.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) ino: Ino,
    pub(crate) handle: Handle,
    pub(crate) offset: u64,
}

impl Place {
    fn behind(self, bytes: u64) -> Place {
        Place { offset: self.offset + bytes, ..self }
    }
}

impl Vfs {
    /// Nothing of it is durable on return, unless the destination was opened `sync`.
    pub(crate) async fn copy_range(
        &self,
        ctx: Ctx,
        from: Place,
        to: Place,
        len: u64,
    ) -> Result<Outcome, Errno> {
        self.unless_broken()?;
        let (source, target) = (self.node(from.ino), self.node(to.ino));
        let attr = self.known_attr(&source).await?;
        self.check_data(&attr, from.handle.reads())?;
        self.check_data(&self.known_attr(&target).await?, to.handle.writes())?;
        let size = Vfs::size_shown(&attr, self.arena.summary(from.ino).as_ref());
        let len = len.min(COPY_MAX).min(size.saturating_sub(from.offset));
        if to.offset.checked_add(len).is_none_or(|end| end > SIZE_MAX) {
            return Err(Errno::EFBIG);
        }
        let apart = from.offset + len <= to.offset || to.offset + len <= from.offset;
        if from.ino == to.ino && !apart {
            return Err(Errno::EINVAL);
        }
        let mut copied = 0;
        while copied < len {
            let (here, there, left) = (from.behind(copied), to.behind(copied), len - copied);
            let step = match self.share(ctx, &source, here, &target, there, left).await {
                Ok(0) => self.copy_bytes(ctx, here, there, left).await,
                shared => shared,
            };
            match step {
                Ok(0) => break, // the source was cut meanwhile
                Ok(bytes) => copied += bytes,
                // As write(2) does: what was copied counts, and the next call gets the error.
                Err(_) if copied > 0 => break,
                Err(error) => return Err(error),
            }
        }
        if to.handle.is_sync() && copied > 0 {
            self.flush_node(&target).await?;
            self.settle().await?;
        }
        self.touch(&source);
        Ok(Outcome::Written(copied as u32))
    }

    /// Names the source's extents in the destination; 0 if the first bytes cannot be shared.
    async fn share(
        &self,
        ctx: Ctx,
        source: &Node,
        from: Place,
        target: &Node,
        to: Place,
        len: u64,
    ) -> Result<u64, Errno> {
        if len < SHARE_MIN {
            return Ok(0);
        }
        // Everything that was accepted for the source before this call is to be in the copy.
        self.flush_node(source).await?;
        let range = to.offset..to.offset + len;
        // The disks get nothing new.
        let charge = Charge { growth: block_bytes(&range), disk: 0, label: self.label_of(target).await? };
        let charged = match self.charge(charge) {
            true => charge,
            false => self.make_room(to.ino, &range, charge).await?,
        };
        let shared = self.share_charged(ctx, from, target, &range).await;
        self.give_back(charged);
        shared
    }

    async fn share_charged(
        &self,
        ctx: Ctx,
        from: Place,
        target: &Node,
        range: &Range<u64>,
    ) -> Result<u64, Errno> {
        // What was written to the destination before lies below the copy, and what comes after above it.
        let _alone = target.size.write().await;
        let no_flush = target.flush.lock().await;
        self.flush_all_of(target, &no_flush).await?;
        let asked = self.table.asked();
        let before = self.known_attr(target).await?.allocated;
        let command = Command::CopyRange {
            from: from.ino,
            from_offset: from.offset,
            to: target.ino,
            to_offset: range.start,
            len: range.end - range.start,
            // As with fallocate(2), the kernel does not say whether the caller may keep set-id bits.
            kill_priv: ctx.cred.uid != 0,
        };
        match self.call(command).await? {
            Reply::Copied { attr, bytes } => {
                target.state().store(asked, attr);
                self.moved(before, &attr);
                Ok(bytes)
            }
            other => Err(errno::of_wrong_reply(&other)),
        }
    }

    /// Reads and writes what is not shared: no further than the first block of either file, whose bytes may lie in a
    /// row.
    async fn copy_bytes(&self, ctx: Ctx, from: Place, to: Place, len: u64) -> Result<u64, Errno> {
        let first = |offset: u64| if offset < BLOCK { BLOCK - offset } else { BYTES_MAX };
        let len = len.min(first(from.offset)).min(first(to.offset));
        let bytes = match self.read(from.ino, from.handle, from.offset, len as u32).await? {
            Outcome::Bytes(bytes) => bytes,
            _ => return Err(Errno::EIO),
        };
        // No request of its own: a repeated one copies again.
        let ctx = Ctx { unique: 0, ..ctx };
        match self.write(ctx, to.ino, to.handle, to.offset, &bytes, ctx.cred.uid != 0).await? {
            Outcome::Written(bytes) => Ok(u64::from(bytes)),
            _ => Err(Errno::EIO),
        }
    }
}
