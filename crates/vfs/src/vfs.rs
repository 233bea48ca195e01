//! A mount: its parts, and which function serves which operation.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use arena::Arena;
use clock::Clock;
use extents::Extents;
use meta_client::{Exclusive, SessionError};
use namespace::{Answer, Command, Query, Reply};
use tokio::sync::{Mutex, MutexGuard, Notify};
use types::{Errno, Ino, Nanos, VolumeId};

use crate::ahead::Kept;
use crate::compact::{Compaction, CompactionFigures};
use crate::copy;
use crate::errno;
use crate::flusher::Closed;
use crate::interrupt::RoomWaits;
use crate::landing::Landings;
use crate::op::{Ctx, Op, Outcome};
use crate::quota::Quotas;
use crate::space::Space;
use crate::table::{NodeRef, Table};

/// Names are locked by hash; two that share a lock only wait for each other.
const NAME_LOCKS: usize = 128;

/// What a mount stands on.
pub struct Parts {
    /// Its way to the metadata service.
    pub session: Arc<Exclusive>,
    /// Where its accepted writes are: empty, but for [`Vfs::resume`].
    pub arena: Arc<Arena>,
    /// Its way to file data.
    pub extents: Arc<Extents>,
    /// The time that writes are stamped with. It should be the metadata service's.
    pub clock: Arc<dyn Clock>,
}

/// What a mount has done and holds, for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Inodes that are remembered.
    pub nodes: u64,
    /// Bytes accepted and not flushed yet.
    pub dirty_bytes: u64,
    /// Flushes of one file that succeeded.
    pub flushes: u64,
    /// Flushes of one file that failed; their data waits for the next.
    pub flush_failures: u64,
    /// Files whose accepted data was lost.
    pub lost: u64,
    /// What compaction has done.
    pub compaction: CompactionFigures,
}

/// One mount of a volume that nobody else has.
pub struct Vfs {
    pub(crate) session: Arc<Exclusive>,
    pub(crate) arena: Arc<Arena>,
    pub(crate) extents: Arc<Extents>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) table: Table,
    pub(crate) space: Space,
    /// Commits on their way to the service.
    pub(crate) landings: Landings,
    pub(crate) quotas: Quotas,
    /// A quota may have to be counted.
    pub(crate) counting: Notify,
    pub(crate) compaction: Compaction,
    /// Extents that sequential readers read.
    pub(crate) kept: Kept,
    /// Something in the arena was freed, or a flush failed.
    pub(crate) freed: Arc<Notify>,
    pub(crate) room_waits: RoomWaits,
    /// The flusher has something to do.
    pub(crate) work: Notify,
    /// The flusher looks again within a second by itself.
    pub(crate) looks_soon: AtomicBool,
    /// Inodes whose atime is to be stored.
    pub(crate) touched: std::sync::Mutex<std::collections::BTreeSet<Ino>>,
    /// Inodes that were closed with data to flush.
    pub(crate) closed: std::sync::Mutex<Closed>,
    /// The error of the last round of flushes, if none of them succeeded.
    pub(crate) stuck: std::sync::Mutex<Option<Errno>>,
    /// Why nothing can be changed any more, once that is so.
    pub(crate) broken: OnceLock<Errno>,
    /// Whether no write is accepted any more. Read-locked while one is, so that none is under way once it is set.
    pub(crate) writes_ended: RwLock<bool>,
    pub(crate) flushes: AtomicU64,
    pub(crate) flush_failures: AtomicU64,
    pub(crate) lost: AtomicU64,
    names: [Mutex<()>; NAME_LOCKS],
    serial: AtomicU32,
}

