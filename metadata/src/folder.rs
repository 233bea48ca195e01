//! The folder `meta/`: how it is made, so that a power cut leaves all of it or nothing, and how it is found again.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use checksum::crc32c;
use clock::{Clock, SystemClock};
use device::{
    Backend, BlockDev, Durability, FileDisk, IoBuf, IoClass, OpenOptions, create_disk_file, open_disk,
};
use journal::{Log, Shape};
use meta_raft::{Beat, Executor, LogError, LsmRows, RowsOpenError, Stopped};
use types::{BLOCK, ByteOffset, ByteSize};

use crate::space::{Filesystem, FreeSpace};

/// The service's folder below the data directory. It gets this name when all in it is durable.
const FOLDER: &str = "meta";

/// What the folder is called until then.
const UNFINISHED: &str = "meta.new";

const MAGIC: &[u8; 8] = b"HFRLOG01";

/// The version that this program writes and reads.
const VERSION: u32 = 1;

/// Bytes before the log in its file: one copy of the header. Another is in the last block.
const LOG_AT: u64 = BLOCK;

/// How a service is run. The sizes of the log count only when it is created.
#[derive(Clone)]
pub struct Options {
    /// Where the time of commands comes from.
    pub clock: Arc<dyn Clock>,
    /// When rows become durable.
    pub beat: Beat,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Bytes of a segment of the log: a power of two.
    pub segment_bytes: u32,
    /// How the log's file is driven.
    pub backend: Backend,
    /// Bytes that are kept for the last sync before the filesystem is full.
    pub reserve_bytes: u64,
    /// With less free than this the service is read-only.
    pub read_only_below: u64,
    /// What tells how much is free.
    pub free: Arc<dyn FreeSpace>,
    /// Deleted files and spent sessions are reclaimed in the background.
    pub reclaim: bool,
    /// The service has been open before, so that it must hold something: that nothing is left of it is damage.
    pub used: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            clock: Arc::new(SystemClock::new()),
            beat: Beat::default(),
            log_bytes: 128 << 20,
            segment_bytes: 4 << 20,
            backend: Backend::Auto,
            reserve_bytes: 64 << 20,
            read_only_below: 64 << 20,
            free: Arc::new(Filesystem),
            reclaim: true,
            used: false,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("beat", &self.beat)
            .field("log_bytes", &self.log_bytes)
            .finish_non_exhaustive()
    }
}

