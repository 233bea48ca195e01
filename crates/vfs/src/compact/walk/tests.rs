use std::sync::atomic::Ordering;
use std::time::Duration;

use clock::Clock;
use types::Ino;

use super::{BUSY_WAITS, Compactor, REST, REST_UNHURRIED, WRITTEN_MAX};
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

#[tokio::test]
async fn what_was_written_in_pieces_does_not_wait_for_the_next_walk_over_everything() {
    let bench = Bench::new().await;
    let (ino, handle) = whole(&bench, "file", 4 << 20).await;
    let far = bench.clock.elapsed() + Duration::from_secs(3600);
    let mut compactor = Compactor { all_rests_until: far, ..Compactor::default() };
    // The file was written in whole windows, so there is nothing yet.
    assert_eq!(bench.vfs.compact_step(&mut compactor).await, Ok(Duration::from_secs(3600)));

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
    let (now, until) = (bench.clock.elapsed(), compactor.all_rests_until);
    assert!(now - began > Duration::from_secs(4), "there was nothing to wait for");
    assert_eq!((until - now, compactor.rests_until - now), (REST_UNHURRIED[0], REST[0]));
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
    assert!(compactor.rests_until == REST[1] && compactor.all_rests_until == REST[1]);
}