impl Vfs {
    /// A mount over `parts`. Somebody must run [`Vfs::run_flusher`], and should run [`Vfs::run_compactor`].
    pub fn new(parts: Parts) -> Vfs {
        let Parts { session, arena, extents, clock } = parts;
        let freed = Arc::new(Notify::new());
        let tell = Arc::clone(&freed);
        arena.on_freed(move || tell.notify_waiters());
        Vfs {
            session,
            arena,
            extents,
            clock,
            table: Table::new(),
            space: Space::new(),
            landings: Landings::default(),
            quotas: Quotas::new(),
            counting: Notify::new(),
            compaction: Compaction::default(),
            kept: Kept::default(),
            freed,
            room_waits: RoomWaits::default(),
            work: Notify::new(),
            looks_soon: AtomicBool::new(false),
            touched: std::sync::Mutex::default(),
            closed: std::sync::Mutex::default(),
            stuck: std::sync::Mutex::new(None),
            broken: OnceLock::new(),
            writes_ended: RwLock::new(false),
            flushes: AtomicU64::new(0),
            flush_failures: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            names: std::array::from_fn(|_| Mutex::new(())),
            serial: AtomicU32::new(1),
        }
    }

    /// Serves one operation; [`Op`] says which [`Outcome`] answers it.
    ///
    /// What an operation did shows to every later one. It is durable when an `Fsync` or `FsyncDir` returns that came
    /// later, whatever it is of, or a write through a handle that was opened `sync`: what changes names and attributes
    /// becomes durable in its order, and never with a gap; written data of other files may come later. An error means
    /// that nothing changed, but for `EIO` after the session ended: then it is unknown. A future that was polled is to be polled to its end: dropped early, it may have done its
    /// work or not, and references and pins that it counted stay counted.
    pub async fn handle(&self, op: Op, ctx: Ctx) -> Result<Outcome, Errno> {
        match op {
            Op::GetAttr { ino } => self.getattr(ino).await,
            Op::Lookup { parent, name } => self.lookup(parent, &name).await,
            Op::Forget { ino, count } => self.forget(ino, count),
            Op::Read { ino, handle, offset, len } => self.read(ino, handle, offset, len).await,
            Op::Write { ino, handle, offset, data, kill_priv } => {
                self.write(ctx, ino, handle, offset, &data, kill_priv).await
            }
            Op::Flush { ino, handle } => self.close(ino, handle),
            Op::Open { ino, flags } => self.open(ctx, ino, flags).await,
            Op::Release { ino, handle } | Op::ReleaseDir { ino, handle } => self.release(ino, handle).await,
            Op::Fsync { ino, handle, data_only: _ } => self.fsync(ino, handle).await,
            Op::OpenDir { ino } => self.opendir(ino).await,
            Op::ReadDir { ino, handle: _, after, max, plus } => self.readdir(ino, after, max, plus).await,
            Op::FsyncDir { .. } => self.settle().await.map(|()| Outcome::Done),
            // The rarer ones on the heap: the future is as large as its largest branch.
            Op::SetAttr { ino, set, kill_priv } => Box::pin(self.setattr(ctx, ino, set, kill_priv)).await,
            Op::ReadLink { ino } => self.readlink(ino).await,
            Op::Create { parent, name, kind, mode, umask, open } => {
                Box::pin(self.create(ctx, parent, name, kind, mode, umask, open)).await
            }
            Op::Unlink { parent, name } => Box::pin(self.unlink(ctx, parent, name, false)).await,
            Op::Rmdir { parent, name } => Box::pin(self.unlink(ctx, parent, name, true)).await,
            Op::Rename { parent, name, new_parent, new_name, flags } => {
                Box::pin(self.rename(ctx, (parent, name), (new_parent, new_name), flags)).await
            }
            Op::Link { ino, parent, name } => Box::pin(self.link(ino, parent, name)).await,
            Op::StatFs { ino } => self.statfs(ino).await,
            Op::SetXattr { ino, name, value, mode } => self.setxattr(ctx, ino, name, value, mode).await,
            Op::GetXattr { ino, name } => self.getxattr(ino, name).await,
            Op::ListXattr { ino } => self.listxattr(ctx, ino).await,
            Op::RemoveXattr { ino, name } => self.removexattr(ctx, ino, name).await,
            Op::Seek { ino, handle, offset, to } => Box::pin(self.seek(ino, handle, offset, to)).await,
            Op::CopyRange { ino, handle, offset, to, to_handle, to_offset, len } => {
                let from = copy::Place { ino, handle, offset };
                let to = copy::Place { ino: to, handle: to_handle, offset: to_offset };
                Box::pin(self.copy_range(ctx, from, to, len)).await
            }
            Op::Fallocate { ino, handle, mode, offset, len } => {
                Box::pin(self.fallocate(ctx, ino, handle, mode, offset, len)).await
            }
        }
    }

