//! Full disks, failing disks, a service that stops.

use std::time::Duration;

use meta_client::CallError;
use namespace::{FallocateMode, NewKind};
use types::{Errno, Ino};

use super::bench::{Bench, READ_WRITE, Sizes};
use crate::{Op, Outcome};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_write_that_does_not_fit_says_so_at_once_and_none_fails_late() {
    let bench = Bench::sized(Sizes { limit: 2 * MIB, ..Sizes::default() }).await;
    let (ino, handle) = bench.create("file").await;
    let mut written = 0;
    let refused = loop {
        match bench.write(ino, handle, written, &vec![1; 100_000]).await {
            Ok(bytes) => written += u64::from(bytes),
            Err(errno) => break errno,
        }
    };
    assert_eq!(refused, Errno::ENOSPC);
    assert!((2 * MIB - 200_000..=2 * MIB).contains(&written), "{written}");
    bench.fsync(ino, handle).await.expect("what was accepted fits");
    assert_eq!(bench.write(ino, handle, 0, &vec![2; 500_000]).await, Ok(500_000), "overwriting adds nothing");
    bench.fsync(ino, handle).await.expect("fsync");
    let allocate = |offset, len| Op::Fallocate { ino, handle, mode: FallocateMode::Allocate, offset, len };
    assert_eq!(bench.run(allocate(written, MIB)).await, Err(Errno::ENOSPC));
    assert_eq!(bench.run(allocate(0, 500_000)).await, Ok(Outcome::Done));
    let Ok(Outcome::StatFs(space)) = bench.run(Op::StatFs { ino: Ino::ROOT }).await else { panic!("statfs") };
    assert_eq!(space.blocks, 2 * MIB / 4096);
    assert!(space.free < 100, "{space:?}");
    bench.truncate(ino, 0).await.expect("truncate");
    assert_eq!(bench.write(ino, handle, 0, &vec![3; 1_500_000]).await, Ok(1_500_000), "there is room again");
    bench.fsync(ino, handle).await.expect("fsync");
}

#[tokio::test]
async fn statfs_counts_what_was_only_accepted() {
    let bench = Bench::sized(Sizes { limit: 512 * MIB, ..Sizes::default() }).await;
    let free = async || match bench.run(Op::StatFs { ino: Ino::ROOT }).await {
        Ok(Outcome::StatFs(space)) => space.free,
        other => panic!("{other:?}"),
    };
    let before = free().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 0, &vec![1; 409_600]).await.expect("write");
    assert_eq!(before - free().await, 100);
    bench.fsync(ino, handle).await.expect("fsync");
    assert!(before - free().await >= 100);
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_writes() {
    let bench = Bench::sized(Sizes { disk: 8 * MIB, ..Sizes::default() }).await;
    let (ino, handle) = bench.create("file").await;
    let mut at = 0;
    while bench.write(ino, handle, at, &vec![1; 100_000]).await.is_ok() {
        at += 100_000;
        assert!(at < 8 * MIB);
    }
    assert!(at > 4 * MIB, "{at}");
    bench.fsync(ino, handle).await.expect("what was accepted fits");
}

#[tokio::test]
async fn a_failed_flush_is_told_and_tried_again() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.store.set_broken(true);
    bench.write(ino, handle, 0, &[5; 10_000]).await.expect("it is in the arena");
    assert_eq!(bench.fsync(ino, handle).await, Err(Errno::EIO));
    assert_eq!(bench.run(Op::Flush { ino, handle }).await, Err(Errno::EIO), "close tells too");
    assert_eq!(bench.read(ino, handle, 0, 3).await.expect("read"), [5; 3]);
    assert_eq!(bench.attr(ino).await.size, 10_000);
    bench.release(ino, handle).await;
    bench.forget(ino, 1).await;
    bench.store.set_broken(false);
    bench.clock.advance(Duration::from_secs(60));
    bench.vfs.run_flusher(std::future::ready(())).await;
    assert_eq!((bench.arena.record_count(), bench.nodes()), (0, 0));
    let handle = bench.open(ino).await;
    assert_eq!(bench.read(ino, handle, 9_999, 3).await.expect("read"), [5; 1]);
    assert_eq!(bench.fsync(ino, handle).await, Ok(()), "nothing was lost");
}

#[tokio::test]
async fn a_failed_flush_is_not_tried_at_every_turn() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.store.set_broken(true);
    bench.write(ino, handle, 0, &[5; 10_000]).await.expect("write");
    bench.clock.advance(Duration::from_secs(2));
    for _ in 0..20 {
        bench.vfs.run_flusher(std::future::ready(())).await;
    }
    assert_eq!(bench.vfs.figures().flush_failures, 1);
    bench.clock.advance(Duration::from_secs(2));
    bench.vfs.run_flusher(std::future::ready(())).await;
    assert_eq!(bench.vfs.figures().flush_failures, 2);
}

