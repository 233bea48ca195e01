//! Space: a disk runs out of bytes and of nothing else, and what is deleted comes back.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{Run, Tally};
use crate::random::{Random, content};
use crate::served::{Served, Up};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

/// How long deleted space may take to come back.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// Threads that write pages, each in its own part of the file.
const WRITERS: u64 = 4;

/// Fills a mount and empties it; then writes more single pages into a file than the disk could hold as such.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let scratch = run.scratch("space")?;
    let up = Up::in_folder(&scratch, run.count("1GiB", "10GiB"));
    let mut served = up.start()?;
    let empty = free(&served)?;
    fill(served.mount())?;
    ensure!(free(&served)? < empty / 20, "writes were refused while there was room");
    fs::read_dir(served.mount())?.try_for_each(|entry| fs::remove_file(entry?.path()))?;
    let took = wait_for_space(&served, empty)?;
    println!("space: filled, emptied; all but 1 % was back after {:.1} s", took.as_secs_f64());

    let pages = run.count(60_000, 1_000_000);
    let mut book = Book::over(empty * 6 / 10, run.seed);
    let path = served.mount().join("pages");
    book.lay_out(&path)?;
    let began = Instant::now();
    book.overwrite(&path, pages)?;
    let seconds = began.elapsed().as_secs_f64();
    let status = served.status()?;
    let windows = number(&status, "/mounts/0/compacted_windows")?;
    println!(
        "space: {pages} pages written and synced in {seconds:.0} s; compaction rewrote {windows} windows; {} fragments, {} free of {}",
        number(&status, "/disks/0/fragments")?,
        free(&served)? >> 20,
        empty >> 20,
    );
    let needs = pages * 2 * PAGE as u64;
    ensure!(needs > empty * 4 / 10, "void: {pages} pages fit beside the file");
    ensure!(windows > 0, "void: nothing was compacted");
    book.verify(&path)?;

    served.stop()?;
    up.fsck()?;
    served = up.start()?;
    book.verify(&path)?;
    fs::remove_file(&path).context("remove the file")?;
    let took = wait_for_space(&served, empty)?;
    println!("space: all but 1 % was back after {:.1} s", took.as_secs_f64());
    served.stop()?;
    up.fsck()?;
    Ok(Tally { passed: 2, failed: 0 })
}

fn number(status: &Value, pointer: &str) -> anyhow::Result<u64> {
    status.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("status has no {pointer}"))
}

/// Bytes that are free: what statfs(2) says, and no more than the disk has.
fn free(served: &Served) -> anyhow::Result<u64> {
    let stat = rustix::fs::statvfs(served.mount()).context("ask how much is free")?;
    let disk = number(&served.status()?, "/disks/0/free_bytes")?;
    Ok((stat.f_bavail * stat.f_frsize).min(disk))
}

/// Writes until a write is refused for want of space; closing and syncing must not be.
fn fill(folder: &Path) -> anyhow::Result<()> {
    let data = content(1, MIB);
    for n in 0.. {
        let mut file = File::create(folder.join(format!("fill-{n}"))).context("make a file")?;
        for _ in 0..32 {
            if let Err(error) = file.write_all(&data) {
                ensure!(error.kind() == std::io::ErrorKind::StorageFull, "a write failed: {error}");
                file.sync_all().context("what was accepted cannot be synced")?;
                return Ok(());
            }
        }
        file.sync_all().context("what was accepted cannot be synced")?;
    }
    bail!("the disk has no end")
}

/// Waits until all but 1 % of `before` is free again.
fn wait_for_space(served: &Served, before: u64) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let now = free(served)?;
        if now >= before / 100 * 99 {
            return Ok(began.elapsed());
        }
        ensure!(
            began.elapsed() < BACK_WITHIN,
            "only {} MiB of {} MiB are back after {BACK_WITHIN:?}",
            now >> 20,
            before >> 20
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What each page of a file must hold: page numbers and versions make its content.
struct Book {
    seed: u64,
    versions: Vec<u32>,
}

impl Book {
    fn over(bytes: u64, seed: u64) -> Book {
        let mib = bytes / MIB as u64;
        Book { seed, versions: vec![0; mib as usize * MIB / PAGE] }
    }

    fn page(seed: u64, page: usize, version: u32) -> Vec<u8> {
        content(seed ^ (page as u64) << 24 ^ u64::from(version), PAGE)
    }

    fn lay_out(&self, path: &Path) -> anyhow::Result<()> {
        let mut file = File::create(path).context("make the file of pages")?;
        for page in 0..self.versions.len() {
            file.write_all(&Book::page(self.seed, page, 0)).context("lay the file out")?;
        }
        file.sync_all().context("sync the file of pages")
    }

    /// Random pages, each synced before its writer goes on.
    fn overwrite(&mut self, path: &Path, pages: u64) -> anyhow::Result<()> {
        let part = self.versions.len().div_ceil(WRITERS as usize);
        let seed = self.seed;
        std::thread::scope(|scope| {
            let writers: Vec<_> = self
                .versions
                .chunks_mut(part)
                .enumerate()
                .map(|(n, versions)| {
                    scope.spawn(move || -> anyhow::Result<()> {
                        let file =
                            File::options().write(true).open(path).context("open the file of pages")?;
                        let mut random = Random::new(seed + n as u64);
                        for done in 0..pages / WRITERS {
                            let at = random.below(versions.len() as u64) as usize;
                            versions[at] += 1;
                            let page = n * part + at;
                            file.write_all_at(&Book::page(seed, page, versions[at]), (page * PAGE) as u64)
                                .with_context(|| format!("write a page after {done}"))?;
                            file.sync_data().with_context(|| format!("sync a page after {done}"))?;
                        }
                        Ok(())
                    })
                })
                .collect();
            writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
        })
    }

    fn verify(&self, path: &Path) -> anyhow::Result<()> {
        let file = File::open(path).context("open the file of pages")?;
        let mut page = vec![0; PAGE];
        for (at, version) in self.versions.iter().enumerate() {
            file.read_exact_at(&mut page, (at * PAGE) as u64).with_context(|| format!("read page {at}"))?;
            ensure!(page == Book::page(self.seed, at, *version), "page {at} is not its version {version}");
        }
        Ok(())
    }
}