    /// From now on every write is refused with `EIO`: what [`Vfs::flush_everything`] stores after this is all that was
    /// ever accepted. For the end of a mount that is still in use.
    pub fn end_writes(&self) {
        *self.writes_ended.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// What the mount has done and holds.
    pub fn figures(&self) -> Figures {
        Figures {
            nodes: self.table.len() as u64,
            dirty_bytes: self.arena.dirty_bytes(),
            flushes: self.flushes.load(Ordering::Relaxed),
            flush_failures: self.flush_failures.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            compaction: self.compaction.figures(),
        }
    }

    pub(crate) fn volume(&self) -> VolumeId {
        self.session.info().volume
    }

    pub(crate) fn now(&self) -> Nanos {
        self.clock.now()
    }

    pub(crate) fn node(&self, ino: Ino) -> NodeRef<'_> {
        self.table.node(ino)
    }

    pub(crate) fn next_serial(&self) -> u32 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// `EIO` once nothing can be changed any more.
    pub(crate) fn unless_broken(&self) -> Result<(), Errno> {
        self.broken.get().map_or(Ok(()), |errno| Err(*errno))
    }

    /// Sends a command. `Reply::Failed` is an error here.
    pub(crate) async fn call(&self, command: Command) -> Result<Reply, Errno> {
        match self.session.call(command).await {
            Ok(Reply::Failed(errno)) => Err(errno),
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.no_answer(&error)),
        }
    }

    /// As [`Vfs::call`], if `agree` says so of what the command comes to; `None` if not, and then nothing was done.
    pub(crate) async fn call_if(
        &self,
        command: Command,
        agree: &mut (dyn FnMut(&Reply) -> bool + Send),
    ) -> Result<Option<Reply>, Errno> {
        match self.session.call_if(0, command, agree).await {
            Ok(Some(Reply::Failed(errno))) => Err(errno),
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.no_answer(&error)),
        }
    }

    /// Asks the rows. `Answer::Failed` is an error here.
    pub(crate) async fn ask(&self, query: Query) -> Result<Answer, Errno> {
        match self.session.read(query).await {
            Ok(Answer::Failed(errno)) => Err(errno),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.no_answer(&error)),
        }
    }

    /// Takes notice of a session that is over.
    pub(crate) fn no_answer(&self, error: &SessionError) -> Errno {
        let errno = errno::of_session(error);
        if !errno::session_goes_on(error) && self.broken.set(errno).is_ok() {
            tracing::error!(%error, "the mount cannot reach its volume any more; it has to be mounted again");
            self.work.notify_one();
            self.freed.notify_waiters();
        }
        errno
    }

    /// Keeps others from changing what a name stands for.
    pub(crate) async fn lock_name(&self, parent: Ino, name: &[u8]) -> MutexGuard<'_, ()> {
        self.names[name_lock(parent, name)].lock().await
    }

    /// As [`Vfs::lock_name`] for two names, which may share a lock.
    pub(crate) async fn lock_names(
        &self,
        one: (Ino, &[u8]),
        other: (Ino, &[u8]),
    ) -> (MutexGuard<'_, ()>, Option<MutexGuard<'_, ()>>) {
        let (a, b) = (name_lock(one.0, one.1), name_lock(other.0, other.1));
        let first = self.names[a.min(b)].lock().await;
        if a == b {
            return (first, None);
        }
        (first, Some(self.names[a.max(b)].lock().await))
    }
}

fn name_lock(parent: Ino, name: &[u8]) -> usize {
    let mut hasher = DefaultHasher::new();
    (parent, name).hash(&mut hasher);
    hasher.finish() as usize % NAME_LOCKS
}
