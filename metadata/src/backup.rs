//! Backups: all rows of one moment in one file.

mod format;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;

use namespace::{NAMESPACE_TABLE, Rows, RowsError};
use types::Nanos;

pub use format::Head;
pub use read::{ReadError, Reader, Row};
pub use write::{BackupError, Totals};

use crate::offline::Offline;
use write::Writer;

/// Hears of each row, until it answers `false`.
type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// Visits all rows of the namespace in key order.
type Visit = Box<dyn FnOnce(Each<'_>) -> Result<(), RowsError> + Send>;

/// The rows of one moment, to be written into a backup.
pub struct Backup {
    head: Head,
    visit: Visit,
}

impl Backup {
    /// Of rows that are frozen.
    pub(crate) fn of_frozen(head: Head, rows: meta_raft::FrozenRows) -> Backup {
        let visit = |each: Each<'_>| {
            for row in rows {
                let (key, value) = row?;
                if !each(&key, &value) {
                    break;
                }
            }
            Ok(())
        };
        Backup { head, visit: Box::new(visit) }
    }

    /// Of a service that does not run, as its next start would find it; `None` if it never held anything.
    pub fn of_stopped(offline: Offline, cluster: [u8; 16], made: Nanos) -> Option<Backup> {
        let position = offline.report().last?;
        let visit = move |each: Each<'_>| offline.scan(&FIRST, &END, false, each);
        Some(Backup { head: Head { cluster, position, made }, visit: Box::new(visit) })
    }

    /// What it will be a backup of.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Gives the backup's bytes to `out`, at most about 1 MiB at a time. Blocks on the disk and as long as `out` does;
    /// holds one chunk in memory. The service goes on meanwhile.
    pub fn write(self, out: &mut dyn FnMut(Vec<u8>) -> io::Result<()>) -> Result<Totals, BackupError> {
        let mut writer = Writer::begin(&self.head, out)?;
        let mut failed = None;
        (self.visit)(&mut |key, value| {
            failed = writer.row(key, value).err();
            failed.is_none()
        })?;
        match failed {
            Some(error) => Err(error),
            None => Ok(writer.finish()?),
        }
    }
}

/// Where the rows of the namespace begin.
pub(crate) const FIRST: [u8; 1] = [NAMESPACE_TABLE];

/// The first key behind them.
pub(crate) const END: [u8; 1] = [NAMESPACE_TABLE + 1];
