//! Space: a disk runs out of bytes and of nothing else, and what is deleted comes back.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use super::{Run, Tally};
use crate::random::{Random, content};
use crate::served::{Served, Up, number};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

/// Threads that write pages, each to its own file.
const WRITERS: u64 = 4;

/// Pages that are written apart from one another before they are synced.
const APART: u64 = 4096;

/// Fills a mount and empties it; writes scattered pages; then more single pages into files than the disk could hold as
/// such. Figures show that packing, compaction and reclaim did it.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let scratch = run.scratch("space")?;
    let up = Up::in_folder(&scratch, run.count("512MiB", "10GiB"));
    let mut served = up.start()?;
    let empty = served.free()?;
    fill(served.mount())?;
    ensure!(served.free()? < empty / 20, "writes were refused while there was room");
    fs::read_dir(served.mount())?.try_for_each(|entry| fs::remove_file(entry?.path()))?;
    let took = served.wait_for_space(empty)?;
    println!("space: filled, emptied; all but 1 % was back after {:.1} s", took.as_secs_f64());
    packs(&served, run.seed)?;

    let pages = run.count(24_000, 1_000_000);
    let mut books = Books::over(empty * 7 / 10, run.seed);
    books.lay_out(served.mount())?;
    let room = served.free()?;
    let before = served.status()?;
    let began = Instant::now();
    books.overwrite(served.mount(), pages)?;
    let seconds = began.elapsed().as_secs_f64();
    let after = served.status()?;
    let grew = |pointer: &str| anyhow::Ok(number(&after, pointer)? - number(&before, pointer)?);
    let (windows, reclaimed) = (grew("/mounts/0/compacted_windows")?, grew("/mounts/0/reclaimed_extents")?);
    println!(
        "space: {pages} pages written and synced in {seconds:.0} s, {} MiB more than was free for them; compaction \
         rewrote {windows} windows, {} MiB; {reclaimed} extents were reclaimed; {} fragments, {} MiB free; data \
         directory {} MiB beside the disk",
        (books.needs() >> 20) as i64 - (room >> 20) as i64,
        grew("/mounts/0/compacted_bytes")? >> 20,
        number(&after, "/disks/0/fragments")?,
        served.free()? >> 20,
        beside_the_disk(&up.data)? >> 20,
    );
    ensure!(books.needs() > room, "void: {pages} pages fit beside the files without compaction");
    ensure!(windows > 0, "void: nothing was compacted");
    ensure!(reclaimed > pages / 4, "void: only {reclaimed} extents were reclaimed");
    books.verify(served.mount())?;

    served.stop()?;
    up.fsck()?;
    served = up.start()?;
    books.verify(served.mount())?;
    fs::read_dir(served.mount())?.try_for_each(|entry| fs::remove_file(entry?.path()))?;
    let took = served.wait_for_space(empty)?;
    println!("space: all but 1 % was back after {:.1} s", took.as_secs_f64());
    served.stop()?;
    up.fsck()?;
    Ok(Tally { passed: 3, failed: 0 })
}

/// Pages of one file that are synced together share extents: each alone would take as much again for its header.
fn packs(served: &Served, seed: u64) -> anyhow::Result<()> {
    let path = served.mount().join("apart");
    let file = File::options().read(true).write(true).create_new(true).open(&path).context("make a file")?;
    let before = number(&served.status()?, "/disks/0/fragments")?;
    for n in 0..APART {
        file.write_all_at(&page(seed, n, 0), n * 3 * PAGE as u64).context("write a page")?;
    }
    file.sync_all().context("sync the pages")?;
    let extents = number(&served.status()?, "/disks/0/fragments")?.saturating_sub(before);
    println!("space: {APART} pages that are apart lie in {extents} extents");
    ensure!((1..=APART / 16).contains(&extents), "{APART} pages of one sync lie in {extents} extents");
    let mut read = vec![0; PAGE];
    for n in 0..APART {
        file.read_exact_at(&mut read, n * 3 * PAGE as u64).context("read a page")?;
        ensure!(read == page(seed, n, 0), "page {n} is not what was written");
    }
    fs::remove_file(path).context("remove the file")
}

