//! Places in a log, and the region that holds it.

use device::BlockDev;
use types::{BLOCK, ByteOffset};

/// The most bytes of a batch, its header and padding included.
pub(crate) const BATCH_MAX: u32 = 1 << 20;
/// Fewer segments could not keep two in reserve.
const SEGMENTS_MIN: u64 = 4;

/// A place in a log: the sequence number of its segment and the offset in that. It grows for ever and never repeats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl std::fmt::Debug for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lsn {:#x}", self.0)
    }
}

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Where a log lies and how it is cut. Constant over its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Where the region begins on its disk, in whole blocks.
    pub at: ByteOffset,
    /// Its size in bytes; what is left behind the last whole segment is not used. At least four segments.
    pub bytes: u64,
    /// Tells this log's batches from all others.
    pub uuid: [u8; 16],
    /// Bytes of a segment: a power of two from 8 KiB to 64 MiB, on a real disk 4 MiB.
    pub segment_bytes: u32,
}

/// Why a region cannot hold a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShapeError {
    /// The segment's size is not a power of two from 8 KiB to 64 MiB.
    #[error("a log cannot have segments of {0} bytes")]
    Segment(u32),
    /// The region does not begin at a block.
    #[error("a log cannot begin at byte {0}: that is no block")]
    Unaligned(u64),
    /// The region has room for fewer than four segments.
    #[error("a log of {bytes} bytes has no room for four segments of {segment_bytes}")]
    TooSmall {
        /// Its size.
        bytes: u64,
        /// The segment's size.
        segment_bytes: u32,
    },
    /// The region reaches over the end of the disk.
    #[error("a log of {bytes} bytes at {at} reaches over the end of its disk")]
    OverTheEnd {
        /// Where it begins.
        at: u64,
        /// Its size.
        bytes: u64,
    },
}

impl Shape {
    /// The first place of a log, where everything of a new one is still to come.
    pub fn first(&self) -> Lsn {
        self.begin_of(1)
    }

    /// How many segments it has.
    pub fn segments(&self) -> u64 {
        self.bytes / u64::from(self.segment_bytes)
    }

    /// The most bytes of one batch, its header and padding included.
    pub fn batch_max(&self) -> u32 {
        BATCH_MAX.min(self.segment_bytes)
    }

    /// Where on the disk the byte at `lsn` is.
    pub fn offset_of(&self, lsn: Lsn) -> ByteOffset {
        ByteOffset(self.slot_at(self.slot(self.sequence(lsn))).0 + self.offset_in_segment(lsn))
    }

    pub(crate) fn check(&self, dev: &dyn BlockDev) -> Result<(), ShapeError> {
        let Shape { at, bytes, segment_bytes, .. } = *self;
        if !segment_bytes.is_power_of_two() || !(2 * BLOCK as u32..=64 << 20).contains(&segment_bytes) {
            return Err(ShapeError::Segment(segment_bytes));
        }
        if !at.0.is_multiple_of(BLOCK) {
            return Err(ShapeError::Unaligned(at.0));
        }
        if self.segments() < SEGMENTS_MIN {
            return Err(ShapeError::TooSmall { bytes, segment_bytes });
        }
        if at.0.checked_add(bytes).is_none_or(|end| end > dev.geometry().bytes) {
            return Err(ShapeError::OverTheEnd { at: at.0, bytes });
        }
        Ok(())
    }

    pub(crate) fn bits(&self) -> u32 {
        self.segment_bytes.trailing_zeros()
    }

    pub(crate) fn sequence(&self, lsn: Lsn) -> u64 {
        lsn.0 >> self.bits()
    }

    pub(crate) fn begin_of(&self, sequence: u64) -> Lsn {
        Lsn(sequence << self.bits())
    }

    /// The largest sequence number whose places can be told.
    pub(crate) fn sequence_max(&self) -> u64 {
        (u64::MAX >> self.bits()) - 1
    }

    pub(crate) fn offset_in_segment(&self, lsn: Lsn) -> u64 {
        lsn.0 & (u64::from(self.segment_bytes) - 1)
    }

    /// Which segment of the region a sequence number uses.
    pub(crate) fn slot(&self, sequence: u64) -> u64 {
        sequence % self.segments()
    }

    pub(crate) fn slot_at(&self, slot: u64) -> ByteOffset {
        ByteOffset(self.at.0 + slot * u64::from(self.segment_bytes))
    }
}
