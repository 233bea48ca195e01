//! One partition: its log, its rows, its Raft, and the ways in.

mod batcher;
mod beat;
mod open;

pub use beat::Beat;
pub(crate) use open::NODE;
pub use open::{OpenError, Setup, entries, open};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use namespace::{Envelope, Reply};
use tokio::sync::{mpsc, oneshot};
use types::Errno;

use crate::log::LogShared;
use crate::machine::Progress;
use crate::record::Position;
use crate::rows::RowStore;
use crate::stop::{Stop, Stopped};

/// Calls that may wait to be taken into an entry.
const CALLS: usize = 4096;

/// One command on its way into the log.
struct Call {
    envelope: Envelope,
    bytes: usize,
    reply: oneshot::Sender<Reply>,
}

/// An answer that will come.
struct Answer {
    /// The call, if the queue was full.
    unsent: Option<(mpsc::Sender<Call>, Call)>,
    answer: oneshot::Receiver<Reply>,
    stop: Stop,
}

impl Answer {
    async fn wait(self) -> Result<Reply, Stopped> {
        if let Some((calls, call)) = self.unsent
            && calls.send(call).await.is_err()
        {
            return Err(self.stop.reason());
        }
        self.answer.await.map_err(|_| self.stop.reason())
    }
}

/// What a partition is asked to do besides calls.
enum Order {
    /// Make the rows durable now.
    Sync(oneshot::Sender<()>),
    /// Finish what was called, make the rows durable, stop.
    Close,
}

/// Counts of a partition; all since it was opened.
#[derive(Default)]
struct Counts {
    entries: AtomicU64,
    syncs: AtomicU64,
}

/// Figures of a partition at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Entries that were proposed since it was opened.
    pub entries: u64,
    /// Commands that were applied since it was opened, replayed ones included.
    pub commands: u64,
    /// Syncs of the rows since it was opened.
    pub syncs: u64,
    /// The last applied entry.
    pub applied: Option<Position>,
    /// The last entry that is in durable rows.
    pub synced: Option<Position>,
    /// The first entry that the log holds, or would hold.
    pub log_first: u64,
    /// How often the log was purged since it was opened.
    pub purges: u64,
    /// Bytes of the log in use.
    pub log_used: u64,
    /// Bytes that the log has.
    pub log_capacity: u64,
    /// Bytes of row changes that are not durable yet, about.
    pub unsynced_bytes: u64,
}

/// A running partition. Clones are the same one. It stops for good at the first failure of its log, its rows or Raft,
/// when its executor is dropped, or when it is closed.
pub struct Partition<R> {
    rows: Arc<R>,
    log: Arc<LogShared>,
    progress: Arc<Progress>,
    counts: Arc<Counts>,
    calls: mpsc::Sender<Call>,
    orders: mpsc::Sender<Order>,
    command_max: usize,
    stop: Stop,
}

impl<R> Clone for Partition<R> {
    fn clone(&self) -> Partition<R> {
        Partition {
            rows: self.rows.clone(),
            log: self.log.clone(),
            progress: self.progress.clone(),
            counts: self.counts.clone(),
            calls: self.calls.clone(),
            orders: self.orders.clone(),
            command_max: self.command_max,
            stop: self.stop.clone(),
        }
    }
}

impl<R: RowStore> Partition<R> {
    /// Logs and applies a command; `bytes` is its size, encoded. Durable when the reply arrives. A command that is too
    /// large for any entry is refused with `E2BIG` and leaves no trace, in its slot neither.
    ///
    /// The command is queued by the call unless the queue is full, so dropping the future does not undo it. After
    /// `Err` it is unknown whether the command was applied.
    pub fn call(
        &self,
        envelope: Envelope,
        bytes: usize,
    ) -> impl Future<Output = Result<Reply, Stopped>> + Send + use<R> {
        let (reply, answer) = oneshot::channel();
        if bytes > self.command_max {
            // Both ends are here, so it cannot fail.
            let _ = reply.send(Reply::Failed(Errno::E2BIG));
            return Answer { unsent: None, answer, stop: self.stop.clone() }.wait();
        }
        let unsent = match self.calls.try_send(Call { envelope, bytes, reply }) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(call) | mpsc::error::TrySendError::Closed(call)) => {
                Some((self.calls.clone(), call))
            }
        };
        Answer { unsent, answer, stop: self.stop.clone() }.wait()
    }

    /// The rows with every command that was answered before.
    pub fn view(&self) -> R::View {
        self.rows.view()
    }

    /// Why it stopped, if it has. An answer that was read from a view counts only if this is `None` afterwards.
    pub fn stopped(&self) -> Option<Stopped> {
        self.stop.stopped()
    }

    /// Stops at once, because `reason`.
    pub fn fail(&self, reason: &str) {
        self.stop.fail(reason);
    }

    /// Resolves when the partition has stopped.
    pub fn wait_stopped(&self) -> impl Future<Output = Stopped> + Send + use<R> {
        let stop = self.stop.clone();
        async move { stop.wait().await }
    }

    /// Makes the rows durable up to what is applied now; the log is purged soon after.
    pub async fn sync(&self) -> Result<(), Stopped> {
        let (done, synced) = oneshot::channel();
        self.orders.send(Order::Sync(done)).await.map_err(|_| self.stop.reason())?;
        synced.await.map_err(|_| self.stop.reason())
    }

    /// Answers what was called, makes the rows durable, and stops. Resolves when it has stopped.
    pub async fn close(&self) -> Stopped {
        // If nobody takes it the partition has stopped already.
        let _ = self.orders.send(Order::Close).await;
        self.stop.wait().await
    }

    /// Figures of this moment.
    pub fn figures(&self) -> Figures {
        let (log_used, log_capacity) = *self.log.space.borrow();
        Figures {
            entries: self.counts.entries.load(Ordering::Relaxed),
            commands: self.progress.commands.load(Ordering::Relaxed),
            syncs: self.counts.syncs.load(Ordering::Relaxed),
            applied: *self.progress.applied.borrow(),
            synced: self.progress.synced().and_then(|applied| applied.position),
            log_first: self.log.contents().first(),
            purges: self.log.purges.load(Ordering::Relaxed),
            log_used,
            log_capacity,
            unsynced_bytes: self.rows.unsynced_bytes(),
        }
    }
}

#[cfg(test)]
mod tests;