#[tokio::test]
async fn lost_data_is_told_once_to_each_that_has_the_file_open() {
    let bench = Bench::new().await;
    let (ino, one) = bench.create("file").await;
    let two = bench.open(ino).await;
    bench.write(ino, one, 0, b"doomed").await.expect("write");
    bench.service.refuse(Some(CallError::Stopped("its log is lost".into())));
    bench.clock.advance(Duration::from_secs(2));
    bench.vfs.run_flusher(std::future::ready(())).await;
    assert_eq!(bench.arena.record_count(), 0, "committed, as far as the mount knows");
    assert_eq!(bench.vfs.settle().await, Err(Errno::EIO));
    bench.vfs.run_flusher(std::future::ready(())).await;
    assert_eq!(bench.vfs.figures().lost, 1);
    assert_eq!(bench.arena.late_error(ino).count, 1);
    assert_eq!(bench.run(Op::Flush { ino, handle: two }).await, Err(Errno::EIO));
    assert_eq!(bench.fsync(ino, one).await, Err(Errno::EIO));
    let node = bench.vfs.node(ino);
    assert_eq!(node.state().told.len(), 2, "both");
    assert_eq!(bench.write(ino, one, 0, b"x").await, Err(Errno::EIO));
    assert_eq!(bench.unlink(Ino::ROOT, "file").await, Err(Errno::EIO));
}

#[tokio::test]
async fn a_service_that_is_full_is_enospc_until_it_is_not() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 0, b"data").await.expect("write");
    bench.service.refuse(Some(CallError::ReadOnly("full".into())));
    assert_eq!(bench.fsync(ino, handle).await, Err(Errno::ENOSPC));
    let make = Op::Create {
        parent: Ino::ROOT,
        name: b"x".to_vec(),
        kind: NewKind::Directory,
        mode: 0o700,
        umask: 0,
        open: None,
    };
    assert_eq!(bench.run(make.clone()).await, Err(Errno::ENOSPC));
    bench.service.refuse(None);
    assert_eq!(bench.fsync(ino, handle).await, Ok(()));
    assert!(bench.run(make).await.is_ok());
}

#[tokio::test]
async fn a_write_waits_for_a_full_arena_and_goes_on() {
    let bench = Bench::sized(Sizes { arena: MIB, ..Sizes::default() }).await;
    let (ino, handle) = bench.create("file").await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let vfs = std::sync::Arc::clone(&bench.vfs);
    let flusher = tokio::spawn(async move {
        vfs.run_flusher(async { drop(stopped.await) }).await;
    });
    bench.service.slow.store(true, std::sync::atomic::Ordering::Relaxed);
    for n in 0..100 {
        assert_eq!(bench.write(ino, handle, n * 100_000, &vec![n as u8; 100_000]).await, Ok(100_000));
    }
    drop(stop);
    flusher.await.expect("the flusher");
    for n in 0..100 {
        assert_eq!(bench.read(ino, handle, n * 100_000, 2).await.expect("read"), [n as u8; 2]);
    }
}

#[tokio::test]
async fn a_write_that_waits_for_room_ends_when_its_caller_is_gone() {
    let bench = Bench::sized(Sizes { arena: MIB, ..Sizes::default() }).await;
    let (ino, handle) = bench.create("file").await;
    let mut accepted = 0;
    // Nobody flushes.
    let unique = loop {
        let (ctx, vfs) = (bench.ctx(0), std::sync::Arc::clone(&bench.vfs));
        let op = Op::Write { ino, handle, offset: accepted << 16, data: vec![1; 1 << 16], kill_priv: false };
        let write = tokio::spawn(async move { vfs.handle(op, ctx).await });
        while !write.is_finished() && !bench.vfs.room_waits.has(ctx.unique) {
            tokio::task::yield_now().await;
        }
        bench.vfs.interrupt(ctx.unique + 1); // which does not wait
        if write.is_finished() {
            assert_eq!(write.await.expect("no panic"), Ok(Outcome::Written(1 << 16)));
            accepted += 1;
            continue;
        }
        bench.vfs.interrupt(ctx.unique);
        assert_eq!(write.await.expect("no panic"), Err(Errno::EINTR));
        break ctx.unique;
    };
    assert!(accepted > 0 && bench.arena.find_unique(unique).is_none() && !bench.vfs.room_waits.has(unique));
    assert_eq!(bench.vfs.figures().dirty_bytes, accepted << 16);
    bench.vfs.flush_everything().await.expect("stored");
    assert_eq!(bench.attr(ino).await.size, accepted << 16);
}

#[tokio::test]
async fn a_write_to_a_full_arena_fails_when_nothing_can_be_flushed() {
    let bench = Bench::sized(Sizes { arena: MIB, ..Sizes::default() }).await;
    let (ino, handle) = bench.create("file").await;
    bench.store.set_broken(true);
    let vfs = std::sync::Arc::clone(&bench.vfs);
    let flusher = tokio::spawn(async move { vfs.run_flusher(std::future::pending()).await });
    bench.service.slow.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut written = 0;
    let refused = loop {
        match bench.write(ino, handle, written, &vec![1; 100_000]).await {
            Ok(bytes) => written += u64::from(bytes),
            Err(errno) => break errno,
        }
    };
    flusher.abort();
    assert_eq!(refused, Errno::EIO);
    assert!(written > 0);
    let reopened = bench.open_as(ino, READ_WRITE).await;
    assert_eq!(bench.read(ino, reopened, 0, 1).await.expect("read"), [1], "what was accepted still shows");
}

#[tokio::test]
async fn after_the_end_of_writes_none_is_accepted_and_those_before_are_stored() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 0, &[5; 10_000]).await.expect("it is in the arena");
    bench.vfs.end_writes();
    assert_eq!(bench.write(ino, handle, 10_000, &[6; 100]).await, Err(Errno::EIO));
    bench.vfs.flush_everything().await.expect("stored");
    assert_eq!((bench.vfs.figures().dirty_bytes, bench.attr(ino).await.size), (0, 10_000));
}
