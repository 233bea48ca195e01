//! A backup, read and compared with its checksums.

use std::io::{self, Read};

use checksum::crc32c;
use xxhash_rust::xxh3::Xxh3;

use super::format::{
    CHUNK, CHUNK_HEAD_BYTES, CHUNK_MAX, END, END_BYTES, HEAD_BYTES, Head, HeadError, ROW_HEAD_BYTES, VERSION,
    chunk_crc, u32_at, u64_at,
};
use super::write::Totals;

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not begin as a backup does.
    #[error("it is not a backup of metadata")]
    Foreign,
    /// A later release wrote it.
    #[error(
        "it was written by a newer release (its format is {version}, this one reads up to {VERSION}); use that release"
    )]
    Newer {
        /// Its version.
        version: u32,
    },
    /// It ends before its end.
    #[error("it is cut off: it ends at byte {at}, in the middle; use another backup")]
    Short {
        /// Where.
        at: u64,
    },
    /// What is there is not what was written.
    #[error("it is damaged in the part that begins at byte {at}: {what}; use another backup")]
    Damaged {
        /// Where the head, the chunk or the end begins.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// A row: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A backup that is being read. What it gives has been compared with the checksum of its chunk; that all of it was
/// there is known when [`Reader::chunk`] has answered `None`.
pub struct Reader<R> {
    from: R,
    head: Head,
    sum: Xxh3,
    at: u64,
    chunks: u64,
    rows: u64,
    last_key: Vec<u8>,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the head.
    pub fn open(mut from: R) -> Result<Reader<R>, ReadError> {
        let mut bytes = [0; HEAD_BYTES];
        let got = fill(&mut from, &mut bytes)?;
        if !bytes[..got].starts_with(&super::format::MAGIC[..got.min(8)]) || got == 0 {
            return Err(ReadError::Foreign);
        }
        if got < HEAD_BYTES {
            return Err(ReadError::Short { at: got as u64 });
        }
        let head = Head::decode(&bytes).map_err(|error| match error {
            HeadError::Foreign => ReadError::Foreign,
            HeadError::Damaged => ReadError::Damaged { at: 0, what: "the checksum of its head is wrong" },
            HeadError::Newer(version) => ReadError::Newer { version },
        })?;
        let mut sum = Xxh3::new();
        sum.update(&bytes);
        let at = HEAD_BYTES as u64;
        Ok(Reader { from, head, sum, at, chunks: 0, rows: 0, last_key: Vec::new(), ended: false })
    }

    /// What it is a backup of.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What was read so far.
    pub fn totals(&self) -> Totals {
        Totals { rows: self.rows, bytes: self.at }
    }

    /// The rows of the next chunk, in key order behind those before. `None` once everything was there and right.
    pub fn chunk(&mut self) -> Result<Option<Vec<Row>>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let begin = self.at;
        let damaged = |what| ReadError::Damaged { at: begin, what };
        let mut head = [0; CHUNK_HEAD_BYTES];
        self.take(&mut head)?;
        if head.starts_with(END) {
            self.end(&head)?;
            return Ok(None);
        }
        let len = u32_at(&head, 20) as usize;
        if !head.starts_with(CHUNK) || len > CHUNK_MAX {
            return Err(damaged("no chunk of rows begins there"));
        }
        let mut body = vec![0; len];
        self.take(&mut body)?;
        if chunk_crc(&head, &body) != u32_at(&head, 4) {
            return Err(damaged("its checksum is wrong"));
        }
        if u64_at(&head, 8) != self.chunks {
            return Err(damaged("another part belongs there"));
        }
        let rows = rows(&body).filter(|rows| rows.len() == u32_at(&head, 16) as usize);
        let rows = rows.ok_or(damaged("it does not hold the rows that it names"))?;
        for (key, _) in &rows {
            if *key <= self.last_key {
                return Err(damaged("its rows are not in order"));
            }
            self.last_key.clone_from(key);
        }
        self.sum.update(&head);
        self.sum.update(&body);
        self.chunks += 1;
        self.rows += rows.len() as u64;
        Ok(Some(rows))
    }

    fn end(&mut self, head: &[u8; CHUNK_HEAD_BYTES]) -> Result<(), ReadError> {
        let damaged = |what| ReadError::Damaged { at: self.at - CHUNK_HEAD_BYTES as u64, what };
        let mut end = [0; END_BYTES];
        end[..CHUNK_HEAD_BYTES].copy_from_slice(head);
        let wrong = damaged("the checksum of its end is wrong");
        let incomplete = damaged("it does not hold all that its end names");
        let behind = damaged("something follows its end");
        self.take(&mut end[CHUNK_HEAD_BYTES..])?;
        if crc32c(&end[8..]) != u32_at(&end, 4) {
            return Err(wrong);
        }
        let sum = u128::from_le_bytes(std::array::from_fn(|i| end[24 + i]));
        if (u64_at(&end, 8), u64_at(&end, 16)) != (self.chunks, self.rows) || sum != self.sum.digest128() {
            return Err(incomplete);
        }
        if fill(&mut self.from, &mut [0])? > 0 {
            return Err(behind);
        }
        self.ended = true;
        Ok(())
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        let got = fill(&mut self.from, bytes)?;
        self.at += got as u64;
        if got < bytes.len() { Err(ReadError::Short { at: self.at }) } else { Ok(()) }
    }
}

/// Reads until `bytes` are full or there is nothing more, and answers how many there were.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match from.read(&mut bytes[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

fn rows(mut body: &[u8]) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    while !body.is_empty() {
        let (head, rest) = body.split_at_checked(ROW_HEAD_BYTES)?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([head[0], head[1]])))?;
        let (value, rest) = rest.split_at_checked(u32_at(head, 2) as usize)?;
        rows.push((key.to_vec(), value.to_vec()));
        body = rest;
    }
    Some(rows)
}
