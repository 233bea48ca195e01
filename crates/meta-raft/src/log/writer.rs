//! The one task that writes the log, and the queue before it.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::storage::IOFlushed;
use openraft_rt::AsyncRuntime;
use tokio::sync::{mpsc, oneshot, watch};

use super::recover::Contents;
use super::{LogBackend, LogError};
use crate::raft_types::Types;
use crate::record::{Position, Record};
use crate::runtime::Rt;
use crate::stop::Stop;

/// The most bytes of records that are written at once.
const ROUND: usize = 512 * 1024;

/// After so long without records a stamp says that the last ones are durable.
const IDLE: Duration = Duration::from_millis(10);

/// Jobs that may wait for the writer.
pub(crate) const QUEUE: usize = 1024;

/// Who is told that a job is durable.
pub(crate) enum Done {
    /// openraft.
    Flushed(IOFlushed<Types>),
    /// A call that waits.
    Waiter(oneshot::Sender<io::Result<()>>),
    /// Nobody: when it is durable, what came before it may be freed.
    Free,
}

/// Records to be written in one go.
pub(crate) struct Job {
    pub(crate) records: Vec<Record>,
    pub(crate) done: Done,
}

/// What openraft's side and the writer share about one group.
pub(crate) struct LogShared {
    pub(crate) group: u32,
    contents: Mutex<Contents>,
    /// The last entry that is durable.
    pub(crate) durable: watch::Sender<Option<Position>>,
    /// Bytes of the log's space that are in use, and how many there are.
    pub(crate) space: watch::Sender<(u64, u64)>,
    /// How often entries were purged.
    pub(crate) purges: AtomicU64,
}

impl LogShared {
    pub(crate) fn new(group: u32, contents: Contents, used: u64, capacity: u64) -> Arc<LogShared> {
        let durable = watch::Sender::new(contents.last());
        let space = watch::Sender::new((used, capacity));
        Arc::new(LogShared {
            group,
            contents: Mutex::new(contents),
            durable,
            space,
            purges: AtomicU64::new(0),
        })
    }

    pub(crate) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `records` are durable at `lsn`.
    fn written(&self, records: &[Record], lsn: u64) {
        let mut contents = self.contents();
        let mut last = None;
        for record in records {
            match record {
                Record::Entry { position, .. } => {
                    let first = contents.first();
                    let at = position.index.checked_sub(first).map(|at| at as usize);
                    if let Some(logged) = at.and_then(|at| contents.entries.get_mut(at))
                        && logged.entry.log_id == (*position).into()
                    {
                        logged.lsn = lsn;
                        last = Some(*position);
                    }
                }
                Record::Vote(ballot) if contents.vote == Some(*ballot) => contents.vote_lsn = Some(lsn),
                Record::Purge { upto, .. } if contents.purged == Some(*upto) => {
                    contents.purge_lsn = Some(lsn)
                }
                Record::Vote(_) | Record::Purge { .. } | Record::Truncate(_) => {}
            }
        }
        drop(contents);
        if last.is_some() {
            self.durable.send_replace(last);
        }
    }
}

/// Writes what comes until nobody can send any more. A failure ends the partition: nothing is written after it.
pub(crate) async fn write_log<B: LogBackend>(
    mut backend: B,
    shared: Arc<LogShared>,
    mut queue: mpsc::Receiver<Job>,
    stop: Stop,
) {
    let mut stamped = true;
    loop {
        let next = if stamped {
            queue.recv().await
        } else if let Ok(next) = Rt::timeout(IDLE, queue.recv()).await {
            next
        } else {
            stamped = true;
            if let Err(error) = backend.stamp().await {
                stop.fail(error.to_string());
            }
            continue;
        };
        let Some(first) = next else { return };
        let mut jobs = vec![first];
        let mut bytes = 0;
        let mut encoded: Vec<(u16, Vec<u8>)> = Vec::new();
        let mut taken = 0;
        loop {
            for record in &jobs[taken].records {
                let record = record.encode(shared.group);
                bytes += record.1.len();
                encoded.push(record);
            }
            taken += 1;
            if bytes >= ROUND {
                break;
            }
            match queue.try_recv() {
                Ok(job) => jobs.push(job),
                Err(_) => break,
            }
        }
        match write_round(&mut backend, &shared, encoded, &jobs).await {
            Ok(()) => {
                stamped = false;
                for job in jobs {
                    finish(job.done, Ok(()));
                }
            }
            Err(error) => {
                let text = error.to_string();
                stop.fail(text.clone());
                for job in jobs {
                    finish(job.done, Err(io::Error::other(text.clone())));
                }
                queue.close();
                while let Some(job) = queue.recv().await {
                    finish(job.done, Err(io::Error::other(text.clone())));
                }
            }
        }
    }
}

async fn write_round<B: LogBackend>(
    backend: &mut B,
    shared: &LogShared,
    encoded: Vec<(u16, Vec<u8>)>,
    jobs: &[Job],
) -> Result<(), LogError> {
    let lsn = backend.append(encoded).await?;
    for job in jobs {
        shared.written(&job.records, lsn);
    }
    if jobs.iter().any(|job| matches!(job.done, Done::Free)) {
        // The marks that were rewritten are durable, so what they stand for may go. If a later purge is on its way
        // already, its entries are gone from memory but not by any durable mark: that purge's round frees then.
        let needed = {
            let contents = shared.contents();
            let marked = contents.purge_lsn.is_some() || contents.purged.is_none();
            marked.then(|| contents.needed_from().min(lsn))
        };
        if let Some(needed) = needed {
            backend.free_before(needed).await?;
        }
    }
    shared.space.send_replace((backend.used(), backend.capacity()));
    Ok(())
}

fn finish(done: Done, result: io::Result<()>) {
    match done {
        Done::Flushed(callback) => callback.io_completed(result),
        Done::Waiter(waiter) => {
            // The waiter may have been dropped with its task.
            let _ = waiter.send(result);
        }
        Done::Free => {}
    }
}
