use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, SimClock};
use namespace::{Batch, Command, Entry, Envelope, Reply, Rows, RowsError, Write};
use openraft_rt::AsyncRuntime;
use types::{Nanos, VolumeId};

use super::{Beat, OpenError, Partition, Setup, open};
use crate::log::MemoryLog;
use crate::machine::StateMachine;
use crate::runtime::{Executor, Rt};
use crate::sim_rows::SimRows;

/// Puts, by `SetLimit`: the volume's row gets the limit and how often it was put. Limit 0 is a damaged row.
struct Toy;

fn row(volume: u32) -> Vec<u8> {
    [&[1][..], &volume.to_be_bytes()].concat()
}

fn count(rows: &dyn Rows, volume: u32) -> Result<(u64, u64), RowsError> {
    let value = rows.get(&row(volume))?.unwrap_or_else(|| vec![0; 16]);
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| value[at + i]));
    Ok((number(0), number(8)))
}

impl StateMachine for Toy {
    fn encode(&self, entry: &Entry) -> Vec<u8> {
        let mut bytes = Vec::new();
        for envelope in &entry.commands {
            let Command::SetLimit { volume, limit } = envelope.command else { panic!("not a toy") };
            bytes.extend_from_slice(&volume.0.to_le_bytes());
            bytes.extend_from_slice(&limit.to_le_bytes());
        }
        bytes
    }

    fn apply(&self, rows: &dyn Rows, entry: &[u8]) -> Result<(Batch, Vec<Reply>), RowsError> {
        let mut changed = std::collections::BTreeMap::new();
        let mut replies = Vec::new();
        for command in entry.chunks_exact(12) {
            let volume = u32::from_le_bytes(command[..4].try_into().unwrap());
            let limit = u64::from_le_bytes(command[4..].try_into().unwrap());
            if limit == 0 {
                return Err(RowsError("a damaged row".into()));
            }
            let (_, times) = changed.get(&volume).copied().map_or_else(|| count(rows, volume), Ok)?;
            changed.insert(volume, (limit, times + 1));
            replies.push(Reply::Left((times + 1) as u32));
        }
        let batch = changed.into_iter().map(|(volume, (limit, times))| {
            (row(volume), Write::Put([limit.to_le_bytes(), times.to_le_bytes()].concat()))
        });
        Ok((batch.collect(), replies))
    }
}

fn put(volume: u32, limit: u64) -> Envelope {
    Envelope { slot: None, command: Command::SetLimit { volume: VolumeId(volume), limit } }
}

fn lazy() -> Beat {
    Beat { bytes: u64::MAX, commands: u64::MAX, span: Duration::from_secs(1_000_000) }
}

async fn start(log: &MemoryLog, rows: &SimRows, beat: Beat) -> Result<Partition<SimRows>, OpenError> {
    open(Setup {
        group: 0,
        rows: Arc::new(rows.clone()),
        machine: Arc::new(Toy),
        log: log.clone(),
        records: log.records(),
        clock: Arc::new(SimClock::new(Nanos(1))),
        beat,
    })
    .await
}

fn simulate<T>(seed: u64, main: impl Future<Output = T>) -> T {
    Executor::simulated(seed, SimClock::new(Nanos(0))).run(main)
}

#[test]
fn a_restart_replays_exactly_what_was_answered() {
    let (log, rows) = (MemoryLog::default(), SimRows::new());
    simulate(1, async {
        let partition = start(&log, &rows, lazy()).await.unwrap();
        for limit in 1..=50 {
            let reply = partition.call(put(limit % 5, u64::from(limit)), 12).await.unwrap();
            assert_eq!(reply, Reply::Left(limit.div_ceil(5)));
        }
    });
    let (rows, lost) = rows.crash();
    assert!(lost > 5, "nothing was synced, so all rows are gone");
    simulate(2, async {
        let partition = start(&log, &rows, lazy()).await.unwrap();
        for volume in 0..5 {
            let last = if volume == 0 { 50 } else { 45 + u64::from(volume) };
            assert_eq!(count(&partition.view(), volume), Ok((last, 10)));
        }
        assert_eq!(partition.call(put(0, 51), 12).await, Ok(Reply::Left(11)));
    });
}

#[test]
fn many_callers_share_entries() {
    let (log, rows) = (MemoryLog::default(), SimRows::new());
    simulate(3, async {
        let partition = start(&log, &rows, lazy()).await.unwrap();
        let calls: Vec<_> = (0..1000).map(|n| partition.call(put(n, 1), 12)).collect();
        for call in calls {
            assert_eq!(call.await, Ok(Reply::Left(1)));
        }
        let figures = partition.figures();
        assert_eq!(figures.commands, 1000);
        assert!((2..=6).contains(&figures.entries), "{figures:?}");
    });
}

