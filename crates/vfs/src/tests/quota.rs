//! Quotas of directories that are used up by several at once, set under use, and shown.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use namespace::{Answer, Command, FallocateMode, NewKind, Query, QuotaInfo, QuotaState, Reply};
use types::{BLOCK, Errno, Ino};

use super::bench::{Bench, READ_WRITE, Sizes};
use super::stress::Random;
use crate::space::Charge;
use crate::{Handle, Op, Outcome, StatFs};

const MIB: u64 = 1 << 20;

async fn dir(bench: &Bench, parent: Ino, name: &str) -> Ino {
    bench.make(parent, name, NewKind::Directory).await
}

async fn file(bench: &Bench, parent: Ino, name: &str) -> (Ino, Handle) {
    let (name, open) = (name.as_bytes().to_vec(), Some(READ_WRITE));
    let op = Op::Create { parent, name, kind: NewKind::File, mode: 0o644, umask: 0, open };
    match bench.run(op).await {
        Ok(Outcome::Created { attr, handle, .. }) => (attr.ino, handle),
        other => panic!("create: {other:?}"),
    }
}

fn quota(bench: &Bench, dir: Ino) -> QuotaInfo {
    let Answer::Quotas(quotas) = bench.service.query(&Query::QuotasOf { volume: bench.volume, ino: dir })
    else {
        panic!("no quotas")
    };
    quotas[0]
}

