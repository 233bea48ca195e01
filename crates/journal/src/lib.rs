//! The checksummed, segmented batch log that the store and Raft share.
//!
//! A log is a region of a disk, cut in segments that are used in a ring. Records are appended in *batches*; each carries
//! the place of the batch before it and the mark below which everything is durable. From these two a restart tells a
//! torn tail, which was never acknowledged and is dropped, from damage, which is an error and never cut away.
//! docs/FORMATS/log.md draws the bytes.
//!
//! The log never flushes by itself after it is open: who appends decides when one flush of the disk covers the batch and
//! what else was written beside it, and then says so by [`Log::flushed`].

mod batch;
mod chain;
mod format;
mod log;
mod recovery;
mod scan;

pub use batch::{Batch, BatchFull, Record, Records};
pub use format::{Lsn, Shape, ShapeError};
pub use log::{Append, AppendError, Log, Room, Usage};
pub use recovery::{OpenError, RecoveredBatch, Recovery, Start};

#[cfg(test)]
mod tests;
