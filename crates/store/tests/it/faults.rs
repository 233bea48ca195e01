//! Disks that fail or lie, full disks, and blocks that are read while they are freed.

use crate::bench::{
    Gated, assert_clean, content, formatted, formatted_with, get, id, open, open_with, put, put_of, small,
};
use device::{Fault, IoError, Keep};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use store::{FormatOptions, FragmentStore, OpenOptions, PutAck, PutError, ReadError};
use types::{BLOCK, ByteOffset, Errno, GroupId};

#[tokio::test]
async fn a_failed_write_or_flush_ends_all_service_and_what_was_acknowledged_stays() {
    for kind in ["fragment", "journal", "flush"] {
        let disk = formatted(4 << 20).await;
        let running = open(&disk).await;
        put(&running.store, 1, &content(1, 0, 5000)).await.expect("put");
        // A put is a write of the fragment, a write of the batch and a flush; a stamp may come before it.
        tokio::task::yield_now().await;
        let next = disk.operations()
            + ["fragment", "journal", "flush"].iter().position(|k| *k == kind).unwrap() as u64;
        disk.inject(Fault::Fail(next + 1, Errno::EIO));
        let failed = put(&running.store, 2, &content(2, 0, 5000)).await;
        assert!(matches!(failed, Err(PutError::Io(_))), "{kind}: {failed:?}");
        assert!(running.driver.await.expect("no panic").is_err(), "{kind}");
        assert!(running.store.is_poisoned());
        assert_eq!(put(&running.store, 3, &content(3, 0, 10)).await, Err(PutError::Io(IoError::Gone)));
        assert_eq!(get(&running.store, 1).await, Err(ReadError::Io(IoError::Gone)));
        assert!(running.store.list(GroupId(1), None, 9).await.is_err());
        assert!(running.store.have(vec![id(1)]).await.is_err());
        assert!(running.store.delete(vec![id(1)]).await.is_err());
        assert!(running.store.close().await.is_err());
        for seed in 0..20 {
            let after = open(&disk.after_power_cut(seed, Keep::Any)).await;
            assert_eq!(get(&after.store, 1).await, Ok(content(1, 0, 5000)), "{kind}");
            let second = get(&after.store, 2).await;
            let right = second == Ok(content(2, 0, 5000)) || second == Err(ReadError::NotFound(id(2)));
            assert!(right, "{kind}: {second:?}");
            assert_clean(&after.store).await;
        }
    }
}

#[tokio::test]
async fn a_failed_read_fails_that_read_only() {
    let disk = formatted(4 << 20).await;
    let running = open(&disk).await;
    put(&running.store, 1, &content(1, 0, 9000)).await.expect("put");
    let entry = running.store.entry(&id(1)).expect("there");
    disk.inject(Fault::Unreadable(ByteOffset((entry.block + 2) * BLOCK)));
    let error = get(&running.store, 1).await;
    assert!(matches!(error, Err(ReadError::Io(IoError::Failed { op: "read", .. }))), "{error:?}");
    assert_eq!(put(&running.store, 2, &content(2, 0, 100)).await, Ok(PutAck::Stored));
    let report = running.store.verify(|_| ()).await.expect("it answers");
    assert_eq!(report.damaged.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(1)]);
}

#[tokio::test]
async fn every_rotten_byte_of_a_fragment_is_noticed_and_named() {
    let disk = formatted(4 << 20).await;
    let running = open(&disk).await;
    for (counter, len) in [(1, 9000), (2, 700)] {
        put(&running.store, counter, &content(counter, 0, len)).await.expect("put");
        let run = running.store.entry(&id(counter)).expect("there").run();
        running.store.header(id(counter)).await.expect("a good header");
        for at in (0..u64::from(run.blocks) * BLOCK).step_by(61) {
            let place = ByteOffset(run.block * BLOCK + at);
            disk.inject(Fault::Rot(place, 0x04));
            // With a cold cache, as after an open.
            let read_only = OpenOptions { read_only: true, ..OpenOptions::default() };
            let cold = open_with(&disk.fork(), read_only).await.expect("open");
            let block = (at / BLOCK) as u32;
            let expected = ReadError::Damaged { id: id(counter), block, at: place.0 / BLOCK * BLOCK };
            if cold.report.undone.is_empty() {
                assert_eq!(get(&cold.store, counter).await, Err(expected.clone()), "byte {at}");
            } else {
                assert_eq!(cold.report.undone, [id(counter)], "the last put was not stamped");
            }
            let report = running.store.verify(|_| ()).await.expect("it answers");
            assert_eq!(report.damaged, [(id(counter), expected)]);
            disk.inject(Fault::Rot(place, 0x04));
        }
        assert_clean(&running.store).await;
    }
}

