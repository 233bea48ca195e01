//! The bytes of a backup (docs/FORMATS/backup.md).

use checksum::crc32c;
use types::Nanos;

use crate::Position;

/// The version that this program writes and reads.
pub(super) const VERSION: u32 = 1;

pub(super) const MAGIC: &[u8; 8] = b"HFMBKP01";
pub(super) const CHUNK: &[u8; 4] = b"HFMC";
pub(super) const END: &[u8; 4] = b"HFME";

/// Bytes of the head.
pub(super) const HEAD_BYTES: usize = 64;

/// Bytes of a chunk before its rows.
pub(super) const CHUNK_HEAD_BYTES: usize = 24;

/// Bytes of the end.
pub(super) const END_BYTES: usize = 40;

/// Bytes of a row before its key.
pub(super) const ROW_HEAD_BYTES: usize = 6;

/// Bytes of rows that a chunk has at most: more is damage, so that a reader's memory is bounded.
pub(super) const CHUNK_MAX: usize = 1 << 20;

/// What a backup is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The cluster whose metadata it is.
    pub cluster: [u8; 16],
    /// The last entry of the log that is in its rows.
    pub position: Position,
    /// When it was made, by the clock of the machine.
    pub made: Nanos,
}

/// Why a head is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeadError {
    Foreign,
    Damaged,
    Newer(u32),
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.cluster);
        bytes[32..40].copy_from_slice(&self.position.term.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.position.index.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.made.0.to_le_bytes());
        let crc = crc32c(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Head, HeadError> {
        if !bytes.starts_with(MAGIC) {
            return Err(HeadError::Foreign);
        }
        let mut unsealed = *bytes;
        unsealed[12..16].fill(0);
        if crc32c(&unsealed) != u32_at(bytes, 12) {
            return Err(HeadError::Damaged);
        }
        match u32_at(bytes, 8) {
            VERSION => {}
            version => return Err(HeadError::Newer(version)),
        }
        if bytes[56..] != [0; 8] {
            return Err(HeadError::Damaged);
        }
        Ok(Head {
            cluster: std::array::from_fn(|i| bytes[16 + i]),
            position: Position { term: u64_at(bytes, 32), index: u64_at(bytes, 40) },
            made: Nanos(u64_at(bytes, 48) as i64),
        })
    }
}

/// The head of a chunk whose rows are `rows` in number and `body`.
pub(super) fn chunk_head(number: u64, rows: u32, body: &[u8]) -> [u8; CHUNK_HEAD_BYTES] {
    let mut head = [0; CHUNK_HEAD_BYTES];
    head[..4].copy_from_slice(CHUNK);
    head[8..16].copy_from_slice(&number.to_le_bytes());
    head[16..20].copy_from_slice(&rows.to_le_bytes());
    head[20..24].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = chunk_crc(&head, body);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
    head
}

/// What a chunk's head says of its checksum.
pub(super) fn chunk_crc(head: &[u8; CHUNK_HEAD_BYTES], body: &[u8]) -> u32 {
    crc32c(&[&head[8..], body].concat())
}

/// The end of a backup of so many chunks and rows, with the checksum of all bytes before it.
pub(super) fn end(chunks: u64, rows: u64, sum: u128) -> [u8; END_BYTES] {
    let mut end = [0; END_BYTES];
    end[..4].copy_from_slice(END);
    end[8..16].copy_from_slice(&chunks.to_le_bytes());
    end[16..24].copy_from_slice(&rows.to_le_bytes());
    end[24..40].copy_from_slice(&sum.to_le_bytes());
    let crc = crc32c(&end[8..]);
    end[4..8].copy_from_slice(&crc.to_le_bytes());
    end
}
