//! Opening a partition: the log and the rows must fit each other, then Raft replays.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use clock::Clock;
use openraft::{Config, EmptyNode, Raft, SnapshotPolicy};
use openraft_rt::{AsyncRuntime, Select2};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::batcher::{Batcher, IN_FLIGHT};
use super::beat::Beater;
use super::{Beat, CALLS, Counts, Partition};
use crate::log::{Contents, GroupLog, LogBackend, LogError, LogShared, QUEUE, Recovered, write_log};
use crate::machine::{Machine, Progress, StateMachine};
use crate::network::Alone;
use crate::raft_types::{Types, payload_of};
use crate::record::{HEAD, Payload, Position};
use crate::rows::RowStore;
use crate::runtime::Rt;
use crate::stop::{Stop, Stopped};

/// The only voter's id.
pub(crate) const NODE: u64 = 1;

/// What a partition is made of.
pub struct Setup<R, M, B> {
    /// Its number; stands in every record of its log.
    pub group: u32,
    /// Its rows, as they are on the disk.
    pub rows: Arc<R>,
    /// What its entries mean.
    pub machine: Arc<M>,
    /// Where its log goes on.
    pub log: B,
    /// What its log holds, in order.
    pub records: Vec<Recovered>,
    /// Where entries get their time from.
    pub clock: Arc<dyn Clock>,
    /// When rows become durable.
    pub beat: Beat,
}

/// Why a partition cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log cannot be understood.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Entries between the rows and the log are missing.
    #[error("the rows end at entry {rows} and the log begins at entry {log}: the entries between are lost")]
    Gap {
        /// The last entry that is in the rows, -1 if there is none.
        rows: i128,
        /// The first that is in the log.
        log: u64,
    },
    /// The rows have entries that the log does not, though they were durable in it first.
    #[error("the rows hold entry {rows} but the log ends at entry {log}: the log has lost its end")]
    RowsAhead {
        /// The last entry that is in the rows.
        rows: u64,
        /// The last that is in the log, -1 if there is none.
        log: i128,
    },
    /// It stopped while it replayed its log.
    #[error("replaying the log failed: {0}")]
    Replay(Stopped),
    /// Raft refused its configuration or its state.
    #[error("Raft cannot start: {0}")]
    Raft(String),
}

fn index(position: Option<Position>) -> i128 {
    position.map_or(-1, |position| i128::from(position.index))
}

/// Whether rows and log fit each other.
pub(crate) fn check_fit(rows: Option<Position>, contents: &Contents) -> Result<(), OpenError> {
    if index(rows) + 1 < i128::from(contents.first()) {
        return Err(OpenError::Gap { rows: index(rows), log: contents.first() });
    }
    if let Some(rows) = rows
        && index(contents.last()) < i128::from(rows.index)
    {
        return Err(OpenError::RowsAhead { rows: rows.index, log: index(contents.last()) });
    }
    Ok(())
}

fn config() -> Config {
    Config {
        cluster_name: "holdfast".into(),
        heartbeat_interval: 100,
        election_timeout_min: 500,
        election_timeout_max: 1000,
        enable_pre_vote: Some(true),
        // Our beat says when; the log then is purged exactly to what is synced.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        replication_lag_threshold: 1_000_000,
        install_snapshot_timeout: 60_000,
        ..Config::default()
    }
}

