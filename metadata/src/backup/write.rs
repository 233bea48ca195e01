//! Rows into a backup.

use std::io;

use namespace::RowsError;
use xxhash_rust::xxh3::Xxh3;

use super::format::{CHUNK_HEAD_BYTES, CHUNK_MAX, Head, ROW_HEAD_BYTES, chunk_head, end};

/// Bytes of rows with which a chunk is written. One more row always fits what a reader takes.
const CHUNK_BYTES: usize = 256 << 10;

/// Why there is no backup. What was written of it is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The rows cannot be read.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A row is larger than any can be.
    #[error("a row of {bytes} bytes does not fit a backup")]
    TooLarge {
        /// Bytes of its key and its value.
        bytes: usize,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// What a backup holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Rows.
    pub rows: u64,
    /// Bytes of the whole backup.
    pub bytes: u64,
}

/// A backup on its way to `out`, which is given a chunk at a time.
pub(super) struct Writer<'a> {
    out: &'a mut dyn FnMut(Vec<u8>) -> io::Result<()>,
    sum: Xxh3,
    /// The chunk that is being filled, its head left free.
    chunk: Vec<u8>,
    rows_in_chunk: u32,
    chunks: u64,
    totals: Totals,
}

impl<'a> Writer<'a> {
    pub(super) fn begin(
        head: &Head,
        out: &'a mut dyn FnMut(Vec<u8>) -> io::Result<()>,
    ) -> io::Result<Writer<'a>> {
        let chunk = vec![0; CHUNK_HEAD_BYTES];
        let mut writer =
            Writer { out, sum: Xxh3::new(), chunk, rows_in_chunk: 0, chunks: 0, totals: Totals::default() };
        writer.put(head.encode().to_vec())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.sum.update(&bytes);
        self.totals.bytes += bytes.len() as u64;
        (self.out)(bytes)
    }

    /// Adds a row. They come in key order.
    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), BackupError> {
        let bytes = key.len() + value.len();
        let too_large = BackupError::TooLarge { bytes };
        let Ok(key_len) = u16::try_from(key.len()) else { return Err(too_large) };
        if ROW_HEAD_BYTES + bytes + CHUNK_BYTES > CHUNK_MAX {
            return Err(too_large);
        }
        self.chunk.extend_from_slice(&key_len.to_le_bytes());
        self.chunk.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.chunk.extend_from_slice(key);
        self.chunk.extend_from_slice(value);
        self.rows_in_chunk += 1;
        self.totals.rows += 1;
        if self.chunk.len() >= CHUNK_BYTES {
            self.chunk()?;
        }
        Ok(())
    }

    fn chunk(&mut self) -> io::Result<()> {
        let mut chunk = std::mem::replace(&mut self.chunk, vec![0; CHUNK_HEAD_BYTES]);
        let head = chunk_head(self.chunks, self.rows_in_chunk, &chunk[CHUNK_HEAD_BYTES..]);
        chunk[..CHUNK_HEAD_BYTES].copy_from_slice(&head);
        self.chunks += 1;
        self.rows_in_chunk = 0;
        self.put(chunk)
    }

    /// Writes what is left, and the end.
    pub(super) fn finish(mut self) -> io::Result<Totals> {
        if self.rows_in_chunk > 0 {
            self.chunk()?;
        }
        self.put(end(self.chunks, self.totals.rows, self.sum.digest128()).to_vec())?;
        Ok(self.totals)
    }
}