/// Why a service was not created. What was made of it goes at the next try.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one already.
    #[error("{} exists already", .path.display())]
    Exists {
        /// Its folder.
        path: PathBuf,
    },
    /// The filesystem failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// A file of a fixed size was not made.
    #[error(transparent)]
    File(#[from] device::CreateError),
    /// The log's file cannot be used as a disk.
    #[error(transparent)]
    Disk(#[from] device::OpenError),
    /// The log's file cannot be written.
    #[error("{}: {source}", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// How.
        source: device::IoError,
    },
    /// The log cannot be formatted.
    #[error(transparent)]
    Log(#[from] journal::OpenError),
    /// The rows cannot be made.
    #[error(transparent)]
    Rows(#[from] RowsOpenError),
    /// The system gives no random numbers.
    #[error("no random numbers for an identity: {0}")]
    Random(getrandom::Error),
}

/// Why a service was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none in this data directory.
    #[error("{} does not exist", .path.display())]
    Missing {
        /// Its folder.
        path: PathBuf,
    },
    /// The log's file is not one of ours, or both copies of its header are damaged.
    #[error("{} is not a log of the metadata service, or its header is damaged", .path.display())]
    Header {
        /// The file.
        path: PathBuf,
    },
    /// A later release wrote it.
    #[error("{} has format {version}, and this release reads up to {VERSION}", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The log's file cannot be used as a disk.
    #[error(transparent)]
    Disk(#[from] device::OpenError),
    /// The log's file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// How.
        source: device::IoError,
    },
    /// The rows cannot be opened.
    #[error(transparent)]
    Rows(#[from] RowsOpenError),
    /// The log cannot be opened.
    #[error("{}: {source}", .path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// How.
        source: LogError,
    },
    /// It has been open before, and nothing is left of it.
    #[error("{} has lost all of its entries; restore {} from a backup", .path.join("raft.log").display(), .path.display())]
    Empty {
        /// Its folder.
        path: PathBuf,
    },
    /// Rows and log do not fit each other, or the log cannot be replayed.
    #[error("{}: {source}", .path.display())]
    Partition {
        /// The folder.
        path: PathBuf,
        /// How.
        source: meta_raft::OpenError,
    },
    /// The thread ended before it was ready.
    #[error("the metadata service stopped while it started: {0}")]
    Stopped(Stopped),
    /// The system gives no thread.
    #[error("no thread for the metadata service: {0}")]
    Thread(io::Error),
}

/// The parts of a service's folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

impl Folder {
    /// The folder of the service in a data directory.
    pub(crate) fn of(data: &Path) -> Folder {
        Folder { path: data.join(FOLDER) }
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("raft.log")
    }

    pub(crate) fn rows(&self) -> PathBuf {
        self.path.join("rows")
    }

    pub(crate) fn reserve(&self) -> PathBuf {
        self.path.join("reserve")
    }

    /// Makes the folder of a new service, durably. A crash leaves nothing or all of it.
    pub(crate) fn create(data: &Path, options: &Options) -> Result<(), CreateError> {
        let finished = Folder::of(data);
        if finished.path.exists() {
            return Err(CreateError::Exists { path: finished.path });
        }
        let folder = Folder { path: data.join(UNFINISHED) };
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| CreateError::Io { path, source }
        };
        match fs::remove_dir_all(&folder.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(CreateError::Io { path: folder.path, source });
            }
            _ => fs::create_dir(&folder.path).map_err(io(&folder.path))?,
        }
        let mut uuid = [0; 16];
        getrandom::fill(&mut uuid).map_err(CreateError::Random)?;
        let header = Header { uuid, segment_bytes: options.segment_bytes, log_bytes: options.log_bytes };
        header.format(&folder.log(), options.backend)?;
        LsmRows::create(&folder.rows(), uuid)?;
        create_disk_file(&folder.reserve(), options.reserve_bytes.max(BLOCK))?;
        sync_all(&folder.path).map_err(io(&folder.path))?;
        fs::rename(&folder.path, &finished.path).map_err(io(&finished.path))?;
        File::open(data).and_then(|data| data.sync_all()).map_err(io(data))
    }

    /// Claims the log's file and finds the log in it.
    pub(crate) fn open_log(&self, backend: Backend) -> Result<(Arc<FileDisk>, Shape), OpenError> {
        if !self.path.exists() {
            return Err(OpenError::Missing { path: self.path.clone() });
        }
        let path = self.log();
        let options = OpenOptions { backend, min_bytes: 2 * BLOCK, ..OpenOptions::default() };
        let disk = Arc::new(open_disk(&path, options)?);
        let header = Header::read(&disk, &path)?;
        Ok((disk, header.shape()))
    }

    /// Puts damaged copies of the log's header right, for whoever will write the log.
    pub(crate) fn mend_log(&self, disk: &FileDisk) -> Result<(), OpenError> {
        let path = self.log();
        if Header::read(disk, &path)?.mend(disk).map_err(|source| unread(&path, source))? {
            tracing::warn!(path = %path.display(), "a damaged copy of the log's header was written anew");
        }
        Ok(())
    }
}

/// Makes everything below a folder durable, names and contents.
pub(crate) fn sync_all(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(path)?.sync_all()
}

/// The header of the log's file (docs/FORMATS/raft-log.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    uuid: [u8; 16],
    segment_bytes: u32,
    log_bytes: u64,
}

impl Header {
    fn shape(&self) -> Shape {
        let at = ByteOffset(LOG_AT);
        Shape { at, bytes: self.log_bytes, uuid: self.uuid, segment_bytes: self.segment_bytes }
    }

