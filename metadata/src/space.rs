//! The end of the filesystem: changes are refused before the last sync would not find room.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use device::create_disk_file;
use meta_raft::{LsmRows, Partition, Room};
use types::ByteSize;

use crate::folder::{Folder, Options};

/// How often to look.
const LOOK: Duration = Duration::from_millis(500);

/// Tells how much of a filesystem is free.
pub trait FreeSpace: Send + Sync + 'static {
    /// Bytes that this user may still take of the filesystem that `path` is on.
    fn free(&self, path: &Path) -> io::Result<u64>;
}

/// The machine's filesystems.
#[derive(Clone, Copy, Debug)]
pub struct Filesystem;

impl FreeSpace for Filesystem {
    fn free(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Why changes are refused, if they are.
#[derive(Clone, Default)]
pub(crate) struct ReadOnly(Arc<Mutex<Option<String>>>);

impl ReadOnly {
    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

/// Watches the filesystem of a service.
pub(crate) struct Watch {
    path: PathBuf,
    reserve: PathBuf,
    reserve_bytes: u64,
    below: u64,
    free: Arc<dyn FreeSpace>,
    pub(crate) read_only: ReadOnly,
}

impl Watch {
    pub(crate) fn new(folder: &Folder, options: &Options) -> Watch {
        Watch {
            path: folder.path.clone(),
            reserve: folder.reserve(),
            reserve_bytes: options.reserve_bytes,
            below: options.read_only_below,
            free: options.free.clone(),
            read_only: ReadOnly::default(),
        }
    }

    /// Runs until the partition stops.
    pub(crate) async fn run(self: Arc<Watch>, partition: Partition<LsmRows>) {
        while partition.stopped().is_none() {
            self.look(&partition).await;
            meta_raft::sleep(LOOK).await;
        }
    }

    /// Called at the start of a sync. A filesystem can fill up between two looks, and a sync that does not find room
    /// ends the service: so the reserve is given up first, and nothing changes after.
    pub(crate) fn make_room(&self) -> Room {
        match self.free.free(&self.path) {
            Ok(free) if free < self.below => {
                self.refuse(free);
                Room::Short
            }
            // What is unknown here is told by the next look.
            _ => Room::Plenty,
        }
    }

    /// Refuses changes from now on, and makes room for what is in memory.
    fn refuse(&self, free: u64) {
        if self.read_only.get().is_some() {
            return;
        }
        let (path, free, below) = (self.path.display(), ByteSize(free), ByteSize(self.below));
        let why = format!("the filesystem of {path} has {free} left and needs {below}: free some of it");
        tracing::warn!(%why, "metadata service is read-only");
        self.read_only.set(Some(why));
        self.release();
    }

    /// Looks once, and does what there is to do.
    pub(crate) async fn look(&self, partition: &Partition<LsmRows>) {
        let free = match self.free.free(&self.path) {
            Ok(free) => free,
            Err(error) => {
                let path = self.path.display();
                self.read_only.set(Some(format!("the free space of {path} is unknown: {error}")));
                return;
            }
        };
        let refusing = self.read_only.get().is_some();
        if free < self.below {
            if !refusing {
                self.refuse(free);
                // What is in memory goes to the disk while there is room. If it stopped meanwhile, whoever waits for
                // that is told.
                let _ = partition.sync().await;
            }
        } else if refusing
            && free >= self.below.saturating_mul(2).saturating_add(self.missing())
            && self.restore()
        {
            tracing::info!(path = %self.path.display(), "metadata service takes changes again");
            self.read_only.set(None);
        } else if !refusing && self.missing() > 0 && free >= self.below.saturating_add(self.missing()) {
            // An earlier process used it.
            self.restore();
        }
    }

    fn missing(&self) -> u64 {
        if self.reserve.exists() { 0 } else { self.reserve_bytes }
    }

    fn release(&self) {
        match std::fs::remove_file(&self.reserve) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.reserve.display(), %error, "the reserve cannot be released");
            }
            _ => {}
        }
    }

    /// Makes the reserve anew, if it is not there. Says whether it is.
    fn restore(&self) -> bool {
        self.reserve.exists() || create_disk_file(&self.reserve, self.reserve_bytes.max(types::BLOCK)).is_ok()
    }
}
