//! Batches: their header, their records, and the check of both.

use crate::format::{BATCH_MAX, Lsn, Shape};
use checksum::crc32c;
use device::IoBuf;

const MAGIC: &[u8; 4] = b"HFLB";
/// Bytes before the first record.
pub(crate) const HEADER: usize = 64;
/// Bytes before a record's body.
const RECORD_HEADER: usize = 8;
/// In `previous`: nothing before this batch is needed.
pub(crate) const NOTHING: Lsn = Lsn(0);

/// Records that are appended together: all of them are there after a crash, or none.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Begins with room for the header.
    bytes: Vec<u8>,
    records: u32,
    limit: usize,
}

/// A batch has no room for a record of this size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the batch has no room for a record of {bytes} bytes")]
pub struct BatchFull {
    /// The size of the record's body.
    pub bytes: usize,
}

/// One record of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// What it is, to whoever wrote it.
    pub kind: u16,
    /// Free to whoever wrote it.
    pub flags: u16,
    /// Its content.
    pub body: &'a [u8],
}

impl Batch {
    /// An empty batch for a log of this shape.
    pub fn new(shape: &Shape) -> Batch {
        Batch { bytes: vec![0; HEADER], records: 0, limit: shape.batch_max() as usize }
    }

    /// Adds a record, if the batch has room for it.
    pub fn push(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<(), BatchFull> {
        if body.len() > self.room() || self.bytes.len() + RECORD_HEADER > self.limit {
            return Err(BatchFull { bytes: body.len() });
        }
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(&flags.to_le_bytes());
        self.bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.records += 1;
        Ok(())
    }

    /// The longest body that it has room for.
    pub fn room(&self) -> usize {
        (self.limit - self.bytes.len()).saturating_sub(RECORD_HEADER)
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.records as usize
    }

    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes that it takes in the log.
    pub fn stored_bytes(&self) -> u64 {
        padded(self.bytes.len() as u32)
    }

    /// The batch as it is written at `lsn`, padded to whole blocks.
    pub(crate) fn seal(mut self, uuid: &[u8; 16], lsn: Lsn, place: Place) -> IoBuf {
        let len = self.bytes.len() as u32;
        let header = &mut self.bytes[..HEADER];
        header[0..4].copy_from_slice(MAGIC);
        header[8..24].copy_from_slice(uuid);
        header[24..32].copy_from_slice(&lsn.0.to_le_bytes());
        header[32..40].copy_from_slice(&place.flushed.0.to_le_bytes());
        header[40..44].copy_from_slice(&len.to_le_bytes());
        header[44..48].copy_from_slice(&self.records.to_le_bytes());
        header[48..56].copy_from_slice(&place.previous.0.to_le_bytes());
        header[56..64].copy_from_slice(&place.needed.0.to_le_bytes());
        let crc = crc32c(&self.bytes[8..]);
        self.bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        IoBuf::from_bytes(&self.bytes)
    }
}

/// What a batch says of the log before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Everything below was durable.
    pub(crate) flushed: Lsn,
    /// The batch before this one.
    pub(crate) previous: Lsn,
    /// Nothing below is needed.
    pub(crate) needed: Lsn,
}

/// Whole blocks for `len` bytes.
pub(crate) fn padded(len: u32) -> u64 {
    u64::from(len).next_multiple_of(types::BLOCK)
}

/// A batch's header as it was read. Nothing is proven yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) lsn: Lsn,
    pub(crate) flushed: Lsn,
    pub(crate) previous: Lsn,
    pub(crate) needed: Lsn,
    pub(crate) len: u32,
    records: u32,
    crc: u32,
}

impl Header {
    /// The header at the start of `bytes`, if it is one of this log's.
    pub(crate) fn read(shape: &Shape, bytes: &[u8]) -> Option<Header> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let u32_at =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let len = u32_at(40);
        let ours = header[..4] == *MAGIC && header[8..24] == shape.uuid;
        if !ours || len < HEADER as u32 || !len.is_multiple_of(8) || len > shape.batch_max() {
            return None;
        }
        Some(Header {
            lsn: Lsn(u64_at(24)),
            flushed: Lsn(u64_at(32)),
            previous: Lsn(u64_at(48)),
            needed: Lsn(u64_at(56)),
            len,
            records: u32_at(44),
            crc: u32_at(4),
        })
    }

    /// Whether `bytes`, which begin with this header, are the whole batch as it was written.
    pub(crate) fn proves(&self, bytes: &[u8]) -> bool {
        let Some(batch) = bytes.get(..self.len as usize) else { return false };
        planted::is(planted::Bug::NoCrc) || crc32c(&batch[8..]) == self.crc
    }

    /// Where the next batch may begin.
    pub(crate) fn end(&self) -> Lsn {
        Lsn(self.lsn.0 + padded(self.len))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether the records of the batch in `bytes` are well formed: as many as the header says, padded with zeros.
    pub(crate) fn well_formed(&self, bytes: &[u8]) -> bool {
        let mut rest = &bytes[HEADER..self.len as usize];
        for _ in 0..self.records {
            let Some((record, after)) = split_record(rest) else { return false };
            let padding = record.body.len().next_multiple_of(8) - record.body.len();
            if rest[RECORD_HEADER + record.body.len()..][..padding].iter().any(|byte| *byte != 0) {
                return false;
            }
            rest = after;
        }
        rest.is_empty()
    }
}

fn split_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<RECORD_HEADER>()?;
    let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if len > BATCH_MAX {
        return None;
    }
    let body = rest.get(..len as usize)?;
    let after = rest.get((len as usize).next_multiple_of(8)..)?;
    let kind = u16::from_le_bytes([header[0], header[1]]);
    let flags = u16::from_le_bytes([header[2], header[3]]);
    Some((Record { kind, flags, body }, after))
}

/// The records of a batch, in order.
#[derive(Clone, Debug)]
pub struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    /// Of a batch that is well formed.
    pub(crate) fn of(batch: &'a [u8]) -> Records<'a> {
        Records(&batch[HEADER..])
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (record, rest) = split_record(self.0)?;
        self.0 = rest;
        Some(record)
    }
}
