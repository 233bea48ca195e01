//! Blocks are written once before small puts need them.
//!
//! Where a disk is a preallocated file, its filesystem notes the first write to each block in its own journal, and the
//! next flush waits for that: a small put that is flushed alone would take nearly twice as long. So what such puts will
//! take soon is filled with zeros in the background. Nobody has these blocks meanwhile, so nothing can be lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::{Durability, IoBuf, IoClass, IoError};
use types::{BLOCK, ByteOffset};

use crate::checkpointer::Beat;
use crate::shared::Shared;

/// Fills blocks of an open disk.
pub(crate) struct Freshener<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) beat: &'a Beat,
}

impl Freshener<'_> {
    /// Keeps some blocks ready, until told to stop.
    pub(crate) async fn run(&self) -> Result<(), IoError> {
        let is_due = self.shared.dev.geometry().first_writes_cost && !self.shared.read_only;
        while !self.beat.stop.load(Ordering::Acquire) {
            let filled = if is_due { self.fill().await } else { Ok(false) };
            if let Err(error) = &filled {
                self.shared.poison(error);
            }
            if !filled? {
                self.beat.claimed.notified().await;
            }
        }
        Ok(())
    }

    /// Fills the next blocks; `false` if there are enough.
    async fn fill(&self) -> Result<bool, IoError> {
        let Some(run) = self.shared.alloc.take_fresh() else { return Ok(false) };
        let zeros = IoBuf::zeroed(run.blocks as usize * BLOCK as usize);
        let at = ByteOffset((self.shared.first_block() + run.block) * BLOCK);
        // If this is dropped while it writes, or fails, the blocks stay taken: nothing is handed out any more anyway.
        self.shared.dev.write(at, vec![zeros], Durability::Buffered, IoClass::Background).await?;
        // Or the next put's flush would wait for what the filesystem has noted.
        self.shared.dev.flush().await?;
        self.shared.alloc.give_back_fresh(run);
        Ok(true)
    }
}