#[test]
fn the_beat_syncs_and_the_purge_follows_to_the_synced_entry() {
    let (log, rows) = (MemoryLog::default(), SimRows::new());
    simulate(4, async {
        let beat = Beat { commands: 10, ..lazy() };
        let partition = start(&log, &rows, beat).await.unwrap();
        for limit in 1..=100 {
            partition.call(put(1, limit), 12).await.unwrap();
            Rt::sleep(Duration::from_millis(30)).await;
        }
        Rt::sleep(Duration::from_secs(1)).await;
        let figures = partition.figures();
        assert!(figures.syncs >= 5, "{figures:?}");
        let synced = figures.synced.unwrap();
        assert_eq!(figures.log_first, synced.index + 1, "{figures:?}");
        assert!(log.records().len() < 50);
    });
    let (rows, _) = rows.crash();
    simulate(5, async {
        let partition = start(&log, &rows, lazy()).await.unwrap();
        assert_eq!(count(&partition.view(), 1), Ok((100, 100)));
    });
}

#[test]
fn closing_makes_rows_durable_and_ends_every_later_call() {
    let (log, rows) = (MemoryLog::default(), SimRows::new());
    simulate(6, async {
        let partition = start(&log, &rows, lazy()).await.unwrap();
        partition.call(put(1, 7), 12).await.unwrap();
        let stopped = partition.close().await;
        assert!(stopped.closed, "{stopped}");
    });
    let (rows, lost) = rows.crash();
    assert_eq!(lost, 0);
    assert_eq!(count(&crate::rows::RowStore::view(&rows), 1), Ok((7, 1)));
}

#[test]
fn a_row_that_cannot_be_read_stops_the_partition_and_no_caller_hangs() {
    let (log, rows) = (MemoryLog::default(), SimRows::new());
    let mut executor = Executor::simulated(7, SimClock::new(Nanos(0)));
    let (partition, stopped, late) = executor.run(async {
        let partition = start(&log, &rows, lazy()).await.unwrap();
        let calls: Vec<_> = (0..20).map(|n| partition.call(put(n, u64::from(n != 10)), 12)).collect();
        let stopped = partition.wait_stopped().await;
        let late = (partition.call(put(1, 1), 12), calls);
        (partition, stopped, late)
    });
    assert!(stopped.reason.contains("a damaged row"), "{stopped}");
    assert!(!stopped.closed);
    drop(executor);
    simulate(8, async {
        assert_eq!(late.0.await.unwrap_err(), stopped);
        for call in late.1 {
            assert!(call.await.is_ok_and(|_| true) || partition.stopped().is_some());
        }
    });
}

#[test]
fn a_failed_sync_stops_the_partition() {
    let (log, rows) = (MemoryLog::default(), SimRows::new());
    simulate(9, async {
        let partition = start(&log, &rows, lazy()).await.unwrap();
        partition.call(put(1, 1), 12).await.unwrap();
        rows.fail_sync(0);
        let _ = partition.sync().await;
        let stopped = partition.wait_stopped().await;
        assert!(stopped.reason.contains("simulated machine is off"), "{stopped}");
    });
}

#[test]
fn rows_and_log_that_do_not_fit_are_refused() {
    let (log, rows) = (MemoryLog::default(), SimRows::new());
    simulate(10, async {
        let partition = start(&log, &rows, lazy()).await.unwrap();
        for limit in 1..=20 {
            partition.call(put(1, limit), 12).await.unwrap();
        }
        partition.sync().await.unwrap();
        Rt::sleep(Duration::from_secs(1)).await;
        partition.call(put(1, 21), 12).await.unwrap();
    });
    simulate(11, async {
        assert!(matches!(start(&log, &SimRows::new(), lazy()).await, Err(OpenError::Gap { rows: -1, .. })));
    });
    simulate(12, async {
        assert!(matches!(
            start(&MemoryLog::default(), &rows, lazy()).await,
            Err(OpenError::RowsAhead { .. })
        ));
    });
}

/// What a run with many callers over the real adapter leaves behind.
fn trace(seed: u64) -> (Vec<crate::log::Recovered>, Vec<Reply>, Duration) {
    let (log, rows, clock) = (MemoryLog::default(), SimRows::new(), SimClock::new(Nanos(0)));
    let mut executor = Executor::simulated(seed, clock.clone());
    let replies = executor.run(async {
        let partition = start(&log, &rows, Beat { commands: 20, ..lazy() }).await.unwrap();
        let mut tasks = Vec::new();
        for task in 0..4 {
            let partition = partition.clone();
            tasks.push(Rt::spawn(async move {
                let mut replies = Vec::new();
                for n in 1..=25 {
                    replies.push(partition.call(put(n % 3, u64::from(task * 100 + n)), 12).await.unwrap());
                    Rt::sleep(Duration::from_millis(u64::from(n % 4))).await;
                }
                replies
            }));
        }
        let mut replies = Vec::new();
        for task in tasks {
            replies.extend(task.await.unwrap());
        }
        replies
    });
    (log.records(), replies, clock.elapsed())
}

#[test]
fn one_seed_gives_one_trace_of_the_whole_adapter() {
    let first = trace(42);
    for _ in 0..3 {
        assert!(trace(42) == first, "the same seed must give the same log, replies and time");
    }
    assert!((1..5).any(|seed| trace(seed).1 != first.1), "another seed gives another order");
}
