//! The block in front of each fragment: what it is, and the checksum of each of its blocks.

use checksum::crc32c;
use device::IoBuf;
use types::{BLOCK, Epoch, FragmentId};

use crate::bytes::{array_at, put, u16_at, u32_at, u64_at};
use crate::layout::DiskId;

/// The first bytes of a fragment.
pub const MAGIC: &[u8; 4] = b"HFFR";
/// The format version of fragments.
pub const VERSION: u16 = 1;
/// Where the block checksums start.
const CRCS_AT: usize = 128;
/// Room for block checksums.
const CRCS_MAX: usize = 272;
/// Where the data of a small fragment starts in the header's block.
pub const INLINE_AT: usize = CRCS_AT + 4 * CRCS_MAX;
/// The most data that lies in the header's block, in bytes.
pub const INLINE_MAX: u32 = BLOCK as u32 - INLINE_AT as u32;
/// The most bytes that a fragment may hold: an extent of 1 MiB and what its encoding adds, at most a block.
pub const STORED_MAX: u32 = (types::EXTENT_MAX + BLOCK) as u32;
/// The most blocks that a fragment takes, its header among them.
pub const BLOCKS_MAX: u32 = 1 + STORED_MAX / BLOCK as u32;

/// A fragment's header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The group's epoch when it was written.
    pub epoch: Epoch,
    /// Its name.
    pub id: FragmentId,
    /// The disk that it was written on.
    pub disk: DiskId,
    /// The block of the disk that it was written at.
    pub block: u64,
    /// Its bytes.
    pub stored_len: u32,
    /// CRC-32C of each of its blocks, the last one padded with zeros.
    pub crcs: Vec<u32>,
    /// The checksum of the whole extent's content.
    pub content_crc: u32,
}

/// Why a block is not the header that it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// It does not start as a header does.
    #[error("it is not a fragment's header")]
    NotHeader,
    /// Its checksum is wrong.
    #[error("its checksum is wrong")]
    BadCrc,
    /// A newer release wrote it.
    #[error("a newer release wrote it: version {0}")]
    Newer(u16),
    /// Its checksum is right, and a field is out of range.
    #[error("its {0} is out of range")]
    Malformed(&'static str),
}

/// How many blocks a fragment of `stored_len` bytes takes, its header among them.
pub const fn blocks_of(stored_len: u32) -> u32 {
    if stored_len <= INLINE_MAX { 1 } else { 1 + stored_len.div_ceil(BLOCK as u32) }
}

impl Header {
    /// The header's block, with `inline` in it if the fragment is small, and its checksum, which the index keeps.
    pub fn encode(&self, inline: &[u8]) -> (IoBuf, u32) {
        assert!(self.crcs.len() <= CRCS_MAX, "a fragment has at most {CRCS_MAX} blocks");
        assert!(inline.len() <= INLINE_MAX as usize, "only small data lies in the header's block");
        let mut block = IoBuf::zeroed(BLOCK as usize);
        put(&mut block, 0, MAGIC);
        put(&mut block, 8, &VERSION.to_le_bytes());
        put(&mut block, 12, &self.epoch.0.to_le_bytes());
        put(&mut block, 16, &self.id.to_bytes());
        put(&mut block, 48, &self.disk.0);
        put(&mut block, 64, &self.block.to_le_bytes());
        put(&mut block, 72, &self.stored_len.to_le_bytes());
        put(&mut block, 76, &(self.crcs.len() as u32).to_le_bytes());
        put(&mut block, 80, &self.content_crc.to_le_bytes());
        for (n, crc) in self.crcs.iter().enumerate() {
            put(&mut block, CRCS_AT + n * 4, &crc.to_le_bytes());
        }
        put(&mut block, INLINE_AT, inline);
        let crc = crc32c(&block[8..]);
        put(&mut block, 4, &crc.to_le_bytes());
        (block, crc)
    }

    /// Reads a header's block; the checksum covers small data in it too.
    pub fn decode(block: &[u8]) -> Result<Header, HeaderError> {
        if block.len() != BLOCK as usize || block[..4] != MAGIC[..] {
            return Err(HeaderError::NotHeader);
        }
        if header_crc(block) != u32_at(block, 4) && !planted::is(planted::Bug::NoCrc) {
            return Err(HeaderError::BadCrc);
        }
        let version = u16_at(block, 8);
        if version > VERSION {
            return Err(HeaderError::Newer(version));
        }
        let malformed = HeaderError::Malformed;
        if version == 0 || u16_at(block, 10) != 0 {
            return Err(malformed("version or flags"));
        }
        let stored_len = u32_at(block, 72);
        if stored_len == 0 || stored_len > STORED_MAX {
            return Err(malformed("length"));
        }
        let count = u32_at(block, 76);
        if count != stored_len.div_ceil(BLOCK as u32) {
            return Err(malformed("count of checksums"));
        }
        let crcs_end = CRCS_AT + count as usize * 4;
        let inline = if stored_len <= INLINE_MAX { stored_len as usize } else { 0 };
        let reserved = [&block[84..CRCS_AT], &block[crcs_end..INLINE_AT], &block[INLINE_AT + inline..]];
        if reserved.iter().any(|bytes| bytes.iter().any(|byte| *byte != 0)) {
            return Err(malformed("reserved space"));
        }
        Ok(Header {
            epoch: Epoch(u32_at(block, 12)),
            id: FragmentId::from_bytes(&array_at(block, 16)).ok_or(malformed("id"))?,
            disk: DiskId(array_at(block, 48)),
            block: u64_at(block, 64),
            stored_len,
            crcs: block[CRCS_AT..crcs_end].chunks_exact(4).map(|crc| u32_at(crc, 0)).collect(),
            content_crc: u32_at(block, 80),
        })
    }

    /// Whether the data lies in the header's block.
    pub fn is_inline(&self) -> bool {
        self.stored_len <= INLINE_MAX
    }
}

/// The checksum of a header's block: of all behind the checksum itself.
pub(crate) fn header_crc(block: &[u8]) -> u32 {
    crc32c(&block[8..])
}

#[cfg(test)]
mod tests;
