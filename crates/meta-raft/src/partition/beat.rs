//! The beat: rows become durable on their own slow rhythm, and then the log behind them is purged.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::Raft;
use openraft_rt::{AsyncRuntime, Select2, Select3};
use tokio::sync::{Notify, Semaphore, mpsc};

use super::{Counts, Order};
use crate::log::GroupLog;
use crate::machine::{Machine, Progress, StateMachine};
use crate::raft_types::Types;
use crate::record::Position;
use crate::rows::{RowStore, SyncError};
use crate::runtime::Rt;
use crate::stop::Stop;

/// When the rows are made durable: at whichever comes first. A restart replays no more than that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beat {
    /// So many bytes of changes.
    pub bytes: u64,
    /// So many commands.
    pub commands: u64,
    /// So long after the last, if anything changed.
    pub span: Duration,
}

impl Default for Beat {
    fn default() -> Beat {
        Beat { bytes: 16 << 20, commands: 20_000, span: Duration::from_secs(5) }
    }
}

/// How often the beat looks whether it is time.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Beater<R: RowStore, M: StateMachine> {
    pub(super) raft: Raft<Types, Machine<R, M>>,
    pub(super) rows: Arc<R>,
    pub(super) storage: GroupLog,
    pub(super) progress: Arc<Progress>,
    pub(super) counts: Arc<Counts>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) pressed: Arc<Notify>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) beat: Beat,
    pub(super) stop: Stop,
}

impl<R: RowStore, M: StateMachine> Beater<R, M> {
    /// Runs until the partition stops.
    pub(super) async fn run(mut self) {
        let mut elapsed = Duration::ZERO;
        let mut commands = 0;
        loop {
            let look = LOOK.min(self.beat.span);
            let due = match Rt::select3(self.orders.recv(), self.pressed.notified(), Rt::sleep(look)).await {
                Select3::First(Some(Order::Sync(done))) => {
                    self.beat().await;
                    commands = self.progress.commands.load(Ordering::Relaxed);
                    elapsed = Duration::ZERO;
                    // Whoever asked may have gone away.
                    let _ = done.send(());
                    continue;
                }
                Select3::First(Some(Order::Close)) => return self.close().await,
                Select3::First(None) => return,
                Select3::Second(()) => true,
                Select3::Third(()) => {
                    elapsed += look;
                    let changed = self.progress.commands.load(Ordering::Relaxed) - commands;
                    let behind = *self.progress.applied.borrow() != self.synced();
                    (elapsed >= self.beat.span && behind)
                        || changed >= self.beat.commands
                        || self.rows.unsynced_bytes() >= self.beat.bytes
                        || self.log_is_filling()
                }
            };
            if due {
                commands = self.progress.commands.load(Ordering::Relaxed);
                elapsed = Duration::ZERO;
                self.beat().await;
            }
        }
    }

    fn synced(&self) -> Option<Position> {
        self.progress.synced().and_then(|applied| applied.position)
    }

    /// Small commands take a block of the log each, so it can fill before the rows are worth a beat.
    fn log_is_filling(&self) -> bool {
        self.is_filling() && *self.progress.applied.borrow() != self.synced()
    }

    fn is_filling(&self) -> bool {
        let (used, capacity) = *self.storage.shared.space.borrow();
        used > capacity / 4
    }

    /// Makes the rows durable and lets the log be purged that far. A failure stops the partition.
    async fn beat(&mut self) {
        // The log first: rows must never be ahead of it. A single voter's are not; this is what keeps others' so.
        let applied = *self.progress.applied.borrow();
        if self.storage.shared.durable.subscribe().wait_for(|durable| *durable >= applied).await.is_err() {
            return;
        }
        let rows = self.rows.clone();
        let synced = match Rt::spawn_blocking(move || rows.sync()).await {
            Ok(Ok(synced)) => synced,
            Ok(Err(error)) => return self.failed(&error),
            Err(error) => return self.stop.fail(format!("the rows' sync: {error}")),
        };
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        *self.progress.synced.lock().unwrap_or_else(PoisonError::into_inner) = Some(synced);
        if let Err(error) = self.report().await {
            self.stop.fail(format!("Raft stopped: {error}"));
        }
    }

    /// Lets Raft purge the log up to what is synced. While the log fills, what an earlier run had purged and could not
    /// free goes too: Raft itself purges only when the report changes.
    async fn report(&self) -> Result<(), String> {
        self.raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
        if self.is_filling() {
            if let Some(synced) = self.synced() {
                self.raft.trigger().purge_log(synced.index).await.map_err(|error| error.to_string())?;
            }
            self.storage.tidy().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn failed(&self, error: &SyncError) {
        self.stop.fail(error.to_string());
    }

    /// Answers what was called, makes the rows durable, stops.
    async fn close(mut self) {
        // With every slot nothing is in flight. A call that is queued behind this is refused by the end.
        let all = self.slots.clone().acquire_many_owned(super::batcher::IN_FLIGHT as u32);
        let stop = self.stop.clone();
        if let Select2::Second(_) = Rt::select2(all, stop.wait()).await {
            return;
        }
        self.beat().await;
        // Whoever drives the executor drops it now, and Raft with it.
        self.stop.close();
    }
}
