//! The service: one partition on a thread of its own.

use std::any::Any;
use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use clock::{Clock, SystemClock};
use meta_client::{CallError, MetaFuture, MetaService};
use meta_raft::{
    Applied, Executor, JournalLog, LsmRows, Namespace, Partition, RowStore, RowView, Setup, Stopped,
};
use namespace::{Answer, Envelope, Query, Reply, VolumeInfo};
use types::Nanos;

use crate::backup::{self, Backup, Head};
use crate::figures::{Figures, LatencyCounts};
use crate::folder::{CreateError, Folder, OpenError, Options};
use crate::reclaim::{Deleted, reclaim};
use crate::space::{ReadOnly, Watch};

/// The number of the only partition.
pub(crate) const GROUP: u32 = 0;

/// The metadata service over the folder `meta/` of a data directory.
///
/// Dropping it stops it at once, as a crash would: nothing that was answered is lost. [`Service::close`] makes the rows
/// durable first, so that the next start replays nothing.
pub struct Service {
    partition: Partition<LsmRows>,
    rows: Arc<LsmRows>,
    latency: Arc<LatencyCounts>,
    deleted: Deleted,
    read_only: ReadOnly,
    clock: SystemClock,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Service {
    /// Makes a new service in a data directory, durably: after a crash on the way there is none, and the next call begins
    /// anew. Blocks.
    ///
    /// # Errors
    /// If there is one already, or the filesystem fails.
    pub fn create(data: &Path, options: &Options) -> Result<(), CreateError> {
        Folder::create(data, options)
    }

    /// Whether a data directory holds a service. An unfinished one does not count.
    pub fn exists(data: &Path) -> bool {
        Folder::of(data).path.exists()
    }

    /// Whether a restore was cut off between the old metadata and the new ones: there are none now.
    pub fn was_cut_off(data: &Path) -> bool {
        crate::restore::was_cut_off(data)
    }

    /// What is missing of a service that was made in a data directory, if something is. What is there may be damaged.
    pub fn missing(data: &Path) -> Option<PathBuf> {
        let folder = Folder::of(data);
        [folder.path.clone(), folder.log(), folder.rows()].into_iter().find(|part| !part.exists())
    }

    /// Opens the service in a data directory: every command that was ever answered is in its rows on return. Blocks.
    ///
    /// # Errors
    /// If the folder is not there, in use, damaged or from a later release. Damage is never cut away.
    pub fn open(data: &Path, options: Options) -> Result<Service, OpenError> {
        let folder = Folder::of(data);
        let (disk, shape) = folder.open_log(options.backend)?;
        folder.mend_log(&disk)?;
        let rows = Arc::new(LsmRows::open(&folder.rows(), shape.uuid)?);
        let watch = Arc::new(Watch::new(&folder, &options));
        let guard = watch.clone();
        rows.before_sync(Box::new(move || guard.make_room()));
        let (read_only, deleted) = (watch.read_only.clone(), Deleted::default());
        let kept = rows.clone();
        let (opened, ready) = mpsc::channel();
        let thread = std::thread::Builder::new().name("metadata".into());
        let body = {
            let (read_only, deleted) = (read_only.clone(), deleted.clone());
            move || {
                // The group's one log: whoever waits for this thread waits for the log.
                helping::wait_here();
                let mut executor = Executor::new(u64::from_le_bytes(std::array::from_fn(|i| shape.uuid[i])));
                let quiet = rows.clone();
                let running = Mutex::new(None);
                let main = async {
                    let log = JournalLog::open(disk, shape).await;
                    let log = log.map_err(|source| OpenError::Log { path: folder.log(), source });
                    let partition = match log {
                        Ok((_, records))
                            if options.used && records.is_empty() && rows.applied() == Applied::default() =>
                        {
                            // A group that begins anew would free every fragment that the lost rows named.
                            Err(OpenError::Empty { path: folder.path.clone() })
                        }
                        Ok((log, records)) => {
                            let (clock, beat) = (options.clock.clone(), options.beat);
                            let machine = Arc::new(Namespace);
                            let setup = Setup { group: GROUP, rows, machine, log, records, clock, beat };
                            let path = folder.path.clone();
                            meta_raft::open(setup)
                                .await
                                .map_err(|source| OpenError::Partition { path, source })
                        }
                        Err(error) => Err(error),
                    };
                    let partition = match partition {
                        Ok(partition) => partition,
                        Err(error) => {
                            // Whoever opened may have gone away.
                            let _ = opened.send(Err(error));
                            return;
                        }
                    };
                    *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(partition.clone());
                    watch.look(&partition).await;
                    meta_raft::spawn(watch.run(partition.clone()));
                    if options.reclaim {
                        meta_raft::spawn(reclaim(partition.clone(), deleted, read_only));
                    }
                    let _ = opened.send(Ok(partition.clone()));
                    partition.wait_stopped().await;
                };
                // A panic of any task ends here: the partition is stopped with it, so nobody waits for ever.
                let ended = std::panic::catch_unwind(AssertUnwindSafe(|| executor.run(main)));
                if let (Err(panic), Some(partition)) =
                    (ended, &*running.lock().unwrap_or_else(PoisonError::into_inner))
                {
                    partition.fail(&format!("a task panicked: {}", panic_text(&*panic)));
                }
                drop(executor);
                quiet.quiesce();
            }
        };
        let thread = thread.spawn(body).map_err(OpenError::Thread)?;
        let partition = match ready.recv() {
            Ok(Ok(partition)) => partition,
            Ok(Err(error)) => {
                // It has said why; its panic would say no more.
                let _ = thread.join();
                return Err(error);
            }
            Err(mpsc::RecvError) => {
                let reason =
                    thread.join().err().map_or("its thread ended".into(), |panic| panic_text(&*panic));
                return Err(OpenError::Stopped(Stopped { reason: reason.into(), closed: false }));
            }
        };
        Ok(Service {
            partition,
            rows: kept,
            latency: Arc::default(),
            deleted,
            read_only,
            clock: SystemClock::new(),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// All volumes.
    ///
    /// # Errors
    /// If the service has stopped.
    pub fn volumes(&self) -> Result<Vec<VolumeInfo>, CallError> {
        match ask(&self.partition, &Query::Volumes)? {
            Answer::Volumes(volumes) => Ok(volumes),
            other => Err(CallError::Stopped(format!("a query for volumes was answered {other:?}"))),
        }
    }

    /// Whether it answers; it does from the moment it was opened until it stops.
    pub fn is_ready(&self) -> bool {
        self.partition.stopped().is_none()
    }

    /// Figures of this moment.
    pub fn figures(&self) -> Figures {
        Figures {
            partition: self.partition.figures(),
            latency: self.latency.read(),
            read_only: self.read_only.get(),
        }
    }

    /// Resolves when the service has stopped, with the reason: after [`Service::close`], or at the first failure of
    /// its log or its rows, after which nothing is answered any more.
    pub fn stopped(&self) -> impl Future<Output = Stopped> + Send + use<> {
        self.partition.wait_stopped()
    }

    /// Makes all rows durable now, which lets the log be purged. Nobody needs it to be safe.
    ///
    /// # Errors
    /// If the service has stopped.
    pub async fn sync(&self) -> Result<(), CallError> {
        self.partition.sync().await.map_err(stopped)
    }

    /// The rows as they are now, to be written into a backup; `made` is the time now. The tables that hold them stay on
    /// the disk until it is written or dropped, so one at a time is enough.
    ///
    /// # Errors
    /// If the service has stopped, or its rows cannot be read, which stops it.
    pub fn backup(&self, cluster: [u8; 16], made: Nanos) -> Result<Backup, CallError> {
        let frozen = self.rows.freeze(&backup::FIRST, &backup::END);
        if let Some(reason) = self.partition.stopped() {
            return Err(stopped(reason));
        }
        let position = frozen.as_ref().ok().and_then(|rows| rows.applied().position);
        match (frozen, position) {
            (Ok(rows), Some(position)) => Ok(Backup::of_frozen(Head { cluster, position, made }, rows)),
            (Ok(_), None) => Err(CallError::Stopped("its rows do not say how far they are".into())),
            (Err(error), _) => {
                self.partition.fail(&format!("a backup met rows that cannot be read: {error}"));
                Err(CallError::Stopped(error.to_string()))
            }
        }
    }

    /// Answers what was called, makes the rows durable and stops. On return nothing of the folder is in use, and the next
    /// start replays nothing if the reason says closed.
    pub async fn close(&self) -> Stopped {
        let stopped = self.partition.close().await;
        self.join();
        stopped
    }

    /// Waits for the thread, which ends as soon as the partition has stopped.
    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Its panic was told as the reason of the stop.
            let _ = thread.join();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.partition.fail("the service was dropped");
        self.join();
    }
}

impl MetaService for Service {
    fn call(&self, envelope: Envelope) -> MetaFuture<Reply> {
        if let Some(why) = self.read_only.get() {
            return Box::pin(ready(Err(CallError::ReadOnly(why))));
        }
        let began = self.clock.elapsed();
        self.deleted.note(&envelope);
        let bytes = namespace::encode_envelope(&envelope).len();
        let reply = self.partition.call(envelope, bytes);
        let (latency, clock) = (self.latency.clone(), self.clock);
        Box::pin(async move {
            let reply = reply.await.map_err(stopped)?;
            latency.note(clock.elapsed().saturating_sub(began));
            Ok(reply)
        })
    }

    fn read(&self, query: Query) -> MetaFuture<Answer> {
        Box::pin(ready(ask(&self.partition, &query)))
    }
}

fn stopped(stopped: Stopped) -> CallError {
    CallError::Stopped(stopped.to_string())
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into())
}

/// Answers a query from the rows of this moment, on the caller's thread. Rows that cannot be read stop the partition.
pub(crate) fn ask(partition: &Partition<LsmRows>, query: &Query) -> Result<Answer, CallError> {
    loop {
        let view: <LsmRows as RowStore>::View = partition.view();
        let answer = namespace::query(&view, query);
        // The lease is checked after the rows were read: a single voter has it as long as it runs.
        if let Some(reason) = partition.stopped() {
            return Err(stopped(reason));
        }
        match answer {
            Ok(answer) => return Ok(answer),
            // Only a query that several syncs have overtaken meets this.
            Err(_) if view.is_ended() => {}
            Err(error) => partition.fail(&format!("a query met rows that cannot be read: {error}")),
        }
    }
}

#[cfg(test)]
mod tests;
