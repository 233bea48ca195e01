//! The root of a disk: one block in four copies, of which two that agree suffice.

use checksum::crc32c_of;
use device::IoBuf;
use types::BLOCK;

use crate::bytes::{array_at, put, u32_at, u64_at};
use crate::layout::{ClusterId, DiskId, ENDS, Layout, Region};

/// The first bytes of a superblock.
pub const MAGIC: &[u8; 8] = b"HFDISK01";
/// The format version that this release writes, and the newest that it reads.
pub const VERSION: u32 = 2;
/// Features without which a disk must not be opened, known to this release: none.
pub const INCOMPAT_KNOWN: u64 = 0;
/// Features without which a disk must not be written, known to this release: none.
pub const RO_COMPAT_KNOWN: u64 = 0;
/// The bytes in use; all behind them are zero.
const USED: usize = 256;
/// How far the last superblocks are from the ends of a disk.
const SECOND: u64 = 64 << 10;

/// Whether a disk was closed in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum State {
    /// It was opened and not closed since: the journal holds what the checkpoint lacks.
    Open = 1,
    /// It was closed: the checkpoint is complete.
    Closed = 2,
}

/// Which checkpoint counts, and where the journal carries on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckpointRef {
    /// Its area: 0 or 1.
    pub slot: u32,
    /// CRC-32C of its bytes.
    pub crc: u32,
    /// Its bytes; 0: there is none, the index starts empty.
    pub len: u64,
    /// The lsn from which on the journal is replayed.
    pub journal_from: u64,
    /// How many fragments it holds.
    pub entries: u64,
}

/// What a disk says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// The version of the format.
    pub version: u32,
    /// Features that a reader must know.
    pub incompat: u64,
    /// Features that a writer must know.
    pub ro_compat: u64,
    /// Whose disk it is.
    pub cluster: ClusterId,
    /// Which disk it is.
    pub disk: DiskId,
    /// Raised by each update.
    pub sequence: u64,
    /// Raised by each open.
    pub incarnation: u64,
    /// Whether it was closed in order.
    pub state: State,
    /// The bytes of the disk that are used; the device may have more, never less.
    pub disk_bytes: u64,
    /// Where the regions lie.
    pub layout: Layout,
    /// The checkpoint that counts.
    pub checkpoint: CheckpointRef,
    /// All of the journal below this lsn was durable when this was written.
    pub journal_flushed: u64,
    /// Bytes of a journal segment.
    pub segment_bytes: u32,
}

/// Why a block is no superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SuperblockError {
    /// All of it is zero.
    #[error("it is blank")]
    Blank,
    /// It does not start as a superblock does.
    #[error("it is not a superblock")]
    NotSuperblock,
    /// It starts as one, and its checksum is wrong.
    #[error("its checksum is wrong")]
    BadCrc,
    /// A newer release wrote it.
    #[error("a newer release wrote it: version {version}, features {incompat:#x}")]
    Newer {
        /// Its version.
        version: u32,
        /// Its features that this release does not know.
        incompat: u64,
    },
    /// Its checksum is right, and it contradicts itself.
    #[error("its {0} is out of range")]
    Malformed(&'static str),
}

impl Superblock {
    /// Where the four copies of a disk of `disk_bytes` lie.
    pub fn places(disk_bytes: u64) -> [u64; 4] {
        let end = disk_bytes / BLOCK * BLOCK;
        [0, SECOND, end - ENDS, end - SECOND]
    }

    /// The block of copy `copy`, 0 to 3.
    pub fn encode(&self, copy: u32) -> IoBuf {
        let mut block = IoBuf::zeroed(BLOCK as usize);
        put(&mut block, 0, MAGIC);
        put(&mut block, 8, &self.version.to_le_bytes());
        put(&mut block, 16, &self.incompat.to_le_bytes());
        put(&mut block, 24, &self.ro_compat.to_le_bytes());
        put(&mut block, 32, &self.cluster.0);
        put(&mut block, 48, &self.disk.0);
        put(&mut block, 64, &self.sequence.to_le_bytes());
        put(&mut block, 72, &self.incarnation.to_le_bytes());
        put(&mut block, 80, &copy.to_le_bytes());
        put(&mut block, 84, &(self.state as u32).to_le_bytes());
        put(&mut block, 88, &self.disk_bytes.to_le_bytes());
        let [a, b] = self.layout.checkpoints;
        for (n, region) in
            [self.layout.journal, self.layout.intents, a, b, self.layout.data].iter().enumerate()
        {
            put(&mut block, 96 + n * 16, &region.at.to_le_bytes());
            put(&mut block, 104 + n * 16, &region.len.to_le_bytes());
        }
        put(&mut block, 192, &self.checkpoint.slot.to_le_bytes());
        put(&mut block, 196, &self.checkpoint.crc.to_le_bytes());
        put(&mut block, 200, &self.checkpoint.len.to_le_bytes());
        put(&mut block, 208, &self.checkpoint.journal_from.to_le_bytes());
        put(&mut block, 216, &self.checkpoint.entries.to_le_bytes());
        put(&mut block, 224, &self.journal_flushed.to_le_bytes());
        put(&mut block, 248, &self.segment_bytes.to_le_bytes());
        let crc = crc_of(&block);
        put(&mut block, 12, &crc.to_le_bytes());
        block
    }