    fn encode(&self) -> [u8; BLOCK as usize] {
        let mut block = [0; BLOCK as usize];
        block[..8].copy_from_slice(MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[16..32].copy_from_slice(&self.uuid);
        block[32..36].copy_from_slice(&self.segment_bytes.to_le_bytes());
        block[40..48].copy_from_slice(&self.log_bytes.to_le_bytes());
        let crc = crc32c(&block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// `None`: damaged or not ours. `Some(Err(version))`: from a later release.
    fn decode(block: &[u8]) -> Option<Result<Header, u32>> {
        let mut unsealed = block.to_vec();
        unsealed.get_mut(12..16)?.fill(0);
        let word = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
        if block.len() != BLOCK as usize || !block.starts_with(MAGIC) || word(12)? != crc32c(&unsealed) {
            return None;
        }
        let version = word(8)?;
        if version != VERSION {
            return Some(Err(version));
        }
        let reserved = block[36..40].iter().chain(&block[48..]).all(|byte| *byte == 0);
        let header = Header {
            uuid: block[16..32].try_into().ok()?,
            segment_bytes: word(32)?,
            log_bytes: u64::from_le_bytes(block[40..48].try_into().ok()?),
        };
        reserved.then_some(Ok(header))
    }

    /// Makes the log's file with an empty log.
    fn format(&self, path: &Path, backend: Backend) -> Result<(), CreateError> {
        create_disk_file(path, LOG_AT + self.log_bytes + BLOCK)?;
        let disk = open_disk(path, OpenOptions { backend, ..OpenOptions::default() })?;
        let write = |source| CreateError::Write { path: path.to_path_buf(), source };
        Executor::new(0).run(async {
            Log::format(&disk, &self.shape()).await?;
            for at in [0, disk.geometry().bytes - BLOCK] {
                let mut block = IoBuf::zeroed(BLOCK as usize);
                block.copy_from_slice(&self.encode());
                let at = ByteOffset(at);
                disk.write(at, vec![block], Durability::Buffered, IoClass::Log).await.map_err(write)?;
            }
            disk.flush().await.map_err(write)
        })
    }

    /// Reads one of the two copies.
    fn read(disk: &FileDisk, path: &Path) -> Result<Header, OpenError> {
        let mut newer = None;
        for at in Header::places(disk) {
            match Header::decode(&Header::read_at(disk, at).map_err(|source| unread(path, source))?) {
                Some(Ok(header)) => return Ok(header),
                Some(Err(version)) => newer = Some(version),
                None => {}
            }
        }
        let path = path.to_path_buf();
        Err(newer
            .map_or(OpenError::Header { path: path.clone() }, |version| OpenError::Newer { path, version }))
    }

    /// Writes the copies anew that are damaged, durably: a header relies on the other copy.
    fn mend(&self, disk: &FileDisk) -> Result<bool, device::IoError> {
        let mut mended = false;
        for at in Header::places(disk) {
            if Header::decode(&Header::read_at(disk, at)?).is_none() {
                let block = IoBuf::from_bytes(&self.encode());
                Executor::new(0).run(async {
                    disk.write(at, vec![block], Durability::Buffered, IoClass::Log).await?;
                    disk.flush().await
                })?;
                mended = true;
            }
        }
        Ok(mended)
    }

    fn places(disk: &FileDisk) -> [ByteOffset; 2] {
        [ByteOffset(0), ByteOffset(disk.geometry().bytes - BLOCK)]
    }

    fn read_at(disk: &FileDisk, at: ByteOffset) -> Result<IoBuf, device::IoError> {
        let block = IoBuf::zeroed(BLOCK as usize);
        Executor::new(0).run(async { disk.read(at, block, IoClass::Log).await })
    }
}

fn unread(path: &Path, source: device::IoError) -> OpenError {
    OpenError::Read { path: path.to_path_buf(), source }
}

/// How much a new service takes of its filesystem before the first file is made.
impl Options {
    /// Bytes that [`Service::create`](crate::Service::create) reserves.
    pub fn created_bytes(&self) -> ByteSize {
        ByteSize(self.log_bytes + self.reserve_bytes + 2 * BLOCK)
    }
}

#[cfg(test)]
mod tests;
