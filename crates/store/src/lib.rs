//! A disk's fragments: format, index, allocator, recovery.
//!
//! A disk is formatted once ([`format`]), then opened ([`open`]) by one process at a time. An open disk is a [`Store`],
//! which callers share, and a [`Driver`], which somebody runs: it puts what callers hand over into the journal, with one
//! flush for all that came while the last one ran. docs/FORMATS/disk.md draws the bytes.
//!
//! From pure to not: [`Superblock`], [`Header`] and [`Record`] are bytes; the index and the allocator are memory; reading
//! verifies along the chain index → header → block checksums; the driver orders changes; recovery puts a crash right.

mod alloc;
mod bad;
mod bytes;
mod checkpoint;
mod checkpointer;
mod commit;
pub mod describe;
mod disk;
mod error;
mod fragments;
mod freshener;
mod header;
mod headers;
mod index;
mod layout;
mod read;
mod record;
mod recovery;
mod roots;
mod shared;
mod store;
mod superblock;
mod verify;

pub use checkpoint::{CheckpointRecord, Group, ShardPart};
pub use commit::Driver;
pub use disk::{OpenOptions, RecoveryReport, format, grow, open};
pub use error::{CloseError, Damage, FormatError, GrowError, OpenError};
pub use fragments::{
    Checked, DeleteError, FragmentInfo, FragmentStore, ListError, Put, PutAck, PutError, ReadError, Space,
    StoreFuture, Verified,
};
pub use header::{Header, HeaderError, INLINE_MAX, STORED_MAX};
pub use index::{Entry, Run};
pub use layout::{ClusterId, DiskId, FormatOptions, Layout, Region, TooSmall};
pub use record::{Record, RecordError};
pub use roots::{Copy, CopyError};
pub use store::Store;
pub use superblock::{CheckpointRef, State, Superblock, SuperblockError};
pub use verify::{Progress, VerifyReport};