#[tokio::test]
async fn lost_and_misdirected_writes_show_on_read_and_a_put_repairs() {
    for misdirected in [false, true] {
        let disk = formatted(4 << 20).await;
        let running = open(&disk).await;
        put(&running.store, 1, &content(1, 0, 9000)).await.expect("put");
        let victim = running.store.entry(&id(1)).expect("there").block * BLOCK;
        tokio::task::yield_now().await;
        let op = disk.operations() + 1;
        let fault =
            if misdirected { Fault::MisdirectWrite(op, ByteOffset(victim)) } else { Fault::LoseWrite(op) };
        disk.inject(fault);
        put(&running.store, 2, &content(2, 0, 9000)).await.expect("it is acknowledged");
        let is_damaged = |read: Result<Vec<u8>, ReadError>| matches!(read, Err(ReadError::Damaged { .. }));
        assert!(is_damaged(get(&running.store, 2).await));
        assert_eq!(is_damaged(get(&running.store, 1).await), misdirected);
        running.close().await;
        // After an open no header is cached: what is there is found to be damaged, and is put again.
        let running = open(&disk).await;
        assert_eq!(put(&running.store, 2, &content(2, 0, 9000)).await, Ok(PutAck::Stored));
        if misdirected {
            assert_eq!(put(&running.store, 1, &content(1, 0, 9000)).await, Ok(PutAck::Stored));
        }
        assert_clean(&running.store).await;
        running.kill().await;
        let running = open(&disk).await;
        assert_eq!(get(&running.store, 1).await, Ok(content(1, 0, 9000)));
        assert_eq!(get(&running.store, 2).await, Ok(content(2, 0, 9000)));
        assert_clean(&running.store).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_puts_and_takes_them_again_after_deletes() {
    let disk = formatted(4 << 20).await;
    let running = open(&disk).await;
    let store = &running.store;
    let mut stored = Vec::new();
    for n in 0.. {
        match put(store, n, &content(n, 0, 20_000)).await {
            Ok(_) => stored.push(n),
            Err(error) => {
                assert_eq!(error, PutError::NoSpace(20_000));
                break;
            }
        }
    }
    assert!(stored.len() > 40, "{}", stored.len());
    assert!(store.used() <= store.capacity() * 95 / 100, "5 % are kept free");
    assert!(store.space().free < 24 << 10 && store.space().total < store.capacity());
    for _ in 0..3 {
        let half: Vec<_> = stored.iter().copied().filter(|n| n % 2 == 0).collect();
        store.delete(half.iter().copied().map(id).collect()).await.expect("a full disk deletes");
        for n in half {
            assert_eq!(put(store, n, &content(n, 1, 20_000)).await, Ok(PutAck::Stored));
        }
    }
    assert_clean(store).await;
    running.kill().await;
    let running = open(&disk).await;
    for n in stored {
        let version = if n % 2 == 0 { 1 } else { 0 };
        assert_eq!(get(&running.store, n).await, Ok(content(n, version, 20_000)));
    }
}

#[tokio::test]
async fn an_index_that_would_not_fit_its_checkpoint_refuses_puts() {
    let disk = formatted(16 << 20).await;
    let running = open(&disk).await;
    let mut stored = 0;
    loop {
        match put(&running.store, stored, &content(stored, 0, 8)).await {
            Ok(_) => stored += 1,
            Err(error) => {
                assert_eq!(error, PutError::NoSpace(8));
                break;
            }
        }
    }
    assert!(running.store.free() > 1 << 20, "blocks are left");
    assert!(running.store.space().free < 8192, "and are of no use");
    assert!(stored > 900, "64 KiB hold {stored} entries of 48 bytes");
    running.close().await;
    assert_eq!(open(&disk).await.report.from_checkpoint, stored);
}

#[tokio::test]
async fn blocks_that_are_read_are_not_handed_out_before_the_last_read_is_over() {
    let disk = formatted(4 << 20).await;
    let shut = Arc::new(AtomicBool::new(false));
    let dev = Gated { disk, shut: Arc::clone(&shut) };
    let clock = Arc::new(clock::SimClock::new(types::Nanos(0)));
    let (store, driver, _) = store::open(Arc::new(dev), clock, OpenOptions::default()).await.expect("open");
    let driver = tokio::spawn(driver.run());
    put(&store, 1, &content(1, 0, 9000)).await.expect("put");
    let used = store.used();
    shut.store(true, Ordering::SeqCst);
    let mut reads = [store.read(id(1), 0..9000), store.read(id(1), 0..100)];
    for read in &mut reads {
        assert!(poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await);
    }
    store.delete(vec![id(1)]).await.expect("delete");
    assert_eq!(store.read(id(1), 0..1).await.err(), Some(ReadError::NotFound(id(1))));
    assert_eq!(store.used(), used, "both reads have the blocks");
    let [first, second] = reads;
    drop(second);
    assert_eq!(store.used(), used, "one still has them");
    shut.store(false, Ordering::SeqCst);
    let verified = first.await.expect("what was there when it began");
    assert_eq!(verified.blocks[0][verified.range], content(1, 0, 9000)[..]);
    assert_eq!(store.used(), used - 4 * BLOCK);
    driver.abort();
}

#[tokio::test]
async fn many_checkpoints_and_restarts_keep_everything() {
    let disk = formatted(4 << 20).await;
    let mut checkpoints = 0;
    for round in 0..4_u64 {
        let running = open(&disk).await;
        let before = running.store.superblock().sequence;
        for n in 0..150 {
            let counter = round * 150 + n;
            put(&running.store, counter, &content(counter, 0, 500)).await.expect("put");
            if n >= 10 {
                running.store.delete(vec![id(counter - 10)]).await.expect("delete");
            }
        }
        running.kill().await;
        let running = open(&disk).await;
        checkpoints += running.store.superblock().sequence - before - 1;
        assert_eq!(running.report.fragments, (round + 1) * 10);
        assert!(running.report.replayed < 300, "the journal was cut: {}", running.report.replayed);
        assert_clean(&running.store).await;
        running.close().await;
    }
    assert!(checkpoints > 8, "{checkpoints} checkpoints");
}

#[tokio::test]
async fn the_smallest_journal_never_blocks_for_good() {
    for segments in 4..8 {
        let options = FormatOptions { journal_bytes: Some(segments * (16 << 10)), ..small() };
        let disk = formatted_with(4 << 20, &options).await;
        for round in 0..6_u64 {
            let running = open(&disk).await;
            for n in 0..30 {
                let counter = round * 30 + n;
                put(&running.store, counter, &content(counter, 0, 500)).await.expect("put");
            }
            assert_clean(&running.store).await;
            if round % 2 == 0 { running.kill().await } else { running.close().await }
        }
        assert_eq!(open(&disk).await.report.fragments, 180, "{segments} segments");
    }
}

#[tokio::test]
async fn a_dropped_driver_ends_every_wait() {
    let disk = formatted(4 << 20).await;
    let clock = std::sync::Arc::new(clock::SimClock::new(types::Nanos(0)));
    let opened = store::open(std::sync::Arc::new(disk.clone()), clock, OpenOptions::default()).await;
    let (store, driver, _) = opened.expect("open");
    let (waiting, data) = put_of(id(1), &content(1, 0, 10));
    let mut waiting = store.put(waiting, data);
    let pending = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
    assert!(pending);
    drop(driver);
    assert_eq!(waiting.await, Err(PutError::Io(IoError::Gone)));
    assert!(store.close().await.is_err());
}
