//! The driver of a store: puts what callers handed over into the journal, with one flush for all that came meanwhile.
//!
//! One task owns the journal's end and the order of changes. There is no timer on the way of a put: a batch takes
//! what came while the last one was written. Callers have submitted their data writes themselves, so these run beside
//! the batch's write; one flush then covers both.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use device::{Durability, IoError};
use journal::{AppendError, Batch, Log, Room};
use planted::Bug;
use tokio::sync::{mpsc, oneshot};
use types::FragmentId;

use crate::checkpointer::{Beat, Checkpointer, checkpoint_is_due};
use crate::error::CloseError;
use crate::freshener::Freshener;
use crate::index::Run;
use crate::record::Record;
use crate::shared::{Op, Shared};
use crate::superblock::{State, Superblock};

/// Idle for so long, the store writes down what is durable.
const IDLE: Duration = Duration::from_millis(10);

/// Runs a store. Without it puts and deletes wait.
pub struct Driver {
    ends: Ends,
    /// `None`: the disk is open for reading only.
    log: Option<Log>,
    superblock: Superblock,
}

/// Whoever ends the driver, by closing, by a failure or by dropping it, ends everyone's wait.
struct Ends {
    shared: Arc<Shared>,
    queue: Option<mpsc::UnboundedReceiver<Op>>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.admission.close();
        // The queue goes first: who is admitted after that finds it gone.
        self.queue = None;
        self.shared.in_flight().clear();
    }
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: mpsc::UnboundedReceiver<Op>,
        log: Option<Log>,
        superblock: Superblock,
    ) -> Driver {
        Driver { ends: Ends { shared, queue: Some(queue) }, log, superblock }
    }

    /// Serves until [`crate::Store::close`] or a failure of the disk; to be spawned, or polled beside the callers.
    ///
    /// Dropping it ends the store as a crash would: what was not acknowledged may or may not be there.
    pub async fn run(mut self) -> Result<(), CloseError> {
        let shared = Arc::clone(&self.ends.shared);
        let Some(queue) = self.ends.queue.as_mut() else { return Err(IoError::Gone.into()) };
        let Some(log) = &self.log else {
            if let Some(Op::Close { answer }) = queue.recv().await {
                // Who closed may have left.
                let _ = answer.send(Ok(()));
            }
            return Ok(());
        };
        let beat = Beat::new(log.end());
        let mut roots = Checkpointer { shared: &shared, log, beat: &beat, superblock: self.superblock };
        let commits = Committer { shared: &shared, log, beat: &beat, stamped: true };
        let fresh = Freshener { shared: &shared, beat: &beat };
        let (closing, (checkpoints, filled)) = both(commits.run(queue), both(roots.run(), fresh.run())).await;
        let mut done = checkpoints.and(filled);
        let closing = match closing {
            Ok(closing) => closing,
            Err(error) => {
                done = Err(error);
                None
            }
        };
        if done.is_ok() && closing.is_some() {
            done = roots.take(State::Closed).await;
        }
        if let Err(error) = &done {
            shared.poison(error);
        }
        if let Some(answer) = closing {
            // Who closed may have left.
            let _ = answer.send(done.clone());
        }
        done.map_err(CloseError::from)
    }
}