    /// Reads a block and says which copy it was.
    ///
    /// A superblock of a newer release is told from a damaged one by its checksum, which no release moves.
    pub fn decode(block: &[u8]) -> Result<(Superblock, u32), SuperblockError> {
        if block.len() != BLOCK as usize {
            return Err(SuperblockError::NotSuperblock);
        }
        if block[..8] != MAGIC[..] {
            let blank = block.iter().all(|byte| *byte == 0);
            return Err(if blank { SuperblockError::Blank } else { SuperblockError::NotSuperblock });
        }
        if crc_of(block) != u32_at(block, 12) {
            return Err(SuperblockError::BadCrc);
        }
        let (version, incompat) = (u32_at(block, 8), u64_at(block, 16));
        if version > VERSION || incompat & !INCOMPAT_KNOWN != 0 {
            return Err(SuperblockError::Newer { version, incompat: incompat & !INCOMPAT_KNOWN });
        }
        let malformed = |what| Err(SuperblockError::Malformed(what));
        if version == 0 {
            return malformed("version");
        }
        let region = |n: usize| Region { at: u64_at(block, 96 + n * 16), len: u64_at(block, 104 + n * 16) };
        let reserved = [&block[176..192], &block[232..248], &block[252..]];
        if reserved.iter().any(|bytes| bytes.iter().any(|byte| *byte != 0)) {
            return malformed("reserved space");
        }
        let superblock = Superblock {
            version,
            incompat,
            ro_compat: u64_at(block, 24),
            cluster: ClusterId(array_at(block, 32)),
            disk: DiskId(array_at(block, 48)),
            sequence: u64_at(block, 64),
            incarnation: u64_at(block, 72),
            state: match u32_at(block, 84) {
                1 => State::Open,
                2 => State::Closed,
                _ => return malformed("state"),
            },
            disk_bytes: u64_at(block, 88),
            layout: Layout {
                journal: region(0),
                intents: region(1),
                checkpoints: [region(2), region(3)],
                data: region(4),
            },
            checkpoint: CheckpointRef {
                slot: u32_at(block, 192),
                crc: u32_at(block, 196),
                len: u64_at(block, 200),
                journal_from: u64_at(block, 208),
                entries: u64_at(block, 216),
            },
            journal_flushed: u64_at(block, 224),
            segment_bytes: u32_at(block, 248),
        };
        let copy = u32_at(block, 80);
        if copy > 3 {
            return malformed("copy number");
        }
        if !superblock.layout.is_sound(superblock.disk_bytes) {
            return malformed("regions");
        }
        if superblock.checkpoint.slot > 1
            || superblock.checkpoint.len > superblock.layout.checkpoints[0].len
            || !superblock.checkpoint.len.is_multiple_of(BLOCK)
        {
            return malformed("checkpoint");
        }
        let segment = superblock.segment_bytes;
        if !segment_is_sound(segment) || superblock.layout.journal.len < 4 * u64::from(segment) {
            return malformed("segment size");
        }
        Ok((superblock, copy))
    }
}

impl Superblock {
    /// Features of it without which a disk must not be written, and which this release does not know.
    pub fn unknown_ro_compat(&self) -> u64 {
        self.ro_compat & !RO_COMPAT_KNOWN
    }
}

/// Whether segments may have this size: a power of two of 8 KiB to 4 MiB.
pub(crate) fn segment_is_sound(bytes: u32) -> bool {
    bytes.is_power_of_two() && (8 << 10..=4 << 20).contains(&bytes)
}

fn crc_of(block: &[u8]) -> u32 {
    crc32c_of([&block[..12], &[0; 4], &block[16..]])
}

/// Among valid copies the superblock of the highest sequence on which two agree. A growth that was cut and the open
/// after it may have the same sequence: the open has the higher incarnation.
pub(crate) fn choose(copies: &[Superblock]) -> Option<Superblock> {
    copies
        .iter()
        .filter(|one| copies.iter().filter(|other| other == one).count() >= 2)
        .max_by_key(|superblock| (superblock.sequence, superblock.incarnation))
        .copied()
}

const _: () = assert!(USED <= BLOCK as usize);

#[cfg(test)]
mod tests;
