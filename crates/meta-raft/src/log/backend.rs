//! Where the records of the log go.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use crate::rows::FormatError;

/// Why the log cannot be read or written. It must not be used any more.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A record is not what this program writes.
    #[error("the record at {lsn:#x} of the log: {source}")]
    Format {
        /// Where its batch begins.
        lsn: u64,
        /// What is wrong.
        source: FormatError,
    },
    /// Entries do not follow one another.
    #[error("the log has entry {found} at {lsn:#x} where entry {expected} belongs")]
    Gap {
        /// Where the batch begins.
        lsn: u64,
        /// Which index belongs there.
        expected: u64,
        /// Which is there.
        found: u64,
    },
    /// A record names an entry before it that is not there.
    #[error("the log had entry {expected} before {lsn:#x}, and ends at entry {found} there")]
    Lost {
        /// Where the record's batch begins.
        lsn: u64,
        /// The entry that it names.
        expected: u64,
        /// The last that was found before it.
        found: u64,
    },
    /// A record belongs to a group that this process does not run.
    #[error("the log holds a record of group {group} at {lsn:#x}, which is not run here")]
    Group {
        /// Where the batch begins.
        lsn: u64,
        /// Which group.
        group: u32,
    },
    /// An entry is larger than a batch of the log.
    #[error("an entry of {bytes} bytes does not fit a batch of the log")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The log cannot be opened, or is damaged.
    #[error(transparent)]
    Open(#[from] journal::OpenError),
    /// The log takes no more.
    #[error(transparent)]
    Append(#[from] journal::AppendError),
    /// Its disk failed.
    #[error("the log's disk failed: {0}")]
    Disk(#[from] device::IoError),
}

/// One record as it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Where its batch begins.
    pub lsn: u64,
    /// Its type.
    pub kind: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// An append-only place for records. Only one call is under way at a time.
pub trait LogBackend: Send + 'static {
    /// Writes records behind all earlier ones and answers where the first of their batches begins. They are durable
    /// on return.
    fn append(&mut self, records: Vec<(u16, Vec<u8>)>) -> impl Future<Output = Result<u64, LogError>> + Send;

    /// Nothing before `lsn` is needed any more: its space may be used again. Not durable by itself.
    fn free_before(&mut self, lsn: u64) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Says durably that what was appended is durable, while nothing else is to be said: so that damage to the last
    /// records cannot pass for a torn tail.
    fn stamp(&mut self) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Bytes that are in use.
    fn used(&self) -> u64;

    /// Bytes that can be in use.
    fn capacity(&self) -> u64;

    /// The longest body of a record.
    fn record_max(&self) -> usize;
}

/// Records in memory, for tests of what is above. Clones are the same log.
#[derive(Clone, Default)]
pub struct MemoryLog {
    records: Arc<Mutex<Vec<Recovered>>>,
}

impl MemoryLog {
    /// What is in it.
    pub fn records(&self) -> Vec<Recovered> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl LogBackend for MemoryLog {
    async fn append(&mut self, records: Vec<(u16, Vec<u8>)>) -> Result<u64, LogError> {
        let mut all = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let lsn = all.last().map_or(0, |last| last.lsn + 4096);
        all.extend(records.into_iter().map(|(kind, body)| Recovered { lsn, kind, body }));
        Ok(lsn)
    }

    async fn free_before(&mut self, lsn: u64) -> Result<(), LogError> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).retain(|record| record.lsn >= lsn);
        Ok(())
    }

    async fn stamp(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn record_max(&self) -> usize {
        1 << 20
    }

    fn used(&self) -> u64 {
        let all = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|record| record.body.len() as u64).sum()
    }

    fn capacity(&self) -> u64 {
        1 << 30
    }
}
