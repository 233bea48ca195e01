//! Compaction beside everything else that changes a file.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use namespace::{Answer, Command, FallocateMode, Query, Reply};
use store::FragmentStore;
use types::{Errno, FragmentId, FragmentKind, GroupId, Ino};

use super::bench::{Bench, Sizes};
use crate::space::Charge;
use crate::{Handle, Op};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Does what the agent does: the fragments of dead extents go, then their rows.
async fn reclaim(bench: &Bench) -> usize {
    let query = Query::DeadExtents { volume: bench.volume, max: 10_000 };
    let Answer::Extents(dead) = bench.service.query(&query) else { panic!("no list of dead extents") };
    let fragment = |extent| FragmentId {
        group: GroupId(1),
        extent,
        layout: types::LayoutId(0),
        index: 0,
        kind: FragmentKind::Data,
    };
    let ids: Vec<_> = dead.iter().map(|row| row.id).collect();
    bench.store.delete(ids.iter().copied().map(fragment).collect()).await.expect("deleted");
    assert_eq!(bench.service.order(Command::DropExtents { ids }), Reply::Done);
    dead.len()
}

/// Compacts until a whole walk finds nothing.
async fn compact(bench: &Bench) {
    let vfs = Arc::clone(&bench.vfs);
    let before = vfs.figures().compaction;
    let hurry = vfs.wait_for_room();
    let running = async {
        let found_nothing = async {
            while bench.vfs.may_find_room() || bench.vfs.figures().compaction.walks == before.walks {
                tokio::task::yield_now().await;
            }
        };
        bench.vfs.run_compactor(found_nothing).await;
    };
    running.await;
    drop(hurry);
}

async fn page(bench: &Bench, ino: Ino, handle: Handle, at: u64, byte: u8) {
    bench.write(ino, handle, at * PAGE, &[byte; PAGE as usize]).await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
}

#[tokio::test]
async fn single_pages_become_whole_extents_again() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 0, &[1; 3 << 20]).await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
    for n in 0..200 {
        page(&bench, ino, handle, n * 7 % 512, n as u8).await;
    }
    let before = (bench.read(ino, handle, 0, 4 << 20).await.expect("read"), bench.attr(ino).await);
    let full = bench.store.space().free;
    assert!(bench.store.fragments() > 200);
    compact(&bench).await;
    reclaim(&bench).await;
    assert_eq!(bench.store.fragments(), 3);
    assert!(bench.store.space().free >= full + 200 * 2 * PAGE);
    assert_eq!(bench.read(ino, handle, 0, 4 << 20).await.expect("read"), before.0);
    assert_eq!(bench.attr(ino).await, before.1, "nobody sees it");
    let figures = bench.vfs.figures().compaction;
    assert_eq!((figures.windows, figures.lost, figures.failed), (2, 0, 0), "the third window was whole");
    compact(&bench).await;
    assert_eq!(bench.vfs.figures().compaction.windows, 2, "once is enough");
}

#[tokio::test]
async fn scattered_pages_of_one_flush_share_an_extent() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    for n in 0..100_u64 {
        bench.write(ino, handle, n * 3 * PAGE, &[n as u8 + 1; PAGE as usize]).await.expect("write");
    }
    bench.fsync(ino, handle).await.expect("fsync");
    assert_eq!(bench.store.fragments(), 1);
    for n in 0..100_u64 {
        let bytes = bench.read(ino, handle, n * 3 * PAGE, 2 * PAGE as u32).await.expect("read");
        assert!(bytes[..PAGE as usize].iter().all(|byte| *byte == n as u8 + 1));
        assert!(bytes[PAGE as usize..].iter().all(|byte| *byte == 0));
    }
    compact(&bench).await;
    assert_eq!(bench.vfs.figures().compaction.windows, 0, "holes between rows are no waste");
}

/// Random changes of one file and what it must hold, in memory.
struct Script {
    random: Random,
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

impl Script {
    async fn step(&mut self, bench: &Bench, ino: Ino, handle: Handle) {
        let at = self.random.below(3 * MIB);
        match self.random.below(40) {
            0 => {
                bench.truncate(ino, at).await.expect("truncate");
                self.bytes.resize(at as usize, 0);
                // A truncate is durable, with all that was written before.
                self.durable = self.bytes.clone();
            }
            1 | 2 => {
                let len = 1 + self.random.below(100_000);
                let mode = FallocateMode::PunchHole;
                bench.run(Op::Fallocate { ino, handle, mode, offset: at, len }).await.expect("punch");
                let end = self.bytes.len().min((at + len) as usize);
                self.bytes[end.min(at as usize)..end].fill(0);
                self.durable = self.bytes.clone();
            }
            3..=5 => {
                let len = 1 + self.random.below(300_000);
                self.write(bench, ino, handle, at, len).await;
            }
            6..=30 => {
                self.write(bench, ino, handle, at / PAGE * PAGE, PAGE).await;
                bench.fsync(ino, handle).await.expect("fsync");
                self.durable = self.bytes.clone();
            }
            31..=34 => {
                let len = 1 + self.random.below(9000);
                self.write(bench, ino, handle, at, len).await;
            }
            _ => {
                let got = bench.read(ino, handle, 0, 4 << 20).await.expect("read");
                assert!(got == self.bytes, "other bytes are read than were written");
            }
        }
    }

