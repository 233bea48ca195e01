//! A look at a service that does not run, for `fsck` and `dump`. Nothing on its disk changes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use device::Backend;
use meta_raft::{Executor, FormatError, JournalLog, LsmRows, Payload, Position, Record, Recovered, RowStore};
use namespace::{Rows, RowsError, Write};

use crate::folder::{Folder, OpenError};

/// Why a folder cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// It cannot be opened, or is damaged.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The rows cannot be linked into a scratch folder, where they are read.
    #[error("{}: {source}", .path.display())]
    Scratch {
        /// Which file or folder.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// An entry of the log cannot be applied.
    #[error("entry {index} of the log cannot be applied: {source}")]
    Apply {
        /// Which.
        index: u64,
        /// Why.
        source: RowsError,
    },
}

/// One record of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRecord {
    /// Where its batch begins.
    pub lsn: u64,
    /// Its group and what it says.
    pub record: Result<(u32, Record), FormatError>,
}

/// What was found in the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogReport {
    /// Records of all kinds.
    pub records: u64,
    /// The last entry in the durable rows.
    pub synced: Option<Position>,
    /// The last entry in the log.
    pub last: Option<Position>,
    /// Entries that the rows did not hold yet, and that were applied to look at them.
    pub replayed: u64,
}

/// A service's rows as its next start would have them: the durable ones, and over them what the log adds.
pub struct Offline {
    base: LsmRows,
    over: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    report: LogReport,
    _scratch: tempfile::TempDir,
}

impl Offline {
    /// Opens the service of a data directory to look at it. Blocks; the changes that the log adds are held in memory.
    ///
    /// # Errors
    /// As opening the service itself; also if it is running.
    pub fn open(data: &Path) -> Result<Offline, OfflineError> {
        let folder = Folder::of(data);
        let (uuid, records) = read_log(&folder)?;
        let (scratch, rows) = linked(&folder.rows())?;
        let base = LsmRows::open(rows.as_path(), uuid).map_err(OpenError::from)?;
        let entries = meta_raft::entries(base.applied().position, 0, records.iter().cloned())
            .map_err(|source| OpenError::Partition { path: folder.path.clone(), source })?;
        let report = LogReport {
            records: records.len() as u64,
            synced: base.applied().position,
            last: entries.last().map(|(position, _)| *position).or(base.applied().position),
            replayed: entries.len() as u64,
        };
        let mut offline = Offline { base, over: BTreeMap::new(), report, _scratch: scratch };
        for (position, payload) in entries {
            let Payload::Commands(bytes) = payload else { continue };
            let apply = |source| OfflineError::Apply { index: position.index, source };
            let entry =
                namespace::decode_entry(&bytes).map_err(|error| apply(RowsError(error.to_string())))?;
            let (batch, _) = namespace::apply(&offline, &entry).map_err(apply)?;
            for (key, write) in batch {
                let value = match write {
                    Write::Put(value) => Some(value),
                    Write::Delete => None,
                };
                offline.over.insert(key, value);
            }
        }
        Ok(offline)
    }

    /// What was found in the log.
    pub fn report(&self) -> &LogReport {
        &self.report
    }

    /// Every record of the log, in order. The rows are not looked at.
    ///
    /// # Errors
    /// As opening the service's log; also if it is running.
    pub fn log(data: &Path) -> Result<impl Iterator<Item = LogRecord> + use<>, OpenError> {
        let (_, records) = read_log(&Folder::of(data))?;
        Ok(records
            .into_iter()
            .map(|found| LogRecord { lsn: found.lsn, record: Record::decode(found.kind, &found.body) }))
    }
}

fn read_log(folder: &Folder) -> Result<([u8; 16], Vec<Recovered>), OpenError> {
    let (disk, shape) = folder.open_log(Backend::Threads)?;
    let records = Executor::new(0)
        .run(JournalLog::read(disk, shape))
        .map_err(|source| OpenError::Log { path: folder.log(), source })?;
    Ok((shape.uuid, records))
}

/// A scratch folder that shows the rows: opening them tidies up, and that must not touch the originals. Manifests are
/// copied, tables linked.
fn linked(rows: &Path) -> Result<(tempfile::TempDir, PathBuf), OfflineError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| OfflineError::Scratch { path, source }
    };
    let scratch = tempfile::tempdir().map_err(failed(&std::env::temp_dir()))?;
    let rows = fs::canonicalize(rows).map_err(failed(rows))?;
    let shown = scratch.path().join("rows");
    fs::create_dir(&shown).map_err(failed(&shown))?;
    for entry in fs::read_dir(&rows).map_err(failed(&rows))? {
        let path = entry.map_err(failed(&rows))?.path();
        let Some(name) = path.file_name() else { continue };
        let to = shown.join(name);
        if path.is_dir() {
            fs::create_dir(&to).map_err(failed(&to))?;
            for table in fs::read_dir(&path).map_err(failed(&path))? {
                let table = table.map_err(failed(&path))?;
                symlink(table.path(), to.join(table.file_name())).map_err(failed(&to))?;
            }
        } else {
            fs::copy(&path, &to).map_err(failed(&to))?;
        }
    }
    Ok((scratch, shown))
}

impl Rows for Offline {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        match self.over.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.view().get(key),
        }
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        backward: bool,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        if from >= to {
            return Ok(());
        }
        let mut over: Vec<_> = self.over.range(from.to_vec()..to.to_vec()).collect();
        if backward {
            over.reverse();
        }
        let mut over = over.into_iter().peekable();
        let before = |a: &[u8], b: &[u8]| if backward { a > b } else { a < b };
        let mut more = true;
        self.base.view().scan(from, to, backward, &mut |key, value| {
            while let Some((changed, new)) = over.next_if(|(changed, _)| before(changed, key)) {
                if let Some(new) = new {
                    more = each(changed, new);
                }
                if !more {
                    return false;
                }
            }
            more = match over.next_if(|(changed, _)| changed.as_slice() == key) {
                Some((_, Some(new))) => each(key, new),
                Some((_, None)) => true,
                None => each(key, value),
            };
            more
        })?;
        for (changed, new) in over {
            if let Some(new) = new {
                more = more && each(changed, new);
            }
        }
        Ok(())
    }
}
