//! Why a disk could not be formatted, opened, grown or closed.

use device::IoError;
use types::{ByteSize, FragmentId};

use crate::layout::{ClusterId, DiskId, TooSmall};
use crate::record::RecordError;

/// What is damaged on a disk that cannot be opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    /// No two copies of the superblock agree.
    #[error("no two copies of its superblock agree")]
    Superblocks,
    /// The checkpoint is not the one that the superblock names.
    #[error("its checkpoint is damaged at byte {at} of the disk")]
    Checkpoint {
        /// Where.
        at: u64,
    },
    /// The journal lacks what was once durable.
    #[error("its journal is damaged at byte {at} of the disk (lsn {lsn:#x})")]
    Journal {
        /// Where on the disk.
        at: u64,
        /// Where in the journal.
        lsn: u64,
    },
    /// The journal has no place or number left to go on.
    #[error("its journal cannot go on")]
    JournalExhausted,
    /// A journal record contradicts its type.
    #[error("its journal holds a bad record: {0}")]
    Record(RecordError),
    /// Two fragments claim one block, or one lies outside the data region.
    #[error("fragment {0} lies where it cannot be")]
    Overlap(FragmentId),
}

/// Why a disk cannot be opened. Nothing was changed on it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// It was never formatted.
    #[error("the disk is blank: format it first")]
    Blank,
    /// Formatting it was cut short; there is nothing on it.
    #[error("formatting the disk was cut short: format it again")]
    HalfFormatted,
    /// Something else is on it.
    #[error("the disk holds something that is not Holdfast's")]
    NotHoldfast,
    /// Another cluster's data are on it.
    #[error("the disk belongs to cluster {found}, not to {expected}")]
    OtherCluster {
        /// Whose it is.
        found: ClusterId,
        /// Whose it should be.
        expected: ClusterId,
    },
    /// It is not the disk that is meant.
    #[error("the disk is {found}, not {expected}")]
    OtherDisk {
        /// Which it is.
        found: DiskId,
        /// Which it should be.
        expected: DiskId,
    },
    /// The device or file is smaller than what was formatted.
    #[error("the disk was cut off: it has {have} of {need}")]
    Truncated {
        /// What is left.
        have: ByteSize,
        /// What was formatted.
        need: ByteSize,
    },
    /// A newer release wrote it.
    #[error(
        "the disk was written by a newer release (format {version}, features {features:#x}): upgrade Holdfast"
    )]
    NewerFormat {
        /// The format's version.
        version: u32,
        /// The features that this release does not know.
        features: u64,
    },
    /// A newer release wrote its journal.
    #[error("the disk's journal was written by a newer release ({0}): upgrade Holdfast")]
    NewerJournal(RecordError),
    /// What was once durable on it is not there any more.
    #[error("the disk is damaged: {0}")]
    Damaged(Damage),
    /// It failed a read or a write.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Why a disk was not formatted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// It is too small for its regions.
    #[error(transparent)]
    TooSmall(#[from] TooSmall),
    /// Its segments are no power of two of 8 KiB to 4 MiB.
    #[error("a journal segment cannot have {0} bytes")]
    SegmentSize(u32),
    /// It failed a write.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Why a disk was not grown. It has its old size, or its new one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GrowError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It would shrink.
    #[error("a disk of {have} cannot shrink to {asked}")]
    Shrink {
        /// Its size.
        have: ByteSize,
        /// What was asked for.
        asked: ByteSize,
    },
    /// The device has not that many bytes.
    #[error("the device has {have}, {asked} were asked for")]
    DeviceTooSmall {
        /// The device's size.
        have: ByteSize,
        /// What was asked for.
        asked: ByteSize,
    },
    /// It failed a write.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Why a store was not closed in order. What it acknowledged is durable all the same.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CloseError {
    /// The disk failed, or the driver is gone.
    #[error(transparent)]
    Io(#[from] IoError),
}
