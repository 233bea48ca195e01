//! Which bytes of a service's folder say something, and what.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::{Backend, BlockDev};
use journal::{Recovery, Start};
use meta_raft::{Executor, LogError};
use types::BLOCK;

use crate::folder::{Folder, OpenError};
use crate::offline::{Offline, OfflineError};

/// What a range of used bytes belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum UsedKind {
    /// A copy of the header of the log's file.
    LogHeader,
    /// A batch of the log.
    Log,
    /// The pointer to the rows' manifest.
    RowsPointer,
    /// The manifest that the pointer names.
    RowsManifest,
    /// A table of rows.
    RowsTable,
}

/// A range of bytes that some start or read needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Used {
    /// The file.
    pub path: PathBuf,
    /// Where it begins, in bytes.
    pub at: u64,
    /// How many bytes it has; at least one.
    pub len: u64,
    /// What it is.
    pub kind: UsedKind,
}

impl Offline {
    /// Every used byte of a service's folder, padding and what is of older uses left out.
    ///
    /// # Errors
    /// As opening the service's log; also if it is running, or if the folder cannot be listed.
    pub fn used(data: &Path) -> Result<Vec<Used>, OfflineError> {
        let folder = Folder::of(data);
        let mut used = log(&folder)?;
        rows(&folder.rows(), &mut used).map_err(|(path, source)| OfflineError::Scratch { path, source })?;
        Ok(used)
    }
}

fn log(folder: &Folder) -> Result<Vec<Used>, OpenError> {
    let (disk, shape) = folder.open_log(Backend::Threads)?;
    let path = folder.log();
    let headers = [0, disk.geometry().bytes - BLOCK];
    let mut used: Vec<Used> = headers
        .into_iter()
        .map(|at| Used { path: path.clone(), at, len: BLOCK, kind: UsedKind::LogHeader })
        .collect();
    let failed = |source| OpenError::Log { path: folder.log(), source: LogError::from(source) };
    Executor::new(0).run(async {
        let dev: Arc<dyn BlockDev> = disk;
        let mut recovery = Recovery::read(dev, shape, Start::Oldest).await.map_err(failed)?;
        while let Some(batch) = recovery.next().await.map_err(failed)? {
            let at = shape.offset_of(batch.lsn).0;
            used.push(Used { path: path.clone(), at, len: batch.used(), kind: UsedKind::Log });
        }
        Ok(used)
    })
}

/// The rows are files of `lsm-tree`: `current`, the manifest `vN` that it names, and tables in folders.
fn rows(folder: &Path, used: &mut Vec<Used>) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |error| (path, error)
    };
    let pointer = fs::read(folder.join("current")).map_err(at(folder))?;
    let number = pointer.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = match name.as_str() {
            "current" => UsedKind::RowsPointer,
            name if number.is_some_and(|number| name == format!("v{number}")) => UsedKind::RowsManifest,
            _ if path.is_dir() => {
                for table in fs::read_dir(&path).map_err(at(&path))? {
                    let table = table.map_err(at(&path))?.path();
                    used.extend(whole(&table, UsedKind::RowsTable).map_err(at(&table))?);
                }
                continue;
            }
            _ => continue,
        };
        used.extend(whole(&path, kind).map_err(at(&path))?);
    }
    Ok(())
}

fn whole(path: &Path, kind: UsedKind) -> io::Result<Option<Used>> {
    let len = fs::metadata(path)?.len();
    Ok((len > 0).then(|| Used { path: path.to_path_buf(), at: 0, len, kind }))
}
