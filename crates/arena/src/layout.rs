//! The bytes of an arena: docs/FORMATS/arena.md draws them. Little-endian.

use checksum::{crc32c, crc32c_of};
use types::{Dseq, Epoch, Grant, Ino, Nanos, SessionId, VolumeId};

use crate::index::Record;

const MAGIC: &[u8; 8] = b"HFARENA1";
const VERSION: u32 = 2;

/// The unit in which memory is taken and freed.
pub(crate) const PAGE: u64 = 4096;
/// Bytes of the header.
pub(crate) const HEADER: usize = 256;
/// Bytes of a record's head.
pub(crate) const HEAD: u64 = 80;
/// Where the late errors lie, and how many bytes they take.
pub(crate) const ERRORS: (u64, u64) = (0x91_0000, 0x1_0000);
/// Where the first chunk lies.
pub(crate) const CHUNKS_AT: u64 = 0x100_0000;
/// Where a later version keeps requests in flight.
const REQUESTS: (u64, u64) = (0x1_0000, 0x10_0000);
/// Where the command slots lie; an exclusive mount uses the first.
pub(crate) const SLOTS: (u64, u64) = (0x11_0000, 0x40_0000);
/// Where the journal lies.
pub(crate) const JOURNAL: (u64, u64) = (0x51_0000, 0x40_0000);

/// Nothing is here, or a record that was never accepted.
pub(crate) const STATE_NONE: u32 = 0;
/// A record that was accepted.
pub(crate) const STATE_ACCEPTED: u32 = u32::from_le_bytes(*b"LIVE");
/// As [`STATE_ACCEPTED`], and the file's times were set after it.
pub(crate) const STATE_TIMES_SET: u32 = u32::from_le_bytes(*b"LIVT");
/// A record that is in the rows.
pub(crate) const STATE_FREED: u32 = u32::from_le_bytes(*b"FREE");

/// Whose arena it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The mounted volume.
    pub volume: VolumeId,
    /// The mount's session.
    pub session: SessionId,
    /// The session's fencing number.
    pub epoch: Epoch,
}

/// What the header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) owner: Owner,
    pub(crate) init_flags: u64,
    /// Every dseq that was given out is below it.
    pub(crate) dseq_below: u64,
    /// How many engines have had it before.
    pub(crate) engines_before: u64,
    pub(crate) geometry: Geometry,
}

/// Sizes that follow from how the arena was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    /// The most bytes of chunks that may be in use.
    pub(crate) capacity: u64,
    pub(crate) chunk_bytes: u32,
}

/// Why memory is not an arena that this release can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// It does not begin as an arena does.
    #[error("this is no arena")]
    NotAnArena,
    /// Another release made it.
    #[error("the arena has version {0}, this release reads version {VERSION}")]
    Version(u32),
    /// The header does not match its checksum.
    #[error("the arena's header is damaged")]
    Damaged,
    /// A reserved field is in use, or sizes and places do not fit one another.
    #[error("the arena's header says what this release cannot follow")]
    Unknown,
}

impl Geometry {
    /// From the start of one chunk to the next: a page more than a chunk's bytes, so that a record of as many bytes
    /// fits with its head.
    pub(crate) fn stride(&self) -> u64 {
        u64::from(self.chunk_bytes) + PAGE
    }

    /// How many chunks there are. Twice what the capacity needs: two neighbours hold more than one stride together,
    /// however badly records fit, so that bytes are the limit and not places.
    pub(crate) fn chunks(&self) -> u32 {
        (2 * self.capacity.div_ceil(u64::from(self.chunk_bytes)) + 2) as u32
    }

    /// Where a chunk starts.
    pub(crate) fn chunk_at(&self, chunk: u32) -> u64 {
        CHUNKS_AT + u64::from(chunk) * self.stride()
    }

    /// Which chunk a place is in.
    pub(crate) fn chunk_of(&self, at: u64) -> u32 {
        ((at - CHUNKS_AT) / self.stride()) as u32
    }

    /// Bytes of the whole.
    pub(crate) fn total(&self) -> u64 {
        self.chunk_at(self.chunks())
    }

