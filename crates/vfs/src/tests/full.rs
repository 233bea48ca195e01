//! A volume that is full most of the time: what does not fit is refused by the call that brings it, and nothing that
//! was accepted fails later.

use std::sync::atomic::Ordering;

use extents::memory::MemoryStore;
use futures_util::future::join_all;
use namespace::{Answer, Command, FallocateMode, Query, Reply};
use store::FragmentStore;
use types::{Errno, FragmentId, FragmentKind, Ino};

use super::bench::{Bench, Sizes};
use super::stress::Random;
use crate::space::Charge;
use crate::{Handle, Op, Outcome};

const FILES: usize = 4;
const ROUNDS: usize = 120;

/// A file, and what it must hold.
struct Model {
    name: String,
    ino: Ino,
    handle: Handle,
    bytes: Vec<u8>,
    /// How often it was refused.
    refused: u32,
}

impl Model {
    async fn step(&mut self, bench: &Bench, random: &mut Random) {
        let (ino, handle) = (self.ino, self.handle);
        match random.below(10) {
            0 => {
                let size = random.below(self.bytes.len() as u64 + 1);
                bench.truncate(ino, size).await.expect("a smaller file takes no space");
                self.bytes.truncate(size as usize);
            }
            1 => bench.fsync(ino, handle).await.expect("what was accepted fits"),
            2 => {
                let (offset, len) = (random.below(200_000), 1 + random.below(100_000));
                let op = Op::Fallocate { ino, handle, mode: FallocateMode::Allocate, offset, len };
                match bench.run(op).await {
                    Ok(_) => self.bytes.resize(self.bytes.len().max((offset + len) as usize), 0),
                    Err(errno) => self.refuse(errno),
                }
            }
            // Little by little over the same blocks: many records, many commits.
            3 | 4 => {
                let base = random.below(5) * 4096;
                for _ in 0..random.below(60) {
                    let len = 1 + random.below(300) as usize;
                    self.write(bench, base + random.below(20_000), len, random).await;
                }
            }
            // Far apart, so that each has a header of its own.
            5 | 6 => {
                let base = random.below(4) * 4096;
                for at in 0..random.below(60) {
                    self.write(bench, base + at * 8192, 1 + random.below(300) as usize, random).await;
                }
            }
            7 => self.write(bench, self.bytes.len() as u64, 1 + random.below(5_000) as usize, random).await,
            _ => {
                let (offset, len) = (random.below(300_000), 1 + random.below(100_000) as usize);
                self.write(bench, offset, len, random).await;
            }
        }
    }

    async fn write(&mut self, bench: &Bench, offset: u64, len: usize, random: &mut Random) {
        let data = vec![1 + random.below(255) as u8; len];
        match bench.write(self.ino, self.handle, offset, &data).await {
            Ok(written) => {
                let end = offset as usize + written as usize;
                self.bytes.resize(self.bytes.len().max(end), 0);
                self.bytes[offset as usize..end].copy_from_slice(&data[..written as usize]);
            }
            Err(errno) => self.refuse(errno),
        }
    }

    fn refuse(&mut self, errno: Errno) {
        assert_eq!(errno, Errno::ENOSPC, "{}", self.name);
        self.refused += 1;
    }

    async fn check(&self, bench: &Bench, when: &str) {
        let found = bench.read(self.ino, self.handle, 0, 1 << 20).await.expect("read");
        assert!(found == self.bytes, "{} is not what was written, {when}", self.name);
    }
}

/// What the node agent does: fragments of dead extents go, then their rows.
async fn reclaim(bench: &Bench) {
    bench.vfs.settle().await.expect("a service that answers");
    while let Reply::Left(1..) = bench.service.order(Command::Reclaim { volume: bench.volume, steps: 1000 }) {
    }
    loop {
        let query = Query::DeadExtents { volume: bench.volume, max: 512 };
        let Answer::Extents(dead) = bench.service.query(&query) else { panic!("no list of dead extents") };
        if dead.is_empty() {
            return;
        }
        let fragments = dead.iter().map(|row| FragmentId {
            group: row.group,
            extent: row.id,
            layout: row.layout,
            index: 0,
            kind: FragmentKind::Data,
        });
        let store: &MemoryStore = &bench.store;
        store.delete(fragments.collect()).await.expect("delete");
        let ids = dead.iter().map(|row| row.id).collect();
        assert_eq!(bench.service.order(Command::DropExtents { ids }), Reply::Done);
    }
}

async fn free(bench: &Bench) -> u64 {
    match bench.run(Op::StatFs { ino: Ino::ROOT }).await {
        Ok(Outcome::StatFs(space)) => space.free,
        other => panic!("{other:?}"),
    }
}

async fn play(seed: u64) {
    let mut random = Random(seed);
    // Full by the volume's limit, or by the disk.
    let (limit, disk) = if seed.is_multiple_of(2) { (600_000, 64 << 20) } else { (1 << 30, 2 << 20) };
    let mut bench = Bench::sized(Sizes { limit, disk, arena: 2 << 20 }).await;
    bench.service.slow.store(true, Ordering::Relaxed);
    let before = free(&bench).await;
    let mut files = Vec::new();
    for at in 0..FILES {
        let name = format!("file-{at}");
        let (ino, handle) = bench.create(&name).await;
        files.push(Model { name, ino, handle, bytes: Vec::new(), refused: 0 });
    }
    for _ in 0..ROUNDS {
        let steps = files.iter_mut().map(|file| {
            let mut random = Random(random.below(1 << 30));
            let bench = &bench;
            async move { file.step(bench, &mut random).await }
        });
        join_all(steps).await;
        if random.below(4) == 0 {
            reclaim(&bench).await;
        }
    }
    assert!(files.iter().map(|file| file.refused).sum::<u32>() > 10, "it was never full");
    bench.vfs.flush_everything().await.expect("what was accepted fits");
    assert_eq!(bench.vfs.space.charged(), Charge::default());
    for file in &files {
        file.check(&bench, "before the power cut").await;
    }
    bench.power_cut().await;
    for file in &mut files {
        file.handle = bench.open(file.ino).await;
        file.check(&bench, "after the power cut").await;
        bench.unlink(Ino::ROOT, &file.name).await.expect("unlink");
        bench.release(file.ino, file.handle).await;
    }
    reclaim(&bench).await;
    assert!(free(&bench).await * 100 >= before * 99, "deleting brings the space back");
}

#[tokio::test]
async fn what_was_accepted_fits_and_what_does_not_fit_is_refused() {
    for seed in 0..8 {
        println!("seed {seed}");
        play(seed).await;
    }
}
