//! Format, open, put, read, list, delete, close.

use crate::bench::{assert_clean, content, formatted, get, get_range, id, open, put, put_of};
use std::collections::BTreeSet;

use device::{OpKind, OpRecord, SimDisk};
use store::{FragmentStore, PutAck, PutError, ReadError, STORED_MAX};
use types::{BLOCK, Epoch, GroupId};

const SIZES: [usize; 8] = [1, 100, 2880, 2881, 4096, 10_000, 1 << 20, STORED_MAX as usize];

#[tokio::test]
async fn what_is_put_is_read_and_stays_over_an_orderly_restart_and_a_kill() {
    let disk = formatted(16 << 20).await;
    let mut running = open(&disk).await;
    assert_eq!((running.report.incarnation, running.report.was_closed), (1, true));
    for (n, len) in SIZES.into_iter().enumerate() {
        assert_eq!(put(&running.store, n as u64, &content(n as u64, 0, len)).await, Ok(PutAck::Stored));
    }
    for round in 0..4 {
        for (n, len) in SIZES.into_iter().enumerate() {
            let (n, whole) = (n as u64, content(n as u64, 0, len));
            assert_eq!(get(&running.store, n).await, Ok(whole.clone()));
            for range in [0..1, len - 1..len, len / 3..len / 2 + 1, len..len, 0..0] {
                let part = get_range(&running.store, n, range.start as u32..range.end as u32).await;
                assert_eq!(part.as_deref(), Ok(&whole[range]));
            }
            let over = get_range(&running.store, n, 0..len as u32 + 1).await;
            assert_eq!(over, Err(ReadError::OutOfRange(id(n))));
        }
        assert_clean(&running.store).await;
        let closed = round % 2 == 0;
        if closed {
            running.close().await
        } else {
            running.kill().await
        }
        running = open(&disk).await;
        assert_eq!(running.report.was_closed, closed);
        assert_eq!(running.report.incarnation, round + 2);
        assert_eq!(running.report.fragments, SIZES.len() as u64);
        assert_eq!(running.report.undone, []);
    }
    running.close().await;
}

#[tokio::test]
async fn lists_haves_and_deletes_agree() {
    let disk = formatted(8 << 20).await;
    let running = open(&disk).await;
    let store = &running.store;
    for n in 0..20 {
        put(store, n, &content(n, 0, 500)).await.expect("put");
    }
    let used = store.used();
    let deleted = (0..30).filter(|n| n % 3 == 0).map(id).collect();
    assert_eq!(store.delete(deleted).await, Ok(()));
    assert_eq!(store.used(), used - 7 * 4096);
    let have = store.have((0..20).map(id).collect()).await.expect("have");
    assert_eq!(have, (0..20).map(|n| n % 3 != 0).collect::<Vec<_>>());
    let list = store.list(GroupId(1), Some(id(4)), 3).await.expect("list");
    assert_eq!(list.iter().map(|info| info.id).collect::<Vec<_>>(), [id(5), id(7), id(8)]);
    assert_eq!((list[0].stored_len, list[0].epoch), (500, Epoch(1)));
    assert_eq!(store.list(GroupId(2), None, 9).await, Ok(vec![]));
    assert_eq!(get(store, 3).await, Err(ReadError::NotFound(id(3))));
    running.kill().await;
    let running = open(&disk).await;
    assert_eq!(running.report.fragments, 13);
    assert_eq!(get(&running.store, 3).await, Err(ReadError::NotFound(id(3))));
    assert_eq!(get(&running.store, 4).await, Ok(content(4, 0, 500)));
    assert_clean(&running.store).await;
}

#[tokio::test]
async fn an_id_has_one_content() {
    let disk = formatted(8 << 20).await;
    let running = open(&disk).await;
    let store = &running.store;
    let bytes = content(1, 0, 9000);
    assert_eq!(put(store, 1, &bytes).await, Ok(PutAck::Stored));
    let used = store.used();
    assert_eq!(put(store, 1, &bytes).await, Ok(PutAck::AlreadyHave));
    assert_eq!(put(store, 1, &content(1, 1, 9000)).await, Err(PutError::Conflict(id(1))));
    assert_eq!(store.used(), used);
    // While one is in flight the same is joined, another refused.
    let (first, data) = put_of(id(2), &bytes);
    let (second, same) = put_of(id(2), &bytes);
    let (third, other) = put_of(id(2), &content(2, 1, 9000));
    let (a, b, c) = tokio::join!(store.put(first, data), store.put(second, same), store.put(third, other));
    assert_eq!((a, b, c), (Ok(PutAck::Stored), Ok(PutAck::AlreadyHave), Err(PutError::Conflict(id(2)))));
    store.delete(vec![id(1)]).await.expect("delete");
    assert_eq!(put(store, 1, &content(1, 1, 100)).await, Ok(PutAck::Stored));
    assert_eq!(get(store, 1).await, Ok(content(1, 1, 100)));
    assert_clean(store).await;
}