/// Opens a partition on the executor that calls this, and replays its log: every command that was answered before is
/// in its rows on return.
pub async fn open<R: RowStore, M: StateMachine, B: LogBackend>(
    setup: Setup<R, M, B>,
) -> Result<Partition<R>, OpenError> {
    let Setup { group, rows, machine, mut log, records, clock, beat } = setup;
    let end = records.last().map_or(0, |last| last.lsn);
    let contents = Contents::read(group, records)?;
    let applied = rows.applied();
    let fresh = applied.position.is_none();
    check_fit(applied.position, &contents)?;

    // What was freed is remembered by nobody: it is still there, and found.
    log.free_before(contents.needed_from().min(end)).await?;
    let stop = Stop::new();
    // An entry has a time and a count before its commands.
    let entry_max = log.record_max() - HEAD - 64;
    let log_shared = LogShared::new(group, contents, log.used(), log.capacity());
    let (jobs, job_queue) = mpsc::channel(QUEUE);
    Rt::spawn(write_log(log, log_shared.clone(), job_queue, stop.clone()));

    // What is on the disk is synced: its report licenses the purge of the log up to it.
    let progress = Arc::new(Progress {
        applied: watch::Sender::new(applied.position),
        synced: Mutex::new(Some(applied)),
        commands: 0.into(),
    });
    let adapter = Machine {
        rows: rows.clone(),
        machine: machine.clone(),
        progress: progress.clone(),
        stop: stop.clone(),
    };
    let config = config().validate().map_err(|error| OpenError::Raft(error.to_string()))?;
    let storage = GroupLog { shared: log_shared.clone(), queue: jobs };
    let raft: Raft<Types, Machine<R, M>> = Raft::new(NODE, Arc::new(config), Alone, storage.clone(), adapter)
        .await
        .map_err(|error| OpenError::Raft(error.to_string()))?;
    let ready = async {
        let initialized = raft.is_initialized().await.map_err(|error| error.to_string())?;
        if !initialized {
            let members = BTreeMap::from([(NODE, EmptyNode {})]);
            raft.initialize(members).await.map_err(|error| error.to_string())?;
        }
        // The only voter leads as soon as it has voted for itself.
        let led = raft.wait(None).current_leader(NODE, "the only voter leads").await;
        led.map_err(|error| error.to_string())?;
        raft.wait_for_recovery(None).await.map_err(|error| error.to_string())?;
        Ok::<(), String>(())
    };
    match Rt::select2(ready, stop.wait()).await {
        Select2::First(Ok(())) => {}
        Select2::First(Err(error)) => {
            return Err(stop.stopped().map_or(OpenError::Raft(error), OpenError::Replay));
        }
        Select2::Second(stopped) => return Err(OpenError::Replay(stopped)),
    }

    let (calls, call_queue) = mpsc::channel(CALLS);
    let (orders, order_queue) = mpsc::channel(16);
    let (counts, pressed) = (Arc::new(Counts::default()), Arc::new(Notify::new()));
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let batcher = Batcher {
        raft: raft.clone(),
        machine,
        clock,
        calls: call_queue,
        entry_max,
        space: log_shared.space.subscribe(),
        pressed: pressed.clone(),
        counts: counts.clone(),
        slots: slots.clone(),
        stop: stop.clone(),
    };
    let beater = Beater {
        raft: raft.clone(),
        rows: rows.clone(),
        storage: storage.clone(),
        progress: progress.clone(),
        counts: counts.clone(),
        orders: order_queue,
        pressed,
        slots,
        beat,
        stop: stop.clone(),
    };
    Rt::spawn(batcher.run());
    Rt::spawn(beater.run());
    Rt::spawn(watch_raft(raft, stop.clone()));
    let partition =
        Partition { rows, log: log_shared, progress, counts, calls, orders, command_max: entry_max, stop };
    if fresh {
        // From now on the rows know that there was a log: one that has lost all it held never passes for a new one.
        partition.sync().await.map_err(OpenError::Replay)?;
    }
    Ok(partition)
}

/// Stops the partition when Raft stops, whyever.
async fn watch_raft<R: RowStore, M: StateMachine>(raft: Raft<Types, Machine<R, M>>, stop: Stop) {
    let mut all = raft.metrics();
    loop {
        use openraft_rt::WatchReceiver;
        let running = all.borrow_watched().running_state.clone();
        if let Err(error) = running {
            return stop.fail(format!("Raft stopped: {error}"));
        }
        if all.changed().await.is_err() {
            return stop.fail("Raft stopped");
        }
    }
}

/// The entries that a log holds beyond rows that were applied up to `applied`, in order: what opening would replay.
///
/// # Errors
/// As [`open`]: the log cannot be understood, or it and the rows do not fit each other.
pub fn entries(
    applied: Option<Position>,
    group: u32,
    records: impl IntoIterator<Item = Recovered>,
) -> Result<Vec<(Position, Payload)>, OpenError> {
    let contents = Contents::read(group, records)?;
    check_fit(applied, &contents)?;
    let entries =
        contents.entries.iter().map(|logged| (logged.entry.log_id.into(), payload_of(&logged.entry)));
    Ok(entries
        .filter(|(position, _): &(Position, Payload)| Some(position.index) > applied.map(|at| at.index))
        .collect())
}