    /// Whether an arena of these sizes can be.
    pub(crate) fn is_sound(&self) -> bool {
        let chunk = u64::from(self.chunk_bytes);
        (PAGE..=64 << 20).contains(&chunk)
            && chunk.is_multiple_of(PAGE)
            && (2 * self.stride()..=1 << 40).contains(&self.capacity)
            && self.capacity.is_multiple_of(PAGE)
            && self.capacity / chunk < 1 << 24
    }
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(16, &self.owner.volume.0.to_le_bytes());
        put(20, &self.owner.epoch.0.to_le_bytes());
        put(24, &self.owner.session.0.to_le_bytes());
        put(32, &self.init_flags.to_le_bytes());
        put(40, &self.dseq_below.to_le_bytes());
        put(48, &self.geometry.capacity.to_le_bytes());
        put(56, &self.geometry.chunk_bytes.to_le_bytes());
        put(60, &self.geometry.chunks().to_le_bytes());
        for (n, (at, len)) in [REQUESTS, SLOTS, JOURNAL, ERRORS].into_iter().enumerate() {
            put(64 + 16 * n, &at.to_le_bytes());
            put(72 + 16 * n, &len.to_le_bytes());
        }
        put(128, &CHUNKS_AT.to_le_bytes());
        put(136, &self.geometry.total().to_le_bytes());
        put(144, &self.engines_before.to_le_bytes());
        let crc = crc32c(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; HEADER], total: u64) -> Result<Header, LayoutError> {
        if &bytes[..8] != MAGIC {
            return Err(LayoutError::NotAnArena);
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(LayoutError::Version(u32_at(bytes, 8)));
        }
        let crc = crc32c_of([&bytes[..12], &[0; 4], &bytes[16..]]);
        if u32_at(bytes, 12) != crc {
            return Err(LayoutError::Damaged);
        }
        let header = Header {
            owner: Owner {
                volume: VolumeId(u32_at(bytes, 16)),
                epoch: Epoch(u32_at(bytes, 20)),
                session: SessionId(u64_at(bytes, 24)),
            },
            init_flags: u64_at(bytes, 32),
            dseq_below: u64_at(bytes, 40),
            engines_before: u64_at(bytes, 144),
            geometry: Geometry { capacity: u64_at(bytes, 48), chunk_bytes: u32_at(bytes, 56) },
        };
        // Writing it again covers every place, every length and every reserved byte.
        let known = header.geometry.is_sound() && header.dseq_below >= 1;
        if !known || header.geometry.total() != total || header.to_bytes() != *bytes {
            return Err(LayoutError::Unknown);
        }
        Ok(header)
    }
}

/// The head of a record that is not accepted yet. Its data follows, and zeros to a multiple of 8.
pub(crate) fn head_to_bytes(record: &Record, data_crc: u32) -> [u8; HEAD as usize] {
    let mut bytes = [0; HEAD as usize];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(8, &record.ino.0.to_le_bytes());
    put(16, &record.grant.0.to_le_bytes());
    put(24, &record.dseq.0.to_le_bytes());
    put(32, &record.offset.to_le_bytes());
    put(40, &record.unique.to_le_bytes());
    put(48, &record.time.0.to_le_bytes());
    put(56, &record.len.to_le_bytes());
    put(60, &data_crc.to_le_bytes());
    put(64, &record.at.to_le_bytes());
    put(72, &u64::from(record.kill_priv).to_le_bytes());
    let crc = crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The record and its data's checksum, or `None` if the head is not what was written at `at`.
pub(crate) fn head_from_bytes(bytes: &[u8; HEAD as usize], at: u64) -> Option<(Record, u32)> {
    let sound = u32_at(bytes, 4) == crc32c(&bytes[8..]) && u64_at(bytes, 64) == at && u64_at(bytes, 72) <= 1;
    sound.then(|| {
        let record = Record {
            ino: Ino(u64_at(bytes, 8)),
            grant: Grant(u64_at(bytes, 16)),
            dseq: Dseq(u64_at(bytes, 24)),
            offset: u64_at(bytes, 32),
            unique: u64_at(bytes, 40),
            time: Nanos(u64_at(bytes, 48) as i64),
            len: u32_at(bytes, 56),
            kill_priv: u64_at(bytes, 72) == 1,
            times_set: u32_at(bytes, 0) == STATE_TIMES_SET,
            at,
        };
        (record, u32_at(bytes, 60))
    })
}

/// What a record takes of a chunk.
pub(crate) fn footprint(len: u32) -> u64 {
    HEAD + u64::from(len).next_multiple_of(8)
}

/// The state of a record's head.
pub(crate) fn state(head: &[u8; HEAD as usize]) -> u32 {
    u32_at(head, 0)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
