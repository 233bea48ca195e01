//! What the tree itself does not check when it is opened: its manifest.

use std::io;
use std::path::{Path, PathBuf};

use crate::rows::SyncError;

/// The file that names the manifest that counts.
const CURRENT: &str = "current";

/// Why rows cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum RowsOpenError {
    /// The filesystem failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("the rows in {path} are damaged: {detail}")]
    Damaged {
        /// Which file or folder.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The rows belong to another log.
    #[error("the rows in {path} belong to another log")]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// The first sync failed.
    #[error("new rows cannot be made durable: {source}")]
    FirstSync {
        /// How.
        source: SyncError,
    },
}

impl RowsOpenError {
    pub(super) fn of(path: &Path, error: lsm_tree::Error) -> RowsOpenError {
        let path = path.to_path_buf();
        match error {
            lsm_tree::Error::Io(source) => RowsOpenError::Io { path, source },
            error => RowsOpenError::Damaged { path, detail: error.to_string() },
        }
    }
}

/// Compares the manifest with its checksum: `current` is `u64 number | u128 xxh3-128 of file v<number> | u8 0`.
///
/// Without `current` the tree would be taken for a new one. As a folder of rows gets its name only when they are
/// whole, a missing file is damage.
pub(super) fn manifest(path: &Path) -> Result<(), RowsOpenError> {
    let read = |name: &str| {
        let file = path.join(name);
        std::fs::read(&file).map_err(|source| RowsOpenError::Io { path: file, source })
    };
    let current = read(CURRENT)?;
    let damaged =
        |name: &str, detail: &str| RowsOpenError::Damaged { path: path.join(name), detail: detail.into() };
    let current: [u8; 25] =
        current.try_into().map_err(|_| damaged(CURRENT, "it does not have the 25 bytes of a pointer"))?;
    let number = u64::from_le_bytes(std::array::from_fn(|i| current[i]));
    let sum = u128::from_le_bytes(std::array::from_fn(|i| current[8 + i]));
    if current[24] != 0 {
        return Err(damaged(CURRENT, "it names a checksum of an unknown kind"));
    }
    let name = format!("v{number}");
    if xxhash_rust::xxh3::xxh3_128(&read(&name)?) != sum {
        return Err(damaged(&name, "its checksum is wrong"));
    }
    Ok(())
}
