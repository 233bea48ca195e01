//! This node's disks, open.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clock::Clock;
use device::FileDisk;
use extents::Group;
use namespace::GroupRow;
use serde::Serialize;
use store::{ClusterId, DiskId, FragmentStore, RecoveryReport, Store};

use crate::driving::Driving;
use crate::keeper::Keeper;

/// How the disks of a node are opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The cluster that they belong to; any other disk is refused.
    pub cluster: ClusterId,
    /// Change nothing on them: for `fsck`.
    pub read_only: bool,
    /// How operations reach the kernel.
    pub device: device::OpenOptions,
}

/// Why a disk was not formatted. What was on it may be lost.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file or block device cannot be used.
    #[error(transparent)]
    Device(#[from] device::OpenError),
    /// It cannot hold the format.
    #[error("{}: the disk was not formatted", .path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// Why.
        source: store::FormatError,
    },
}

/// Why the disks were not opened. None of them is open then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or block device cannot be used.
    #[error(transparent)]
    Device(#[from] device::OpenError),
    /// What is on it cannot be used.
    #[error("{}: the disk cannot be opened", .path.display())]
    Store {
        /// Which.
        path: PathBuf,
        /// Why.
        source: store::OpenError,
    },
    /// The system gives no thread for it.
    #[error("{}: no thread for the disk", .path.display())]
    Thread {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Why disks were not closed in order. What was acknowledged is durable all the same.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: the disk was not closed in order", .path.display())]
pub struct CloseError {
    /// The first of them.
    pub path: PathBuf,
    /// Why.
    pub source: store::CloseError,
}

/// The open disks of this node. Dropping it ends them as a crash would, which loses nothing; [`NodeAgent::close`]
/// makes the next open quick. Either way a file or block device can be opened again only when everybody has dropped the
/// stores, and what was made of them, that [`NodeAgent::stores`] and [`NodeAgent::groups`] answered.
#[derive(Debug, Default)]
pub struct NodeAgent {
    disks: Vec<Disk>,
}

/// One open disk.
pub struct Disk {
    path: PathBuf,
    store: Store,
    report: RecoveryReport,
    driver: Driving,
}

/// A disk as `status` shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DiskStatus {
    /// Where it is.
    pub path: PathBuf,
    /// Which it is.
    pub disk: String,
    /// Bytes that fragments may take in all.
    pub bytes: u64,
    /// Bytes that they take.
    pub used: u64,
    /// Bytes that they may still take.
    pub free: u64,
    /// Bytes that are out of use, because what was read from there was not what had been written.
    pub withheld: u64,
    /// How many fragments there are.
    pub fragments: u64,
    /// Checkpoints of its index since it was opened.
    pub checkpoints: u64,
    /// How often the disk was opened.
    pub incarnation: u64,
    /// A write or a flush failed: everything on it waits until it is opened anew.
    pub failed: bool,
}

/// Formats the file or block device at `path`: everything that was on it is lost. Durable on return.
pub async fn format(
    path: &Path,
    options: &store::FormatOptions,
    device: device::OpenOptions,
) -> Result<(), FormatError> {
    let disk = open_device(path.to_path_buf(), device).await?;
    let format = store::format(&disk, options).await;
    format.map_err(|source| FormatError::Format { path: path.to_path_buf(), source })
}

impl NodeAgent {
    /// Opens the disks at `paths`, puts right what a crash left, and starts to serve them as tasks of the current tokio
    /// runtime. Everything that was acknowledged before is there.
    pub async fn open(
        paths: &[PathBuf],
        clock: &Arc<dyn Clock>,
        options: Options,
    ) -> Result<NodeAgent, OpenError> {
        let mut agent = NodeAgent::default();
        for path in paths {
            if let Err(error) = agent.add(path.clone(), clock, options).await {
                if let Err(also) = agent.close().await {
                    tracing::warn!(error = %also, "another disk was not closed in order");
                }
                return Err(error);
            }
        }
        Ok(agent)
    }

    /// Opens one more disk, as [`NodeAgent::open`] does. The others stay as they are if it cannot be opened.
    pub async fn add(
        &mut self,
        path: PathBuf,
        clock: &Arc<dyn Clock>,
        options: Options,
    ) -> Result<(), OpenError> {
        self.disks.push(Disk::open(path, clock, options).await?);
        Ok(())
    }

    /// Closes the disks of these ids; the others stay.
    pub async fn close_some(&mut self, ids: &[DiskId]) -> Result<(), CloseError> {
        let (gone, kept) =
            std::mem::take(&mut self.disks).into_iter().partition(|disk| ids.contains(&disk.store.disk()));
        self.disks = kept;
        NodeAgent { disks: gone }.close().await
    }

    /// The disks, in the order in which they were opened.
    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// What is on the disks, by their ids.
    pub fn stores(&self) -> Vec<(DiskId, Arc<dyn FragmentStore>)> {
        let store = |disk: &Disk| (disk.store.disk(), Arc::new(disk.store.clone()) as Arc<dyn FragmentStore>);
        self.disks.iter().map(store).collect()
    }

    /// The groups of the cluster as these disks have them; `rows` are the answer to `Query::Groups`.
    pub fn groups(&self, rows: Vec<GroupRow>) -> Vec<Group> {
        Keeper::join(rows, &self.stores().into_iter().collect())
    }

    /// Closes the disks in order: the next open has nothing to replay. Waits for what is in flight.
    pub async fn close(self) -> Result<(), CloseError> {
        let mut first = Ok(());
        for disk in self.disks {
            first = first.and(disk.close().await);
        }
        first
    }
}

impl Disk {
    async fn open(path: PathBuf, clock: &Arc<dyn Clock>, options: Options) -> Result<Disk, OpenError> {
        let device = Arc::new(open_device(path.clone(), options.device).await?);
        let store_options = store::OpenOptions {
            cluster: Some(options.cluster),
            read_only: options.read_only,
            ..store::OpenOptions::default()
        };
        match store::open(device, Arc::clone(clock), store_options).await {
            Ok((store, driver, report)) => {
                let driver = Driving::start(driver)
                    .map_err(|source| OpenError::Thread { path: path.clone(), source })?;
                Ok(Disk { path, store, report, driver })
            }
            Err(source) => Err(OpenError::Store { path, source }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is on it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What its open found and did.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.report
    }

    /// How it is.
    pub fn status(&self) -> DiskStatus {
        DiskStatus {
            path: self.path.clone(),
            disk: self.store.disk().to_string(),
            bytes: self.store.capacity(),
            used: self.store.used(),
            free: self.store.free(),
            withheld: self.store.withheld(),
            fragments: self.store.fragments(),
            checkpoints: self.store.checkpoints(),
            incarnation: self.store.incarnation(),
            failed: self.store.is_poisoned(),
        }
    }

    async fn close(mut self) -> Result<(), CloseError> {
        let mut closed = self.store.close().await;
        match self.driver.ended().await {
            Some(ended) => closed = closed.and(ended),
            None => tracing::error!(path = %self.path.display(), "a disk's driver ended badly"),
        }
        closed.map_err(|source| CloseError { path: self.path.clone(), source })
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Disk").field(&self.status()).finish()
    }
}

async fn open_device(path: PathBuf, options: device::OpenOptions) -> Result<FileDisk, device::OpenError> {
    let opening = tokio::task::spawn_blocking(move || device::open_disk(&path, options));
    opening.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
