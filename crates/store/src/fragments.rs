//! The border of a fragment store, whether it is a disk of this process or of another node.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use device::{IoError, IoVec};
use types::{Epoch, FragmentId, GroupId};

/// What a store answers later. Dropping it does not undo the operation: it may still take effect.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A fragment to be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// Its name.
    pub id: FragmentId,
    /// The epoch of its group that the writer knows.
    pub epoch: Epoch,
    /// Bytes, 1 to 1 MiB and a block; the data's buffers hold at least so many, and zeros behind them.
    pub stored_len: u32,
    /// CRC-32C of each block, the last one padded with zeros.
    pub block_crcs: Vec<u32>,
    /// CRC-32C over the block CRCs of the whole stored extent.
    pub content_crc: u32,
}

/// A put is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutAck {
    /// It was written.
    Stored,
    /// It was there with the same content.
    AlreadyHave,
}

/// Why a put failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PutError {
    /// No run of blocks, or no room in the index, is left for it.
    #[error("no space for a fragment of {0} bytes")]
    NoSpace(u32),
    /// The id is there with other content: the writer has a bug, or the id was used twice.
    #[error("fragment {0} exists with other content")]
    Conflict(FragmentId),
    /// The data does not match its checksums, or its length is out of range.
    #[error("fragment {0} was damaged on its way")]
    Damaged(FragmentId),
    /// The group has a later epoch: ask for the group anew.
    #[error("epoch {sent} of the group is over: it is at {current}")]
    StaleEpoch {
        /// The writer's.
        sent: Epoch,
        /// The store's.
        current: Epoch,
    },
    /// The disk failed. Whether the fragment is there is unknown.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Bytes whose checksums were compared after they were read.
#[derive(Debug)]
pub struct Verified {
    /// The blocks that hold the range.
    pub blocks: IoVec,
    /// Where in them, taken as one run, the range lies.
    pub range: Range<usize>,
}

/// What a fragment holds, read from its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checked {
    /// Its bytes.
    pub stored_len: u32,
    /// CRC-32C over the CRCs of its blocks.
    pub content_crc: u32,
}

/// Why a read failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such fragment here.
    #[error("fragment {0} is not here")]
    NotFound(FragmentId),
    /// It is here, and its bytes are not what was written.
    #[error("fragment {id} is damaged in block {block} at byte {at} of the disk")]
    Damaged {
        /// Which fragment.
        id: FragmentId,
        /// Which block of it; 0 is its header.
        block: u32,
        /// Where that is.
        at: u64,
    },
    /// The range reaches over its end.
    #[error("fragment {0} is shorter than that")]
    OutOfRange(FragmentId),
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// A fragment that is there, as the index has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentInfo {
    /// Its name.
    pub id: FragmentId,
    /// Its bytes.
    pub stored_len: u32,
    /// The epoch of its group when it was written.
    pub epoch: Epoch,
}

/// Why a list failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ListError {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Why a delete failed. Which of the fragments are still there is unknown.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeleteError {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// How full a store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// Bytes that fragments may take in all, headers included.
    pub total: u64,
    /// Bytes that no fragment takes, without what is kept free.
    pub free: u64,
}

/// The fragments of one disk.
pub trait FragmentStore: Send + Sync + 'static {
    /// Stores a fragment. It is durable when this answers `Ok`. Idempotent.
    fn put(&self, put: Put, data: IoVec) -> StoreFuture<Result<PutAck, PutError>>;

    /// As [`FragmentStore::put`], and what is there under the name is replaced, whatever its content: for a copy that
    /// was found bad. Until this answers `Ok` the old one stays.
    fn replace(&self, put: Put, data: IoVec) -> StoreFuture<Result<(), PutError>>;

    /// Refuses puts of a group below `epoch` from now on, for ever. When this answers `Ok` no put below it is under way
    /// any more: each is listed, or has failed.
    fn fence(&self, group: GroupId, epoch: Epoch) -> StoreFuture<Result<(), IoError>>;

    /// Whether the store answers nothing but errors until it is opened anew.
    fn has_failed(&self) -> bool;

    /// Reads `range` of a fragment's stored bytes, verified.
    fn read(&self, id: FragmentId, range: Range<u32>) -> StoreFuture<Result<Verified, ReadError>>;

    /// Reads all of a fragment, header and data, from the disk and not from what is remembered of it, and verifies it.
    /// Behind reads that somebody waits for.
    fn check(&self, id: FragmentId) -> StoreFuture<Result<Checked, ReadError>>;

    /// Which of these are here and durable, in the order of `ids`.
    fn have(&self, ids: Vec<FragmentId>) -> StoreFuture<Result<Vec<bool>, ListError>>;

    /// The fragments of a group behind `after`, in order, at most `max`. Puts in flight may be missing.
    fn list(
        &self,
        group: GroupId,
        after: Option<FragmentId>,
        max: usize,
    ) -> StoreFuture<Result<Vec<FragmentInfo>, ListError>>;

    /// Deletes fragments; those that are not here are passed over. Durable on return: they do not come back.
    fn delete(&self, ids: Vec<FragmentId>) -> StoreFuture<Result<(), DeleteError>>;

    /// How full the store is, as far as it is known now; nothing is reserved by asking.
    fn space(&self) -> Space;
}
