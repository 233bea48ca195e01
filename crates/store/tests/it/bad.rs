//! Blocks that did not give back what was written are not used again.

use crate::bench::{Gated, assert_clean, content, formatted, get, id, open, put, put_of};
use device::{Fault, Keep, SimDisk};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use store::{FragmentStore, OpenOptions, PutError, ReadError, Run, Store};
use types::ByteOffset;

const BLOCK: u64 = 4096;
/// The most runs that are withheld.
const RUNS_MAX: u64 = 256;

fn run_of(store: &Store, counter: u64) -> Run {
    store.entry(&id(counter)).expect("there").run()
}

/// Flips a bit of the fragment's data and lets somebody notice.
async fn rot(disk: &SimDisk, store: &Store, counter: u64) -> Run {
    let run = run_of(store, counter);
    disk.inject(Fault::Rot(ByteOffset((run.block + 1) * BLOCK + 5), 1));
    let found = store.check(id(counter)).await;
    assert!(matches!(found, Err(ReadError::Damaged { block: 1, .. })), "{found:?}");
    run
}

fn overlap(one: Run, other: Run) -> bool {
    one.block < other.block + u64::from(other.blocks) && other.block < one.block + u64::from(one.blocks)
}

/// Fills the disk, looks that no fragment has a block of `bad`, and empties it again.
async fn assert_unused(store: &Store, bad: &[Run]) {
    let mut filled = 1_000_000..;
    let first = filled.start;
    for counter in filled.by_ref() {
        match put(store, counter, &content(counter, 0, 3000)).await {
            Ok(_) => {}
            Err(PutError::NoSpace(_)) => break,
            Err(error) => panic!("{error}"),
        }
        let run = run_of(store, counter);
        assert!(bad.iter().all(|bad| !overlap(*bad, run)), "{run:?} is handed out again");
    }
    assert!(filled.start > first + 20, "the disk was not filled");
    store.delete((first..filled.start).map(id).collect()).await.expect("deleted");
}

#[tokio::test]
async fn the_blocks_of_a_bad_copy_are_withheld_when_it_is_replaced_or_deleted_at_any_cut() {
    for replaced in [true, false] {
        let disk = formatted(4 << 20).await;
        let running = open(&disk).await;
        for n in 1..4 {
            put(&running.store, n, &content(n, 0, 9000)).await.expect("put");
        }
        let free = running.store.free();
        let bad = rot(&disk, &running.store, 2).await;
        assert_eq!(running.store.withheld(), 0, "as long as it is there it may be read");
        disk.record_history();
        let first = disk.operations() + 1;
        if replaced {
            let (again, data) = put_of(id(2), &content(2, 0, 9000));
            running.store.replace(again, data).await.expect("replaced");
            assert_eq!(get(&running.store, 2).await, Ok(content(2, 0, 9000)));
        } else {
            running.store.delete(vec![id(2)]).await.expect("deleted");
        }
        let acknowledged = disk.operations();
        let bytes = u64::from(bad.blocks) * BLOCK;
        assert_eq!(running.store.withheld(), bytes);
        assert_eq!(running.store.free(), if replaced { free - bytes } else { free });
        assert_unused(&running.store, &[bad]).await;
        assert_clean(&running.store).await;
        let mut before = 0;
        for op in first..=acknowledged {
            for (seed, keep) in [(0, Keep::Nothing), (0, Keep::Everything), (1, Keep::Any)] {
                let Some(cut) = disk.cut_at(op, seed, keep) else { continue };
                let after = open(&cut).await;
                // Either nothing has happened, or the blocks are out of use: never free.
                if after.store.withheld() == 0 {
                    before += 1;
                    assert_eq!(after.store.entry(&id(2)).map(|entry| entry.run()), Some(bad), "op {op}");
                } else {
                    assert_unused(&after.store, &[bad]).await;
                }
                after.kill().await;
            }
        }
        assert!(before > 0, "no cut came before the end");
        // By the journal, then by two checkpoints.
        running.kill().await;
        let mut disk = disk;
        for _ in 0..3 {
            disk = disk.after_power_cut(3, Keep::Nothing);
            let again = open(&disk).await;
            assert_eq!(again.store.withheld(), bytes);
            assert_unused(&again.store, &[bad]).await;
            assert_clean(&again.store).await;
            again.close().await;
        }
    }
}

#[tokio::test]
async fn a_reader_that_is_under_way_does_not_free_what_is_withheld() {
    let disk = formatted(4 << 20).await;
    let shut = Arc::new(AtomicBool::new(false));
    let dev = Gated { disk: disk.clone(), shut: Arc::clone(&shut) };
    let clock = Arc::new(clock::SimClock::new(types::Nanos(0)));
    let (store, driver, _) = store::open(Arc::new(dev), clock, OpenOptions::default()).await.expect("open");
    let driver = tokio::spawn(driver.run());
    put(&store, 1, &content(1, 0, 9000)).await.expect("put");
    let bad = rot(&disk, &store, 1).await;
    shut.store(true, Ordering::SeqCst);
    let mut late = store.read(id(1), 0..9000);
    assert!(poll_fn(|cx| Poll::Ready(late.as_mut().poll(cx).is_pending())).await);
    store.delete(vec![id(1)]).await.expect("deleted");
    shut.store(false, Ordering::SeqCst);
    assert!(late.await.is_err(), "it is bad");
    assert_eq!(store.withheld(), u64::from(bad.blocks) * BLOCK);
    assert_unused(&store, &[bad]).await;
    assert_clean(&store).await;
    driver.abort();
}

#[tokio::test]
async fn good_blocks_are_free_again_and_a_disk_is_not_used_up_by_bad_ones() {
    let disk = formatted(8 << 20).await;
    let running = open(&disk).await;
    let free = running.store.free();
    let count = RUNS_MAX + 10;
    for n in 0..count {
        put(&running.store, n, &content(n, 0, 5000)).await.expect("put");
    }
    running.store.delete((0..count).map(id).collect()).await.expect("deleted");
    assert_eq!((running.store.free(), running.store.withheld()), (free, 0));
    for n in 0..count {
        put(&running.store, n, &content(n, 0, 5000)).await.expect("put");
        rot(&disk, &running.store, n).await;
    }
    running.store.delete((0..count).map(id).collect()).await.expect("deleted");
    assert_eq!(running.store.withheld(), RUNS_MAX * 3 * BLOCK);
    assert_eq!(running.store.free(), free - RUNS_MAX * 3 * BLOCK);
    running.close().await;
    let running = open(&disk).await;
    assert_eq!(running.store.free(), free - RUNS_MAX * 3 * BLOCK);
    assert_clean(&running.store).await;
}
