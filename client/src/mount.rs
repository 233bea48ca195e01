//! A mount, from outside.

use std::path::Path;
use std::sync::Arc;

use arena::Arena;
use fuse::{Ended, Holder, UnmountError};
use meta_client::{Exclusive, SessionError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use types::{Errno, Ino};
use vfs::Vfs;

use crate::figures::Figures;

/// A mounted volume.
///
/// Dropping it leaves the mount served as long as the process lives; [`Mount::stop`] ends it without loss.
pub struct Mount {
    kernel: Arc<fuse::Session>,
    vfs: Arc<Vfs>,
    arena: Arc<Arena>,
    session: Arc<Exclusive>,
    heartbeat: JoinHandle<()>,
    flusher: JoinHandle<()>,
    counting: JoinHandle<()>,
    stop_flusher: oneshot::Sender<()>,
    compactor: JoinHandle<()>,
    stop_compactor: oneshot::Sender<()>,
}

/// Why not everything that a mount has accepted is at the metadata service.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// Accepted data could not be written; it waits for the next try.
    #[error("written data could not be stored")]
    Flush(#[from] vfs::FlushAllError),
    /// Changes of names and attributes could not be sent.
    #[error("changes could not be sent to the metadata service")]
    Send(#[from] SessionError),
}

/// Why a mount did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Accepted data could not be written; it is lost with the process.
    #[error("written data could not be stored")]
    Flush(#[from] vfs::FlushAllError),
    /// The session was not closed. The next start of the node closes it.
    #[error("the session could not be closed")]
    Close(#[from] SessionError),
}

impl Mount {
    pub(crate) fn new(
        kernel: fuse::Session,
        vfs: Arc<Vfs>,
        arena: Arc<Arena>,
        session: Arc<Exclusive>,
        heartbeat: JoinHandle<()>,
    ) -> Mount {
        let (flushed, compacted) = (Arc::clone(&vfs), Arc::clone(&vfs));
        let (stop_flusher, stop) = stop_channel();
        let flusher = tokio::spawn(async move { flushed.run_flusher(stop).await });
        let counted = Arc::clone(&vfs);
        let counting = tokio::spawn(async move { counted.run_counting().await });
        let (stop_compactor, stop) = stop_channel();
        let compactor = tokio::spawn(async move { compacted.run_compactor(stop).await });
        let kernel = Arc::new(kernel);
        Mount {
            kernel,
            vfs,
            arena,
            session,
            heartbeat,
            flusher,
            counting,
            stop_flusher,
            compactor,
            stop_compactor,
        }
    }

    /// The mount point as the mount table shows it.
    pub fn dir(&self) -> &Path {
        self.kernel.dir()
    }

    /// Resolves when no more requests come, whoever unmounted. Dropping it has no effect.
    pub async fn ended(&self) -> Ended {
        self.kernel.ended().await
    }

    /// Unmounts, unless it is in use: then the error names by whom. A mount that is gone already is not an error.
    /// Dropping the future leaves it to be done.
    pub async fn unmount(&self) -> Result<(), UnmountError> {
        let kernel = Arc::clone(&self.kernel);
        beside(move || kernel.unmount()).await
    }

    /// Takes the mount out of the tree although it is in use; what is open stays usable until [`Mount::stop`].
    pub async fn detach(&self) -> Result<(), UnmountError> {
        let kernel = Arc::clone(&self.kernel);
        beside(move || kernel.detach()).await
    }

    /// Who uses the mount, as far as can be seen.
    pub async fn holders(&self) -> Vec<Holder> {
        let kernel = Arc::clone(&self.kernel);
        beside(move || kernel.holders()).await
    }

    /// Sets limits of a directory, or of the volume if it is the root. `None` leaves one as it is, `u64::MAX` is none.
    ///
    /// Durable on return. What a directory held before is counted in the background; `EBUSY` while another one's is.
    /// `ENOTDIR`; `ESTALE` if it is gone.
    pub async fn set_quota(&self, dir: Ino, bytes: Option<u64>, inodes: Option<u64>) -> Result<(), Errno> {
        self.vfs.set_quota(dir, bytes, inodes).await
    }

    /// Takes the limits of a directory, or of the volume, away; as [`Mount::set_quota`], and `ENODATA` if there are none.
    pub async fn remove_quota(&self, dir: Ino) -> Result<(), Errno> {
        self.vfs.remove_quota(dir).await
    }

    /// What the mount has done and holds.
    pub fn figures(&self) -> Figures {
        let kernel = self.kernel.figures();
        Figures {
            operations: kernel.snapshot(),
            running: kernel.running(),
            files: self.vfs.figures(),
            pending: self.session.pending() as u64,
            arena_used: self.arena.used(),
            arena_capacity: self.arena.capacity(),
        }
    }

    /// Writes what has been accepted until now; what comes meanwhile may wait for its turn. The metadata service has all
    /// of it when this returns `Ok`.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let flushed = self.vfs.flush_accepted().await;
        // Names and attributes are held back too, and data that failed keeps nobody from sending those.
        self.session.sync().await?;
        Ok(flushed?)
    }

    /// Writes all that was accepted, and closes the session. To be called when the mount has ended or is detached;
    /// what is still open fails from then on.
    ///
    /// Everything done and written to the mount is durable when it returns `Ok`. Not cancel safe.
    pub async fn stop(self) -> Result<(), StopError> {
        // Between two steps, or within one whose fate the rows know: the next start goes on.
        self.counting.abort();
        // It is gone already if it panicked, which the flush below makes good for what it left.
        let _ = self.stop_flusher.send(());
        if let Err(error) = self.flusher.await {
            tracing::error!(%error, "the flusher ended badly");
        }
        let _ = self.stop_compactor.send(());
        if let Err(error) = self.compactor.await {
            tracing::error!(%error, "compaction ended badly");
        }
        // Without this a write that comes between the flush and the end of the process would be acknowledged and lost.
        self.vfs.end_writes();
        let flushed = self.vfs.flush_everything().await;
        self.heartbeat.abort();
        let closed = self.session.close().await;
        flushed?;
        Ok(closed?)
    }
}

/// What stops a loop. A sender that is dropped unused does not: a mount that is dropped goes on being served.
fn stop_channel() -> (oneshot::Sender<()>, impl Future<Output = ()> + Send) {
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        if stopped.await.is_err() {
            std::future::pending().await
        }
    };
    (stop, stopped)
}

/// Runs what blocks beside the runtime's own threads: unmounting may need them to write mapped pages.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only at the runtime's own end, when nobody can wait for this any more.
        Err(_) => std::future::pending().await,
    }
}