#[tokio::test]
async fn damaged_and_stale_puts_are_refused() {
    let disk = formatted(8 << 20).await;
    let running = open(&disk).await;
    let store = &running.store;
    let bytes = content(1, 0, 5000);
    let good = put_of(id(1), &bytes).0;
    let mut cases = vec![(good.clone(), put_of(id(1), &content(1, 1, 5000)).1)];
    cases.push((good.clone(), put_of(id(1), &bytes[..4096]).1));
    for change in 0..4 {
        let mut put = good.clone();
        match change {
            0 => put.stored_len = 0,
            1 => put.stored_len = STORED_MAX + 1,
            2 => put.content_crc ^= 1,
            _ => put.block_crcs.truncate(1),
        }
        cases.push((put, put_of(id(1), &bytes).1));
    }
    // Bytes behind the end that are not zero.
    let mut long = bytes.clone();
    long.push(7);
    cases.push((good.clone(), put_of(id(1), &long).1));
    for (n, (put, data)) in cases.into_iter().enumerate() {
        assert_eq!(store.put(put, data).await, Err(PutError::Damaged(id(1))), "case {n}");
    }
    // More buffers than needed are fine.
    let (put, mut data) = put_of(id(1), &bytes);
    data.push(device::IoBuf::zeroed(8192));
    assert_eq!(store.put(put, data).await, Ok(PutAck::Stored));
    assert_eq!(get(store, 1).await, Ok(bytes));

    store.set_group_epoch(GroupId(1), Epoch(5), 1).await.expect("epoch");
    store.set_group_epoch(GroupId(1), Epoch(4), 1).await.expect("a smaller one changes nothing");
    let (stale, data) = put_of(id(2), &content(2, 0, 10));
    let refused = Err(PutError::StaleEpoch { sent: Epoch(1), current: Epoch(5) });
    assert_eq!(store.put(stale.clone(), data.clone_bytes()).await, refused);
    running.kill().await;
    let running = open(&disk).await;
    assert_eq!(running.store.put(stale.clone(), data.clone_bytes()).await, refused, "it is durable");
    running.close().await;
    let running = open(&disk).await;
    assert_eq!(running.store.put(stale, data).await, refused, "checkpoints hold it");
}

trait CloneBytes {
    fn clone_bytes(&self) -> Self;
}

impl CloneBytes for device::IoVec {
    fn clone_bytes(&self) -> device::IoVec {
        self.iter().map(|buf| device::IoBuf::from_bytes(buf)).collect()
    }
}

#[tokio::test]
async fn concurrent_puts_share_a_flush() {
    let disk = formatted(8 << 20).await;
    let running = open(&disk).await;
    let before = disk.op_log().len();
    let puts: Vec<_> = (0..50)
        .map(|n| {
            let store = running.store.clone();
            tokio::spawn(async move { put(&store, n, &content(n, 0, 100)).await })
        })
        .collect();
    for put in puts {
        assert_eq!(put.await.expect("no panic"), Ok(PutAck::Stored));
    }
    let ops = &disk.op_log()[before..];
    let flushes = ops.iter().filter(|op| op.kind == device::OpKind::Flush).count();
    assert!(flushes <= 3, "{flushes} flushes for 50 puts");
    assert_clean(&running.store).await;
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_disturb_the_others() {
    let disk = formatted(8 << 20).await;
    let running = open(&disk).await;
    let store = running.store.clone();
    let (leaving, data) = put_of(id(1), &content(1, 0, 5000));
    let leaver = store.put(leaving, data);
    let other = content(2, 0, 5000);
    let stayer = put(&store, 2, &other);
    // Polled once, so it is handed over, then dropped.
    {
        let mut leaver = leaver;
        let mut polled = false;
        std::future::poll_fn(|cx| {
            polled = leaver.as_mut().poll(cx).is_pending();
            std::task::Poll::Ready(())
        })
        .await;
        assert!(polled, "it waits for the driver");
    }
    assert_eq!(stayer.await, Ok(PutAck::Stored));
    assert_eq!(put(&store, 1, &content(1, 0, 5000)).await, Ok(PutAck::AlreadyHave));
    assert_clean(&store).await;
}

#[tokio::test]
async fn blocks_of_a_file_are_written_before_small_puts_need_them() {
    const BYTES: u64 = 512 << 20;
    let disk = formatted(BYTES).await.like_a_file();
    let running = open(&disk).await;
    let data = running.store.superblock().layout.data.at;
    let writes = |disk: &SimDisk| -> Vec<OpRecord> {
        let is_of_data =
            |op: &OpRecord| matches!(op.kind, OpKind::Write(_)) && (data..BYTES - (1 << 20)).contains(&op.at);
        disk.op_log().into_iter().filter(is_of_data).collect()
    };
    while writes(&disk).len() < 16 {
        tokio::task::yield_now().await;
    }
    for counter in 0..200 {
        put(&running.store, counter, &content(counter, 0, 5_000)).await.expect("put");
    }
    let (mut filled, mut puts) = (BTreeSet::new(), 0);
    for op in writes(&disk) {
        let mut blocks = op.at / BLOCK..(op.at + op.len) / BLOCK;
        if op.len == 3 * BLOCK {
            assert!(blocks.all(|block| filled.contains(&block)), "{op:?}");
            puts += 1;
        } else {
            assert!(blocks.all(|block| filled.insert(block)), "{op:?} again");
        }
    }
    assert_eq!(puts, 200);
    assert!((4096..5120).contains(&filled.len()), "{} blocks", filled.len());
    for counter in 0..200 {
        assert_eq!(get(&running.store, counter).await, Ok(content(counter, 0, 5_000)));
    }
    assert_clean(&running.store).await;
    running.close().await;
    let running = open(&disk).await;
    assert_eq!(running.report.fragments, 200);
    assert_clean(&running.store).await;
    running.close().await;

    let disk = formatted(BYTES).await;
    let running = open(&disk).await;
    put(&running.store, 1, &content(1, 0, 5_000)).await.expect("put");
    assert_eq!(writes(&disk).len(), 1, "a block device needs none of it");
    running.close().await;
}
