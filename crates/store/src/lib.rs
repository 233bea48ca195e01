//! A disk's fragments: format, index, allocator, recovery.

mod alloc;
mod bytes;
mod fragments;
mod header;
mod index;
mod layout;
mod record;
mod superblock;

pub use fragments::{
    DeleteError, FragmentInfo, FragmentStore, ListError, Put, PutAck, PutError, ReadError, Space,
    StoreFuture, Verified,
};
pub use header::{Header, HeaderError};
pub use index::{Entry, Run};
pub use layout::{ClusterId, DiskId, FormatOptions, Layout, Region, TooSmall};
pub use record::{Record, RecordError};
pub use superblock::{CheckpointRef, State, Superblock, SuperblockError};
