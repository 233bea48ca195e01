//! Raft's log: the entries of all groups in one stream of batches, each flushed once.
//!
//! One task writes. It takes everything that was queued while the last batch was on its way, writes it as one, and
//! then tells whoever waits. The entries that are not purged stay in memory: openraft reads each one again to apply it.

mod backend;
mod journal;
mod recover;
mod storage;
mod writer;

pub use backend::{LogBackend, LogError, MemoryLog, Recovered};
pub use journal::JournalLog;
pub(crate) use recover::Contents;
pub(crate) use storage::GroupLog;
pub(crate) use writer::{LogShared, QUEUE, write_log};
