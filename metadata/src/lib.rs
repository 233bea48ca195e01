//! The metadata service: a partition of the namespace over a folder of a filesystem.
//!
//! [`Service`] runs the partition on a thread of its own and answers [`meta_client::MetaService`]. [`Offline`] looks
//! at a folder that nobody serves, without changing it. [`Backup`] writes the rows of either, and [`Reader`] reads them.

mod backup;
mod figures;
mod folder;
mod map;
mod offline;
mod reclaim;
mod service;
mod space;

pub use backup::{Backup, BackupError, Head, ReadError, Reader, Row, Totals};
pub use figures::{Figures, Latency};
pub use folder::{CreateError, OpenError, Options};
pub use map::{Used, UsedKind};
pub use meta_raft::{Beat, Payload, Position, Record};
pub use offline::{LogRecord, LogReport, Offline, OfflineError};
pub use service::Service;
pub use space::{Filesystem, FreeSpace};