async fn statfs(bench: &Bench, ino: Ino) -> StatFs {
    match bench.run(Op::StatFs { ino }).await {
        Ok(Outcome::StatFs(space)) => space,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_byte_over_a_quota_is_refused_by_the_call_that_brings_it() {
    let bench = Bench::new().await;
    let (one, two) = (dir(&bench, Ino::ROOT, "one").await, dir(&bench, Ino::ROOT, "two").await);
    bench.vfs.set_quota(one, Some(MIB), Some(3)).await.expect("a quota");
    let (ino, handle) = file(&bench, one, "f").await;
    assert_eq!(bench.write(ino, handle, 0, &vec![1; 900_000]).await, Ok(900_000));
    assert_eq!(bench.write(ino, handle, 900_000, &vec![1; 200_000]).await, Err(Errno::EDQUOT));
    assert_eq!(bench.write(ino, handle, 0, &vec![2; 900_000]).await, Ok(900_000), "overwriting adds nothing");
    let allocate = |len| Op::Fallocate { ino, handle, mode: FallocateMode::Allocate, offset: 0, len };
    assert_eq!(bench.run(allocate(MIB + 1)).await, Err(Errno::EDQUOT));
    assert_eq!(bench.run(allocate(MIB)).await, Ok(Outcome::Done));
    bench.fsync(ino, handle).await.expect("what was accepted has room");
    assert_eq!(quota(&bench, one).used_bytes, MIB);
    let (other, other_handle) = file(&bench, two, "f").await;
    bench.write(other, other_handle, 0, &vec![1; 2 << 20]).await.expect("beside it is no quota");
    file(&bench, one, "third").await;
    let op = |name: &str, kind| {
        let name = name.as_bytes().to_vec();
        Op::Create { parent: one, name, kind, mode: 0o644, umask: 0, open: None }
    };
    assert_eq!(bench.run(op("fourth", NewKind::Fifo)).await, Err(Errno::EDQUOT));
    bench.truncate(ino, 0).await.expect("truncate");
    assert_eq!(bench.write(ino, handle, 0, &vec![3; 900_000]).await, Ok(900_000), "there is room again");
    // A limit that comes down loses nothing that was accepted.
    bench.vfs.set_quota(one, Some(BLOCK), None).await.expect("a lower quota");
    bench.fsync(ino, handle).await.expect("it was accepted");
    assert_eq!(bench.read(ino, handle, 899_999, 9).await, Ok(vec![3]));
    bench.vfs.remove_quota(one).await.expect("a quota to remove");
    assert_eq!(bench.vfs.remove_quota(one).await, Err(Errno::ENODATA));
    assert_eq!(bench.write(ino, handle, 0, &vec![4; 2_000_000]).await, Ok(2_000_000));
}

#[tokio::test]
async fn statfs_shows_the_innermost_limit_and_what_is_left_of_all() {
    let bench = Bench::new().await;
    let outer = dir(&bench, Ino::ROOT, "outer").await;
    let inner = dir(&bench, outer, "inner").await;
    let whole = statfs(&bench, outer).await;
    assert_eq!(whole, statfs(&bench, Ino::ROOT).await);
    bench.vfs.set_quota(outer, Some(MIB), None).await.expect("a quota");
    bench.vfs.set_quota(inner, None, Some(10)).await.expect("a quota");
    let (ino, handle) = file(&bench, inner, "f").await;
    bench.write(ino, handle, 0, &vec![1; 400 << 10]).await.expect("write");
    for _ in 0..2 {
        let space = statfs(&bench, ino).await;
        assert_eq!(space, StatFs { blocks: 256, free: 156, files: 10, files_free: 8 }, "accepted or stored");
        bench.fsync(ino, handle).await.expect("fsync");
    }
    assert_eq!(statfs(&bench, outer).await.free, 156);
    assert_eq!(whole.free - statfs(&bench, Ino::ROOT).await.free, 100, "the volume's truth elsewhere");
    // Fuller than allowed.
    bench.vfs.set_quota(outer, Some(100 << 10), None).await.expect("a lower quota");
    let space = statfs(&bench, inner).await;
    assert_eq!((space.blocks, space.free), (100, 0));
}

#[tokio::test]
async fn statfs_tells_what_can_be_written_where_the_disk_is_the_bound() {
    let bench = Bench::sized(Sizes { disk: 128 * MIB, ..Sizes::default() }).await;
    let before = statfs(&bench, Ino::ROOT).await;
    let (ino, handle) = bench.create("file").await;
    let mut at = 0;
    while let Ok(bytes) = bench.write(ino, handle, at, &vec![1; MIB as usize]).await {
        at += u64::from(bytes);
    }
    let told = before.free * BLOCK;
    assert!(at.abs_diff(told) <= told / 50, "{told} bytes were free, {at} could be written");
    bench.fsync(ino, handle).await.expect("what was accepted fits");
    let after = statfs(&bench, Ino::ROOT).await;
    assert!(after.free * BLOCK <= told / 50, "{after:?}");
}

/// What service and node agent do behind the mount.
fn reclaim(bench: &Bench) {
    while let Reply::Left(1..) = bench.service.order(Command::Reclaim { volume: bench.volume, steps: 1000 }) {
    }
}

/// Four writers under two quotas that lie in each other; how many writes were refused.
async fn fill(seed: u64) -> u32 {
    const LIMIT: u64 = 600_000;
    let mut random = Random(seed);
    let bench = Bench::sized(Sizes { arena: 2 << 20, ..Sizes::default() }).await;
    bench.service.slow.store(true, Ordering::Relaxed);
    let outer = dir(&bench, Ino::ROOT, "outer").await;
    let inner = dir(&bench, outer, "inner").await;
    bench.vfs.set_quota(outer, Some(LIMIT), None).await.expect("a quota");
    bench.vfs.set_quota(inner, Some(LIMIT / 2), None).await.expect("a quota");
    let mut files = Vec::new();
    for (name, parent) in [("a", outer), ("b", inner), ("c", inner), ("d", outer)] {
        let (ino, handle) = file(&bench, parent, name).await;
        files.push((ino, handle, 0_u32));
    }
    for _ in 0..40 {
        let seeds: Vec<u64> = files.iter().map(|_| random.below(1 << 30)).collect();
        let steps = files.iter_mut().zip(seeds).map(|((ino, handle, refused), seed)| {
            let (bench, ino, handle) = (&bench, *ino, *handle);
            let mut random = Random(seed);
            async move {
                match random.below(8) {
                    0 => drop(bench.truncate(ino, random.below(100_000)).await.expect("truncate")),
                    1 => bench.fsync(ino, handle).await.expect("what was accepted has room"),
                    2 => {
                        let (offset, len) = (random.below(200_000), 1 + random.below(60_000));
                        let op = Op::Fallocate { ino, handle, mode: FallocateMode::Allocate, offset, len };
                        match bench.run(op).await {
                            Ok(_) | Err(Errno::EDQUOT) => {}
                            Err(errno) => panic!("fallocate: {errno}"),
                        }
                    }
                    _ => {
                        let (offset, len) = (random.below(400_000), 1 + random.below(60_000) as usize);
                        match bench.write(ino, handle, offset, &vec![7; len]).await {
                            Ok(_) => {}
                            Err(errno) => {
                                assert_eq!(errno, Errno::EDQUOT);
                                *refused += 1;
                            }
                        }
                    }
                }
            }
        });
        join_all(steps).await;
        if random.below(4) == 0 {
            reclaim(&bench);
        }
        for (dir, limit) in [(outer, LIMIT), (inner, LIMIT / 2)] {
            let stored = quota(&bench, dir).used_bytes;
            assert!(stored <= limit, "seed {seed}: {stored} bytes are stored under a limit of {limit}");
        }
    }
    let refused = files.iter().map(|(_, _, refused)| refused).sum();
    bench.vfs.flush_everything().await.expect("what was accepted has room");
    assert_eq!(bench.vfs.space.charged(), Charge::default(), "seed {seed}");
    assert_eq!(bench.vfs.quotas.charged(outer), 0, "seed {seed}");
    assert!(quota(&bench, outer).used_bytes <= LIMIT);
    for (ino, handle, _) in files {
        bench.truncate(ino, 0).await.expect("truncate");
        bench.release(ino, handle).await;
    }
    reclaim(&bench);
    assert_eq!(quota(&bench, outer).used_bytes, 0, "seed {seed}");
    let space = statfs(&bench, inner).await;
    assert_eq!(space.free, LIMIT / 2 / BLOCK, "seed {seed}: all of it came back");
    refused
}

#[tokio::test]
async fn several_writers_fill_a_quota_and_no_accepted_byte_fails_later() {
    let mut refused = 0;
    for seed in 0..12 {
        refused += fill(seed).await;
    }
    assert!(refused > 100, "{refused} writes were refused: the quotas were hardly ever full");
}

#[tokio::test]
async fn a_quota_is_counted_while_its_files_are_written() {
    let bench = Bench::new().await;
    let top = dir(&bench, Ino::ROOT, "top").await;
    let mut files = Vec::new();
    for i in 0..3 {
        let below = dir(&bench, top, &format!("{i}")).await;
        for j in 0..500 {
            files.push(file(&bench, below, &format!("{j}")).await);
        }
    }
    let (last, handle) = files[files.len() - 1];
    bench.write(last, handle, 0, &vec![1; 100_000]).await.expect("write");
    bench.vfs.set_quota(top, Some(MIB), None).await.expect("a quota");
    assert_eq!(quota(&bench, top).state, QuotaState::Counting, "one command does not count it all");
    assert_eq!(bench.vfs.set_quota(files[0].0, Some(1), None).await, Err(Errno::ENOTDIR));
    let other = dir(&bench, Ino::ROOT, "other").await;
    assert_eq!(bench.vfs.set_quota(other, Some(1), None).await, Err(Errno::EBUSY));
    // Accepted under the old label, and stored under the new one.
    bench.write(last, handle, 100_000, &vec![2; 500_000]).await.expect("write");
    let counted = async {
        while quota(&bench, top).state == QuotaState::Counting {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = bench.vfs.run_counting() => panic!("it ended"),
        () = counted => {}
    }
    bench.fsync(last, handle).await.expect("fsync");
    let QuotaInfo { used_bytes, inodes, .. } = quota(&bench, top);
    assert_eq!((used_bytes, inodes), (600_000_u64.next_multiple_of(BLOCK), 1504));
    let refused = bench.write(last, handle, 600_000, &vec![3; 600_000]).await;
    assert_eq!(refused, Err(Errno::EDQUOT));
    let (first, handle) = files[0];
    assert_eq!(bench.write(first, handle, 0, &vec![3; 600_000]).await, Err(Errno::EDQUOT));
}
