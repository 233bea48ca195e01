use std::sync::atomic::Ordering;
use std::time::Duration;

use clock::Clock;
use types::Ino;

use super::{BUSY_WAITS, Compactor, Last, Need, REST, REST_UNHURRIED, WRITTEN_MAX};
use crate::Handle;
use crate::tests::bench::Bench;

const PAGE: u64 = 4096;

async fn pages(bench: &Bench, ino: Ino, handle: Handle, window: u64, count: u64) {
    for n in 0..count {
        let at = (window << 20) + n * 2 * PAGE;
        bench.write(ino, handle, at, &[n as u8; PAGE as usize]).await.expect("write");
        bench.fsync(ino, handle).await.expect("fsync");
    }
}

async fn whole(bench: &Bench, name: &str, bytes: usize) -> (Ino, Handle) {
    let (ino, handle) = bench.create(name).await;
    bench.write(ino, handle, 0, &vec![1; bytes]).await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
    (ino, handle)
}

/// Steps until a walk has begun and ended, as long as `between` says. Answers how often it paused to let others go first.
async fn one_walk(bench: &Bench, compactor: &mut Compactor, mut between: impl FnMut()) -> u32 {
    let mut pauses = 0;
    loop {
        let pause = bench.vfs.compact_step(compactor).await.expect("a step");
        bench.clock.advance(pause);
        pauses += u32::from(!pause.is_zero());
        if compactor.walk.is_none() {
            return pauses;
        }
        between();
    }
}

/// A compactor that has just looked at everything, for long.
fn rested(bench: &Bench) -> Compactor {
    let last = Last { ended: bench.clock.elapsed(), worked: Duration::from_secs(60), rewritten: 0 };
    Compactor { last: Some(last), ..Compactor::default() }
}

#[tokio::test]
async fn what_was_written_in_pieces_does_not_wait_for_the_next_walk_over_everything() {
    let bench = Bench::new().await;
    let (ino, handle) = whole(&bench, "file", 4 << 20).await;
    let mut compactor = rested(&bench);
    // The file was written in whole windows, so there is nothing yet.
    assert_eq!(bench.vfs.compact_step(&mut compactor).await, Ok(REST[1]));

    pages(&bench, ino, handle, 1, 100).await;
    pages(&bench, ino, handle, 3, 100).await;
    assert_eq!(bench.vfs.compaction.written().len(), 2);
    one_walk(&bench, &mut compactor, || ()).await;
    let figures = bench.vfs.figures().compaction;
    assert_eq!((figures.walks, figures.windows, figures.lost), (0, 2, 0));
    assert!(bench.vfs.compaction.written().is_empty());

    // Then there is a rest before the next one.
    pages(&bench, ino, handle, 2, 100).await;
    let pause = bench.vfs.compact_step(&mut compactor).await.expect("a step");
    assert!(pause > Duration::ZERO && pause <= REST[0], "{pause:?}");
    assert!(compactor.walk.is_none());
}

#[tokio::test]
async fn a_burst_is_noted_when_its_rows_are_there() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    for n in 0..100_u64 {
        bench.write(ino, handle, n * 8192, &[9; PAGE as usize]).await.expect("write");
    }
    // Its answers take a while.
    bench.service.slow.store(true, Ordering::Relaxed);
    bench.vfs.flush_node(&bench.vfs.node(ino)).await.expect("committed");
    assert!(bench.vfs.first_landing().is_some(), "the service has them already");
    assert!(bench.vfs.compaction.written().is_empty());
    bench.vfs.settle().await.expect("durable");
    assert_eq!(bench.vfs.compaction.written().len(), 1);
}

#[tokio::test]
async fn windows_that_begin_with_a_hole_are_not_passed_over() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("sparse").await;
    for window in 0..8_u64 {
        for n in 0..100 {
            let at = (window << 20) + (n * 2 + 1) * PAGE;
            bench.write(ino, handle, at, &[n as u8; PAGE as usize]).await.expect("write");
            bench.fsync(ino, handle).await.expect("fsync");
        }
    }
    let mut compactor = rested(&bench);
    one_walk(&bench, &mut compactor, || ()).await;
    assert_eq!(bench.vfs.figures().compaction.windows, 8);
}

#[tokio::test]
async fn waiting_for_a_quiet_moment_makes_no_rest_longer() {
    let bench = Bench::new().await;
    let (ino, handle) = whole(&bench, "file", 4 << 20).await;
    for window in 0..4 {
        pages(&bench, ino, handle, window, 64).await;
    }
    let mut compactor = Compactor::default();
    let busy = || _ = bench.vfs.flushes.fetch_add(1, Ordering::Relaxed);
    assert_eq!(bench.vfs.compact_step(&mut compactor).await, Ok(Duration::ZERO), "a walk begins");
    let began = bench.clock.elapsed();
    let pauses = one_walk(&bench, &mut compactor, busy).await;
    assert!(pauses > 4 * BUSY_WAITS, "it went first at once");
    assert_eq!(bench.vfs.figures().compaction.windows, 4, "it never came to its turn");
    let now = bench.clock.elapsed();
    assert!(now - began > Duration::from_secs(4), "there was nothing to wait for");
    let last = compactor.last.as_ref().expect("it was over everything");
    let all = [Need::Little, Need::Some].map(|need| last.rests_until(need) - now);
    assert_eq!((all, compactor.rests_until - now), ([REST_UNHURRIED[0], Duration::ZERO], REST[0]));
}

#[tokio::test]
async fn what_is_remembered_is_bounded_and_an_error_rests() {
    let bench = Bench::new().await;
    let starts: Vec<u64> = (0..2 * WRITTEN_MAX as u64).map(|n| n << 20).collect();
    bench.vfs.written_in_pieces(Ino(7), 1 << 20, &starts);
    assert_eq!(bench.vfs.compaction.written().len(), WRITTEN_MAX);
    let small = Bench::new().await;
    small.vfs.written_in_pieces(Ino(7), 128 << 10, &[0]);
    assert!(small.vfs.compaction.written().is_empty(), "it has too few rows");
    let mut compactor = Compactor::default();
    assert_eq!(compactor.rest_long(Duration::ZERO), REST[1]);
    assert!(compactor.walk.is_none() && compactor.paused_until == REST[1]);
}