    async fn write(&mut self, bench: &Bench, ino: Ino, handle: Handle, at: u64, len: u64) {
        let data = vec![1 + self.random.below(255) as u8; len as usize];
        bench.write(ino, handle, at, &data).await.expect("write");
        let end = (at + len) as usize;
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[at as usize..end].copy_from_slice(&data);
    }
}

#[test]
fn nothing_is_lost_beside_compaction_whenever_it_dies() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (mut windows, mut lost) = (0, 0);
    for seed in 0..12_u64 {
        println!("seed {seed}");
        runtime.block_on(async {
            let mut bench = Bench::new().await;
            bench.service.slow.store(true, Ordering::Relaxed);
            let (ino, mut handle) = bench.create("file").await;
            let mut script = Script { random: Random(seed << 20 | 1), bytes: vec![], durable: vec![] };
            for _ in 0..3 {
                let vfs = Arc::clone(&bench.vfs);
                let compactor = tokio::spawn(async move {
                    let _hurry = vfs.wait_for_room();
                    vfs.run_compactor(std::future::pending()).await;
                });
                for n in 0..120 {
                    script.step(&bench, ino, handle).await;
                    if n % 8 == 0 {
                        reclaim(&bench).await;
                    }
                }
                // Wherever it is.
                compactor.abort();
                drop(compactor.await);
                let figures = bench.vfs.figures().compaction;
                (windows, lost) = (windows + figures.windows, lost + figures.lost + figures.failed);
                bench.power_cut().await;
                handle = bench.open(ino).await;
                let got = bench.read(ino, handle, 0, 4 << 20).await.expect("read");
                // What was not synced may be there or not; without a flusher it is not.
                assert!(got == script.durable, "seed {seed}: other bytes after a power cut");
                script.bytes = script.durable.clone();
            }
        });
    }
    assert!(windows > 100, "compaction did next to nothing: {windows} windows");
    assert!(lost > 0, "no window was ever changed while it was compacted");
}

#[test]
fn pages_find_room_as_long_as_compaction_finds_waste() {
    const FILE: usize = 100 << 20;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let rewrite = |with_compaction: bool| {
        runtime.block_on(async move {
            // 5,000 pages of 8 KiB each take more than the disk has free.
            let sizes = Sizes { limit: 110 << 20, disk: 128 << 20, arena: 64 << 20 };
            let bench = Arc::new(Bench::sized(sizes).await);
            // Whoever asks lets the others have a turn.
            bench.service.slow.store(true, Ordering::Relaxed);
            let (ino, handle) = bench.create("file").await;
            let mut bytes = vec![9; FILE];
            for (n, part) in bytes.chunks(1 << 20).enumerate() {
                bench.write(ino, handle, n as u64 * MIB, part).await?;
                bench.fsync(ino, handle).await?;
            }
            let vfs = Arc::clone(&bench.vfs);
            let compactor = with_compaction
                .then(|| tokio::spawn(async move { vfs.run_compactor(std::future::pending()).await }));
            let reclaimed = Arc::clone(&bench);
            let reclaimer = tokio::spawn(async move {
                loop {
                    reclaim(&reclaimed).await;
                    tokio::task::yield_now().await;
                }
            });
            let mut random = Random(7);
            let mut result = Ok(());
            for n in 0..5_000_u64 {
                let at = random.below(FILE as u64 / PAGE) * PAGE;
                let data = [n as u8; PAGE as usize];
                result = async {
                    bench.write(ino, handle, at, &data).await?;
                    bench.fsync(ino, handle).await
                }
                .await;
                if result.is_err() {
                    break;
                }
                bytes[at as usize..][..PAGE as usize].copy_from_slice(&data);
            }
            if result.is_ok() {
                assert!(bench.vfs.figures().compaction.windows > 20);
                let got = bench.read(ino, handle, 0, FILE as u32).await.expect("read");
                assert!(got == bytes, "other bytes than were written");
            }
            reclaimer.abort();
            if let Some(compactor) = compactor {
                compactor.abort();
            }
            result
        })
    };
    assert_eq!(rewrite(false), Err(Errno::ENOSPC), "the disk is too large for this test");
    assert_eq!(rewrite(true), Ok(()));
}

#[tokio::test]
async fn what_was_accepted_keeps_its_room_and_compaction_the_rest() {
    let bench = Bench::new().await;
    let store::Space { total, free } = bench.vfs.extents.space();
    let kept = (total / 64).min(16 << 20);
    let promised = Charge { disk: free - kept, ..Charge::default() };
    assert!(bench.vfs.charge(promised));
    let lend = |disk| bench.vfs.space.lend(disk, || bench.vfs.extents.space());
    for _ in 0..2 {
        assert!(lend(kept + 1).is_none());
        let lent = lend(kept);
        assert!(lent.is_some() && lend(1).is_none(), "all of it");
    }
    bench.vfs.give_back(promised);
    assert_eq!(bench.vfs.space.charged(), Charge::default());
}
