//! Disks: io_uring, threads or a simulated one, behind one trait.

mod buf;
mod call;
mod file_disk;
mod later;
mod oneshot;
mod open;
mod request;
mod ring;
mod sim;
mod threads;

pub use buf::IoBuf;
pub use file_disk::{Backend, FileDisk};
pub use open::{CreateError, OpenError, OpenOptions, create_disk_file, grow_disk_file, open_disk};
pub use sim::{Fault, Keep, OpKind, OpRecord, SimDisk, SimImage};

use std::future::Future;
use std::pin::Pin;
use types::ByteOffset;

/// Several buffers written behind one another.
pub type IoVec = Vec<IoBuf>;

/// The result of one operation. The operation is submitted by the call that returned the future, not by polling it;
/// dropping the future does not cancel it, and leaves its buffers to the device. But in a [`helping::Scope`] a short
/// write of a real disk is done by who polls the future first, and not at all if nobody does: who asks for it may hold a lock.
pub type IoFuture<T> = Pin<Box<dyn Future<Output = Result<T, IoError>> + Send>>;

/// What a disk is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Its size in bytes, a multiple of a block.
    pub bytes: u64,
    /// The most bytes that one operation may carry.
    pub max_io: u32,
    /// Whether writes may stay in a volatile cache until a flush.
    pub volatile_cache: bool,
    /// Whether the first write to each block takes longer to become durable than later ones, as in a preallocated file:
    /// its filesystem journals that there is something now.
    pub first_writes_cost: bool,
}

/// What a write promises when it completes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Durable after a later flush.
    Buffered,
    /// Durable on completion (`RWF_DSYNC`).
    Durable,
}

/// Whose work an operation is; the order is the order of urgency.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum IoClass {
    /// A log that somebody waits for.
    Log,
    /// A read that somebody waits for.
    Read,
    /// A write that somebody waits for.
    Write,
    /// Scrub, fill, reclaim, checkpoints.
    Background,
}

/// Why an operation failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IoError {
    /// The disk answered with an error.
    #[error("{op} of {len} bytes at {at} failed: {errno}")]
    Failed {
        /// `read`, `write` or `flush`.
        op: &'static str,
        /// Where.
        at: u64,
        /// How much.
        len: u64,
        /// With what.
        errno: types::Errno,
    },
    /// Offset, length or buffer are not aligned to blocks, or reach over the end of the disk.
    #[error("an operation of {len} bytes at {at} does not fit the disk")]
    Misfit {
        /// Where.
        at: u64,
        /// How much.
        len: u64,
    },
    /// The disk was lost: poisoned by an earlier failure, closed, or cut off by a simulated power cut.
    #[error("the disk is gone")]
    Gone,
}

/// A disk: a block device, or a preallocated file. Offsets and lengths are multiples of 4,096 bytes.
///
/// An operation that failed says nothing of what is on the disk afterwards. A flush covers the writes that had
/// completed before it was called, and no others (fsync(2)).
pub trait BlockDev: Send + Sync + 'static {
    /// What the disk is like. Constant while it is open.
    fn geometry(&self) -> Geometry;

    /// Fills `buf` from `at` on. A short read is an error.
    fn read(&self, at: ByteOffset, buf: IoBuf, class: IoClass) -> IoFuture<IoBuf>;

    /// Writes `bufs` behind one another from `at` on and gives them back.
    fn write(&self, at: ByteOffset, bufs: IoVec, sync: Durability, class: IoClass) -> IoFuture<IoVec>;

    /// Makes every write that has completed durable (`fdatasync`).
    fn flush(&self) -> IoFuture<()>;
}