/// What the data directory takes beside the disk file: the metadata.
fn beside_the_disk(data: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(data).context("list the data directory")? {
        let (entry, at) = entry.map(|entry| (entry.metadata(), entry.path()))?;
        let entry = entry?;
        sum += match entry.is_dir() {
            true if at.file_name().is_some_and(|name| name == "disks") => 0,
            true => beside_the_disk(&at)?,
            false => entry.blocks() * 512,
        };
    }
    Ok(sum)
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

fn page(seed: u64, page: u64, version: u32) -> Vec<u8> {
    content(seed ^ page << 24 ^ u64::from(version), PAGE)
}

/// What each page of each writer's file must hold: page numbers and versions make its content.
struct Books(Vec<Book>);

/// One file.
struct Book {
    name: String,
    seed: u64,
    versions: Vec<u32>,
}

impl Books {
    /// A file for each writer: pages of one file that are synced at once would share extents.
    fn over(bytes: u64, seed: u64) -> Books {
        let pages = bytes / WRITERS / MIB as u64 * (MIB / PAGE) as u64;
        let book = |n: u64| Book {
            name: format!("pages-{n}"),
            seed: seed ^ (n + 1) << 56,
            versions: vec![0; pages as usize],
        };
        Books((0..WRITERS).map(book).collect())
    }

    fn lay_out(&self, folder: &Path) -> anyhow::Result<()> {
        for book in &self.0 {
            let file = File::create(folder.join(&book.name)).context("make a file of pages")?;
            let mut file = BufWriter::with_capacity(MIB, file);
            for at in 0..book.versions.len() {
                file.write_all(&page(book.seed, at as u64, 0)).context("lay a file out")?;
            }
            file.into_inner().context("lay a file out")?.sync_all().context("sync a file of pages")?;
        }
        Ok(())
    }

    /// Random pages, each synced before its writer goes on.
    fn overwrite(&mut self, folder: &Path, pages: u64) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let writers: Vec<_> = self
                .0
                .iter_mut()
                .map(|book| scope.spawn(move || book.overwrite(folder, pages / WRITERS)))
                .collect();
            writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
        })
    }

    /// What the pages that were written would take of the disk, each an extent with a header, beside the files.
    fn needs(&self) -> u64 {
        let pages = self.0.iter().flat_map(|book| &book.versions).filter(|version| **version > 0).count();
        pages as u64 * 2 * PAGE as u64
    }

    fn verify(&self, folder: &Path) -> anyhow::Result<()> {
        self.0.iter().try_for_each(|book| book.verify(folder))
    }
}

impl Book {
    fn overwrite(&mut self, folder: &Path, pages: u64) -> anyhow::Result<()> {
        let file =
            File::options().write(true).open(folder.join(&self.name)).context("open a file of pages")?;
        let mut random = Random::new(self.seed);
        for done in 0..pages {
            let at = random.below(self.versions.len() as u64);
            let version = &mut self.versions[at as usize];
            *version += 1;
            file.write_all_at(&page(self.seed, at, *version), at * PAGE as u64)
                .with_context(|| format!("write a page after {done}"))?;
            file.sync_data().with_context(|| format!("sync a page after {done}"))?;
        }
        Ok(())
    }

    fn verify(&self, folder: &Path) -> anyhow::Result<()> {
        let file = File::open(folder.join(&self.name)).context("open a file of pages")?;
        let mut file = BufReader::with_capacity(MIB, file);
        let mut read = vec![0; PAGE];
        for (at, version) in self.versions.iter().enumerate() {
            file.read_exact(&mut read).with_context(|| format!("read page {at}"))?;
            ensure!(read == page(self.seed, at as u64, *version), "page {at} is not its version {version}");
        }
        Ok(())
    }
}