/// Runs two futures to their ends.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut of_a, mut of_b) = (None, None);
    poll_fn(|cx| {
        if of_a.is_none()
            && let Poll::Ready(done) = a.as_mut().poll(cx)
        {
            of_a = Some(done);
        }
        if of_b.is_none()
            && let Poll::Ready(done) = b.as_mut().poll(cx)
        {
            of_b = Some(done);
        }
        match (of_a.take(), of_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (of_a, of_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

struct Committer<'a> {
    shared: &'a Arc<Shared>,
    log: &'a Log,
    beat: &'a Beat,
    /// Whether the disk says of everything durable that it is.
    stamped: bool,
}

enum Next {
    Op(Op),
    Idle,
    Ended,
}

/// Ops that share a batch.
struct Gathered {
    ops: Vec<Op>,
    batch: Batch,
    /// What did not fit.
    carried: Option<Op>,
    closing: Option<oneshot::Sender<Result<(), IoError>>>,
}

impl Committer<'_> {
    /// Commits until the store is closed; answers who wants to hear of it.
    async fn run(
        mut self,
        queue: &mut mpsc::UnboundedReceiver<Op>,
    ) -> Result<Option<oneshot::Sender<Result<(), IoError>>>, IoError> {
        let done = self.serve(queue).await;
        if let Err(error) = &done {
            self.shared.poison(error);
        }
        self.beat.stop.store(true, Ordering::Release);
        self.beat.wanted.notify_one();
        self.beat.claimed.notify_one();
        done
    }

    async fn serve(
        &mut self,
        queue: &mut mpsc::UnboundedReceiver<Op>,
    ) -> Result<Option<oneshot::Sender<Result<(), IoError>>>, IoError> {
        self.want_checkpoint();
        let mut carried = None;
        loop {
            let first = match carried.take() {
                Some(op) => op,
                None => match self.next(queue).await {
                    Next::Op(op) => op,
                    Next::Idle => {
                        self.stamp().await?;
                        continue;
                    }
                    Next::Ended => return Ok(None),
                },
            };
            let mut gathered = self.gather(first, queue);
            carried = gathered.carried.take();
            let closing = self.commit(gathered).await?;
            if closing.is_some() {
                return Ok(closing);
            }
        }
    }

    /// Waits for work; if there is something to stamp, not for ever.
    async fn next(&self, queue: &mut mpsc::UnboundedReceiver<Op>) -> Next {
        let mut idle: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        poll_fn(|cx| {
            match queue.poll_recv(cx) {
                Poll::Ready(Some(op)) => return Poll::Ready(Next::Op(op)),
                Poll::Ready(None) => return Poll::Ready(Next::Ended),
                Poll::Pending if self.stamped => return Poll::Pending,
                Poll::Pending => {}
            }
            let idle = idle.get_or_insert_with(|| self.shared.clock.sleep(IDLE));
            idle.as_mut().poll(cx).map(|()| Next::Idle)
        })
        .await
    }

    /// Takes what is waiting, as much as fits a batch.
    fn gather(&self, first: Op, queue: &mut mpsc::UnboundedReceiver<Op>) -> Gathered {
        let mut gathered =
            Gathered { ops: Vec::new(), batch: self.log.batch(), carried: None, closing: None };
        let mut fresh = HashSet::new();
        let mut next = Some(first);
        while let Some(op) = next {
            let op = match op {
                Op::Close { answer } => {
                    gathered.closing = Some(answer);
                    break;
                }
                // It only wakes: a commit looks before it starts.
                Op::Poisoned => break,
                op => op,
            };
            let records = self.records_of(&op, &mut fresh);
            // An empty batch takes any op: deletes are cut to fit, all others have one record.
            let needed: usize = records.iter().map(|(_, body)| body.len().next_multiple_of(8) + 8).sum();
            if gathered.batch.room() + 8 < needed && !gathered.batch.is_empty() {
                gathered.carried = Some(op);
                break;
            }
            for (kind, body) in records {
                gathered.batch.push(kind, 0, &body).expect("an op fits an empty batch");
            }
            gathered.ops.push(op);
            next = queue.try_recv().ok();
        }
        gathered
    }

    fn records_of(&self, op: &Op, fresh: &mut HashSet<FragmentId>) -> Vec<(u16, Vec<u8>)> {
        match op {
            Op::Put { id, entry, .. } => {
                fresh.insert(*id);
                let put = Record::Put { id: *id, entry: *entry };
                self.withheld(id).chain([put.encode()]).collect()
            }
            Op::Delete { ids, .. } => ids
                .iter()
                .filter(|id| fresh.contains(id) || self.shared.index.get(id).is_some())
                .flat_map(|id| self.withheld(id).chain([Record::Delete { id: *id }.encode()]))
                .collect(),
            Op::Group { id, group, .. } if group.epoch > self.shared.epoch_of(*id) => {
                vec![Record::GroupEpoch { group: *id, epoch: group.epoch, state: group.state }.encode()]
            }
            Op::Group { .. } | Op::Close { .. } | Op::Poisoned => Vec::new(),
        }
    }

    /// What the journal says of the blocks of a fragment that leaves, if they are not to be used again.
    fn withheld(&self, id: &FragmentId) -> impl Iterator<Item = (u16, Vec<u8>)> + use<> {
        let run = self.shared.index.get(id).map(|entry| entry.run());
        let bad = run.filter(|run| self.shared.withhold(*run)).map(|run| {
            let Run { block, blocks } = run;
            tracing::warn!(disk = %self.shared.disk, block, blocks, "blocks are bad and not used any more");
            Record::BadBlocks { run }.encode()
        });
        bad.into_iter()
    }

    async fn commit(
        &mut self,
        mut gathered: Gathered,
    ) -> Result<Option<oneshot::Sender<Result<(), IoError>>>, IoError> {
        self.shared.check_not_poisoned()?;
        let early = self.reuse_early(&gathered.ops);
        if !gathered.batch.is_empty() {
            self.wait_for_room().await?;
            let append = self
                .log
                .append(gathered.batch, Durability::Buffered, Room::Ordinary)
                .map_err(|error| self.cannot_append(error))?;
            for op in &mut gathered.ops {
                if let Op::Put { write, .. } = op {
                    write.await?;
                }
            }
            append.written.await?;
            if planted::is(Bug::AckBeforeFlush) {
                for op in gathered.ops.drain(..) {
                    self.apply(op, &early);
                }
            }
            self.shared.dev.flush().await?;
            self.log.flushed(append.end);
            self.stamped = false;
            // Between here and the end nothing waits: a checkpoint sees all of the batch in the index, or nothing.
            self.beat.applied.store(append.end.0, Ordering::Release);
        }
        for op in gathered.ops {
            self.apply(op, &early);
        }
        self.want_checkpoint();
        self.beat.claimed.notify_one();
        Ok(gathered.closing)
    }

    /// Waits until an append is sure to find room. The checkpoint that makes it runs beside this.
    async fn wait_for_room(&self) -> Result<(), IoError> {
        loop {
            let usage = self.log.usage();
            if usage.used < usage.capacity {
                return Ok(());
            }
            self.beat.wanted.notify_one();
            self.beat.freed.notified().await;
            self.shared.check_not_poisoned()?;
            let usage = self.log.usage();
            if usage.used >= usage.capacity {
                self.vouch().await?;
            }
        }
    }

    /// Segments are given back when a durable batch says that they were durable. If the last one cannot say so of
    /// itself, a stamp does.
    async fn vouch(&self) -> Result<(), IoError> {
        let stamp = self.log.append(self.log.batch(), Durability::Buffered, Room::Reserve);
        let stamp = stamp.map_err(|error| self.cannot_append(error))?;
        stamp.written.await?;
        self.shared.dev.flush().await?;
        self.log.flushed(stamp.end);
        // It changes nothing, so a checkpoint has all of it, and the segments before it are not needed.
        self.beat.applied.store(stamp.end.0, Ordering::Release);
        Ok(())
    }

    fn cannot_append(&self, error: AppendError) -> IoError {
        tracing::error!(disk = %self.shared.disk, %error, "the journal refused a batch");
        IoError::Gone
    }

    fn want_checkpoint(&self) {
        if checkpoint_is_due(self.log) {
            self.beat.wanted.notify_one();
        }
    }

    /// Writes down the mark of what is durable, if no batch came that would have carried it.
    async fn stamp(&mut self) -> Result<(), IoError> {
        self.stamped = true;
        let usage = self.log.usage();
        if usage.used < usage.capacity {
            let append = self.log.append(self.log.batch(), Durability::Buffered, Room::Ordinary);
            append.map_err(|error| self.cannot_append(error))?.written.await?;
        }
        Ok(())
    }

    /// A change is durable: from now on the index has it.
    fn apply(&self, op: Op, early: &HashSet<FragmentId>) {
        let shared = self.shared;
        match op {
            Op::Put { id, entry, .. } => {
                shared.left(shared.index.insert(&id, entry));
                let waiting = shared.in_flight().remove(&id).map_or(Vec::new(), |flight| flight.waiting);
                for answer in waiting {
                    // Who asked may have left; the put stands all the same.
                    let _ = answer.send(Ok(()));
                }
            }
            Op::Delete { ids, answer, .. } => {
                for id in ids {
                    let left = shared.index.remove(&id);
                    if !early.contains(&id) {
                        shared.left(left);
                    }
                }
                let _ = answer.send(Ok(()));
            }
            Op::Group { id, group, answer, .. } => {
                // As `admit` does: no put looks at the epoch, waits, and comes after a later one.
                let admission = shared.in_flight();
                if group.epoch > shared.epoch_of(id) {
                    shared.groups().insert(id, group);
                }
                drop(admission);
                let _ = answer.send(Ok(()));
            }
            Op::Close { .. } | Op::Poisoned => {}
        }
    }

    /// The planted bug of a reuse before the delete's flush: the blocks are handed out at once. Without the bug, nothing.
    fn reuse_early(&self, ops: &[Op]) -> HashSet<FragmentId> {
        let mut early = HashSet::new();
        if !planted::is(Bug::ReuseBeforeDeleteFlush) {
            return early;
        }
        let deleted =
            ops.iter().filter_map(|op| if let Op::Delete { ids, .. } = op { Some(ids) } else { None });
        for id in deleted.flatten() {
            if let Some(entry) = self.shared.index.get(id)
                && early.insert(*id)
            {
                self.shared.release(entry.run());
            }
        }
        early
    }
}
