//! A mount begins.

use std::path::PathBuf;
use std::sync::Arc;

use arena::{Arena, Owner};
use clock::Clock;
use extents::{Extents, Placement};
use fuse::MountError;
use meta_client::{
    CallError, Exclusive, ExclusiveOptions, MetaService, OpenSessionError, Session, SessionError,
};
use namespace::{Answer, Query, VolumeInfo};
use tokio::runtime::Handle as Runtime;
use types::Errno;
use vfs::{Parts, Vfs};

use crate::heartbeat;
use crate::mount::Mount;

/// What a mount is made of.
pub struct MountOptions {
    /// The mount point.
    pub dir: PathBuf,
    /// The volume's name.
    pub volume: String,
    /// The most bytes of memory that accepted writes may take, at least 2 MiB and whole pages.
    pub arena_bytes: u64,
    /// The metadata service of the volume's partition.
    pub service: Arc<dyn MetaService>,
    /// The placement groups that file data goes to, with their stores.
    pub placement: Arc<dyn Placement>,
    /// This node.
    pub node: u64,
    /// Which start of this node it is: larger than that of every start before.
    pub incarnation: u64,
    /// The time that writes are stamped with.
    pub clock: Arc<dyn Clock>,
    /// Threads that read requests from the kernel; 2 is a good number.
    pub threads: usize,
}

/// Why a volume is not mounted. Nothing is left behind but, after `Close`, a session that the next start of the node
/// closes.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such volume.
    #[error("there is no volume named '{0}'")]
    NoVolume(String),
    /// The metadata service did not answer as it should.
    #[error("the metadata service refused to tell of volume '{volume}': {errno}")]
    Refused {
        /// Which volume.
        volume: String,
        /// What it answered.
        errno: Errno,
    },
    /// The metadata service answered something else than was asked.
    #[error("the metadata service does not speak our protocol")]
    Protocol,
    /// There is no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The session was not opened.
    #[error("the volume '{volume}' cannot be opened")]
    Session {
        /// Which volume.
        volume: String,
        /// Why.
        #[source]
        source: OpenSessionError,
    },
    /// The session ended right after it was opened.
    #[error("the volume '{volume}' cannot be used")]
    Exclusive {
        /// Which volume.
        volume: String,
        /// Why.
        #[source]
        source: SessionError,
    },
    /// There is no memory for accepted writes.
    #[error("the memory for accepted writes cannot be set aside")]
    Arena(#[from] arena::CreateError),
    /// It cannot be mounted there.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The runtime is shutting down.
    #[error("the process is stopping")]
    Stopping,
}

/// Opens the volume and mounts it. When it returns the mount can be used.
///
/// Everything that the mount point decides is checked before a session is opened. Must be called in a tokio runtime;
/// not cancel safe: a dropped future may leave a mount behind that nobody stops.
pub async fn start(options: MountOptions) -> Result<Mount, StartError> {
    let runtime = Runtime::current();
    let asked = options.dir.clone();
    let dir = blocking(move || fuse::check_mount_point(&asked)).await??;
    let volume = find_volume(options.service.as_ref(), &options.volume).await?;
    let opened =
        Session::open(Arc::clone(&options.service), volume.id, options.node, options.incarnation).await;
    let opened = opened.map_err(|source| StartError::Session { volume: options.volume.clone(), source })?;
    let opened = Arc::new(opened);
    let begun = begin(&opened, &options).await;
    let (arena, session) = match begun {
        Ok((arena, session)) => (arena, Arc::new(session)),
        Err(error) => {
            tell_left_open(opened.close().await);
            return Err(error);
        }
    };
    let config = fuse::Config { threads: options.threads, ..fuse::Config::new(&dir, &options.volume) };
    let mounted = async {
        let info = session.info();
        let extents = Arc::new(Extents::new(info.volume, info.session, 1, options.placement));
        let vfs = Arc::new(Vfs::new(Parts {
            session: Arc::clone(&session),
            arena: Arc::clone(&arena),
            extents: Arc::clone(&extents),
            clock: Arc::clone(&options.clock),
        }));
        let served = Arc::clone(&vfs);
        let kernel = blocking(move || fuse::Session::start(served, &config, runtime)).await??;
        Ok((extents, vfs, kernel))
    };
    match mounted.await {
        Ok((extents, vfs, kernel)) => {
            let heartbeat = heartbeat::spawn(Arc::clone(&session), extents, options.clock);
            Ok(Mount::new(kernel, vfs, arena, session, heartbeat))
        }
        Err(error) => {
            tell_left_open(session.close().await);
            Err(error)
        }
    }
}

/// What the mount has run and accepted goes into an arena of its own.
async fn begin(opened: &Arc<Session>, options: &MountOptions) -> Result<(Arc<Arena>, Exclusive), StartError> {
    let info = opened.info();
    let owner = Owner { volume: info.volume, session: info.session, epoch: info.epoch };
    let sizes = arena::Options { capacity: options.arena_bytes, ..arena::Options::default() };
    let arena = Arc::new(Arena::create(owner, sizes)?);
    let (clock, journal) = (Arc::clone(&options.clock), Arc::clone(arena.journal()));
    let session = Exclusive::new(Arc::clone(opened), clock, ExclusiveOptions::default(), journal).await;
    match session {
        Ok(session) => Ok((arena, session)),
        Err(source) => Err(StartError::Exclusive { volume: options.volume.clone(), source }),
    }
}

fn tell_left_open(closed: Result<(), SessionError>) {
    if let Err(error) = closed {
        tracing::warn!(%error, "a session is left open; the next start of this node closes it");
    }
}

async fn find_volume(service: &dyn MetaService, name: &str) -> Result<VolumeInfo, StartError> {
    match service.read(Query::VolumeByName { name: name.as_bytes().to_vec() }).await? {
        Answer::Volume(volume) => Ok(volume),
        Answer::Failed(Errno::ENOENT) => Err(StartError::NoVolume(name.to_string())),
        Answer::Failed(errno) => Err(StartError::Refused { volume: name.to_string(), errno }),
        _ => Err(StartError::Protocol),
    }
}

/// Runs what blocks beside the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StartError::Stopping)
}
