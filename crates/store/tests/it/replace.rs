//! A bad copy gives way to a good one, and a group's epoch shuts earlier writers out.

use crate::bench::{assert_clean, content, formatted, get, id, open, put, put_of};
use device::{Fault, Keep, SimDisk};
use store::{FragmentStore, PutError, ReadError};
use types::{ByteOffset, Epoch, GroupId};

const BLOCK: u64 = 4096;

async fn rot(disk: &SimDisk, running: &crate::bench::Running, counter: u64) {
    let at = running.store.entry(&id(counter)).expect("there").block * BLOCK + BLOCK + 5;
    disk.inject(Fault::Rot(ByteOffset(at), 1));
    assert!(matches!(get(&running.store, counter).await, Err(ReadError::Damaged { .. })));
}

#[tokio::test]
async fn a_bad_copy_is_replaced_and_no_power_cut_leaves_another_content() {
    let disk = formatted(4 << 20).await;
    let running = open(&disk).await;
    let bytes = content(1, 0, 9000);
    put(&running.store, 1, &bytes).await.expect("put");
    put(&running.store, 2, &content(2, 0, 500)).await.expect("put");
    running.close().await;
    let running = open(&disk).await;
    rot(&disk, &running, 1).await;
    let old = running.store.entry(&id(1)).expect("there");
    disk.record_history();
    let first = disk.operations() + 1;
    let (again, data) = put_of(id(1), &bytes);
    assert_eq!(running.store.replace(again, data).await, Ok(()));
    let acknowledged = disk.operations();
    assert_ne!(running.store.entry(&id(1)).map(|entry| entry.block), Some(old.block), "elsewhere");
    assert_eq!(get(&running.store, 1).await, Ok(bytes.clone()));
    assert_clean(&running.store).await;
    let mut cuts = 0;
    for op in first..=acknowledged {
        for (seed, keep) in [(0, Keep::Nothing), (0, Keep::Everything), (1, Keep::Any), (2, Keep::Any)] {
            let Some(cut) = disk.cut_at(op, seed, keep) else { continue };
            cuts += 1;
            let after = open(&cut).await;
            match get(&after.store, 1).await {
                Ok(found) => assert_eq!(found, bytes, "op {op} seed {seed} {keep:?}"),
                // Not yet: still the bad one, or none if the new one was cut off and the old one is not whole.
                Err(ReadError::Damaged { .. } | ReadError::NotFound(_)) => {}
                Err(error) => panic!("op {op}: {error}"),
            }
            assert_eq!(get(&after.store, 2).await, Ok(content(2, 0, 500)), "nothing else is touched");
            after.kill().await;
        }
    }
    assert!(cuts >= 12, "only {cuts} cuts");
    let cut = disk.after_power_cut(7, Keep::Nothing);
    let after = open(&cut).await;
    assert_eq!(get(&after.store, 1).await, Ok(bytes), "acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_fence_no_earlier_put_comes_and_before_it_all_are_listed() {
    let (mut before, mut behind) = (0, 0);
    for round in 0..20 {
        let disk = formatted(8 << 20).await;
        let running = open(&disk).await;
        let mut puts = Vec::new();
        for n in 1..40 {
            let store = running.store.clone();
            puts.push(tokio::spawn(async move { put(&store, n, &[n as u8; 5000]).await }));
        }
        let mut stored = 0;
        for put in puts.drain(..round) {
            put.await.expect("no panic").expect("stored");
            stored += 1;
        }
        running.store.fence(GroupId(1), Epoch(2)).await.expect("fenced");
        let listed = running.store.list(GroupId(1), None, 100).await.expect("a list").len();
        let stale = Err(PutError::StaleEpoch { sent: Epoch(1), current: Epoch(2) });
        for put in puts {
            match put.await.expect("no panic") {
                Ok(_) => stored += 1,
                refused => {
                    assert_eq!(refused, stale);
                    behind += 1;
                }
            }
        }
        assert_eq!(stored, listed, "round {round}");
        before += stored;
        running.kill().await;
        let running = open(&disk).await;
        assert_eq!(put(&running.store, 99, &[1; 10]).await, stale, "for ever");
        running.kill().await;
    }
    assert!(before > 0 && behind > 0, "{before} puts came before a fence and {behind} behind one");
}
