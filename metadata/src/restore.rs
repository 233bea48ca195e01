//! A backup becomes the metadata of a data directory.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use meta_raft::{Applied, Executor, JournalLog, LogError, LsmRows, RowStore, RowsOpenError, SyncError};
use namespace::{Batch, NAMESPACE_TABLE, RowsError, Write};

use crate::backup::{ReadError, Reader};
use crate::folder::{CreateError, Folder, OpenError, Options, sync_all};
use crate::service::GROUP;

/// Where restored metadata lie below the data directory until they are whole: it looks like a data directory itself.
const UNFINISHED: &str = "restore.new";

/// Bytes of rows that are in memory before they are written.
const UNSYNCED: u64 = 16 << 20;

/// Why a backup was not restored. The metadata that were there are what they were, unless [`RestoreError::Between`].
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup cannot be used.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It holds rows that no backup holds.
    #[error("the backup holds a row of table {table}, which no backup holds")]
    Table {
        /// Which.
        table: u8,
    },
    /// The filesystem failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// The folder for it was not made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// What was made cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new rows cannot be opened.
    #[error(transparent)]
    RowsOpen(#[from] RowsOpenError),
    /// The new rows cannot be changed.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The new rows cannot be made durable.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The new log cannot be written.
    #[error("the new log cannot be written: {0}")]
    Log(#[from] LogError),
    /// It was cut off between the old metadata and the new ones.
    #[error("{}: {source}; there are no metadata now: restore again, or rename {} back", .to.display(), .replaced.display())]
    Between {
        /// What was to become the metadata.
        to: PathBuf,
        /// Where the old ones are.
        replaced: PathBuf,
        /// How it failed.
        source: io::Error,
    },
}

/// Metadata from a backup, beside those that a data directory has; not in use yet.
///
/// The folder is laid out as a data directory, so [`Service::open`](crate::Service::open) and
/// [`Offline::open`](crate::Offline::open) take its [`path`](Restored::path).
pub struct Restored {
    data: PathBuf,
    path: PathBuf,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RestoreError + use<> {
    let path = path.to_path_buf();
    |source| RestoreError::Io { path, source }
}

impl Restored {
    /// Makes new metadata from all rows of a backup, with a log that goes on behind its last entry. What an earlier
    /// restore left unfinished goes. `progress` hears how many bytes of the backup have been read.
    pub fn build<R: Read>(
        data: &Path,
        options: &Options,
        mut backup: Reader<R>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Restored, RestoreError> {
        let path = data.join(UNFINISHED);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(&path)(source)),
            _ => fs::create_dir(&path).map_err(failed(&path))?,
        }
        Folder::create(&path, options)?;
        let folder = Folder::of(&path);
        let (disk, shape) = folder.open_log(options.backend)?;
        let rows = LsmRows::open(&folder.rows(), shape.uuid)?;
        let position = backup.head().position;
        while let Some(chunk) = backup.chunk()? {
            if let Some((key, _)) = chunk.iter().find(|(key, _)| key.first() != Some(&NAMESPACE_TABLE)) {
                return Err(RestoreError::Table { table: key.first().copied().unwrap_or(0) });
            }
            let batch: Batch = chunk.into_iter().map(|(key, value)| (key, Write::Put(value))).collect();
            rows.commit(batch, Applied::default())?;
            if rows.unsynced_bytes() >= UNSYNCED {
                rows.sync()?;
            }
            progress(backup.totals().bytes);
        }
        rows.commit(Batch::new(), meta_raft::seeded(position))?;
        rows.sync()?;
        Executor::new(0).run(async {
            let (mut log, _) = JournalLog::open(disk, shape).await?;
            meta_raft::seed_log(&mut log, GROUP, position).await
        })?;
        Ok(Restored { data: data.to_path_buf(), path })
    }

    /// Where they are until [`Restored::install`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts them in the place of the metadata that the data directory has, which are kept: answers where, if there were
    /// any. Durable on return. Nobody may have either open.
    ///
    /// A crash on the way leaves the old ones, the new ones, or none, and then [`Service::was_cut_off`] says so and
    /// the next restore does it all again.
    ///
    /// [`Service::was_cut_off`]: crate::Service::was_cut_off
    pub fn install(self) -> Result<Option<PathBuf>, RestoreError> {
        let (new, now) = (Folder::of(&self.path).path, Folder::of(&self.data).path);
        sync_all(&self.path).map_err(failed(&new))?;
        let sync = || File::open(&self.data).and_then(|data| data.sync_all());
        let mut replaced = None;
        if now.exists() {
            let aside = |n: u32| self.data.join(format!("meta.replaced-{n}"));
            let mut n = 1;
            while aside(n).exists() {
                n += 1;
            }
            let aside = aside(n);
            fs::rename(&now, &aside).map_err(failed(&now))?;
            replaced = Some(aside);
        }
        let installed = sync().and_then(|()| fs::rename(&new, &now)).and_then(|()| sync());
        if let Err(source) = installed {
            return Err(match replaced {
                Some(replaced) if !now.exists() => RestoreError::Between { to: now, replaced, source },
                _ => failed(&now)(source),
            });
        }
        // It is empty. If it stays the next restore removes it.
        let _ = fs::remove_dir_all(&self.path);
        Ok(replaced)
    }
}

/// Whether a restore into a data directory ended between the old metadata and the new ones.
pub(crate) fn was_cut_off(data: &Path) -> bool {
    !Folder::of(data).path.exists() && Folder::of(&data.join(UNFINISHED)).path.exists()
}
