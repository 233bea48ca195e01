//! Files that fill a disk: what each must hold is known.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::random::{Random, content};

/// Threads that write at once.
const WRITERS: u64 = 4;

/// The disk is full when a thread was refused so often in a row: small files fit where large ones do not.
const REFUSALS: u32 = 8;

/// Bytes of one call, at most.
const PIECE: u64 = 256 << 10;

/// How many files are changed in place.
const CHANGES: u64 = 40;

/// Every how many files one is synced at once; the others wait for a sync of all.
const SYNCED: u64 = 3;

/// What a file holds: content of a seed, and over it what was written later.
struct Content {
    path: PathBuf,
    seed: u64,
    len: u64,
    /// Where, from which seed, how long; later ones lie over earlier ones.
    changes: Vec<(u64, u64, u64)>,
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = content(self.seed, self.len as usize);
        for (at, seed, len) in &self.changes {
            bytes[*at as usize..(at + len) as usize].copy_from_slice(&content(*seed, *len as usize));
        }
        bytes
    }
}

/// All of them.
pub struct Files {
    random: Random,
    rounds: u64,
    files: Vec<Content>,
}

/// Whether it says that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error())
}

impl Files {
    /// None yet.
    pub fn new(seed: u64) -> Files {
        Files { random: Random::new(seed), rounds: 0, files: Vec::new() }
    }

    /// Adds files of all sizes until there is no room for any.
    pub fn fill(&mut self, mount: &Path) -> anyhow::Result<()> {
        let seeds: Vec<u64> = (0..WRITERS).map(|_| self.random.next()).collect();
        let round = self.rounds;
        self.rounds += 1;
        let folder = |n: usize| mount.join(format!("round{round}-{n}"));
        let written: Vec<anyhow::Result<Vec<Content>>> = std::thread::scope(|scope| {
            let writer = |(n, seed): (usize, &u64)| {
                let (folder, random) = (folder(n), Random::new(*seed));
                scope.spawn(move || fill_folder(&folder, random))
            };
            let writers: Vec<_> = seeds.iter().enumerate().map(writer).collect();
            writers.into_iter().map(|writer| writer.join().expect("a writer returns its errors")).collect()
        });
        for files in written {
            self.files.extend(files?);
        }
        Ok(())
    }

    /// Writes over parts of files. What is refused leaves what was there.
    pub fn change(&mut self, mount: &Path) -> anyhow::Result<()> {
        let random = &mut self.random;
        let count = self.files.len() as u64;
        for _ in 0..CHANGES {
            let changed = &mut self.files[random.below(count) as usize];
            if changed.len == 0 {
                continue;
            }
            let at = random.below(changed.len);
            let len = 1 + random.below((changed.len - at).min(PIECE));
            let seed = random.next();
            let file = File::options().write(true).open(mount.join(&changed.path)).context("open")?;
            let written = match file.write_at(&content(seed, len as usize), at) {
                Ok(written) => written as u64,
                Err(error) if is_full(&error) => 0,
                Err(error) => return Err(error).context("write over a part"),
            };
            // A seed gives the same bytes for every length.
            changed.changes.push((at, seed, written));
        }
        Ok(())
    }

    /// Nothing that was accepted is refused now.
    pub fn sync(&self, mount: &Path) -> anyhow::Result<()> {
        for file in &self.files {
            let synced = File::open(mount.join(&file.path)).and_then(|file| file.sync_all());
            synced.with_context(|| format!("{} was accepted and cannot be synced", file.path.display()))?;
        }
        Ok(())
    }

    /// Every file holds what was accepted.
    pub fn check(&self, mount: &Path) -> anyhow::Result<()> {
        for file in &self.files {
            let name = file.path.display();
            let read = fs::read(mount.join(&file.path)).with_context(|| format!("read {name}"))?;
            let (now, then) = (read.len() as u64, file.len);
            ensure!(now == then, "{name} has {now} bytes, not {then}");
            ensure!(read == file.bytes(), "{name} does not hold what was accepted");
        }
        Ok(())
    }

    /// Removes every other file.
    pub fn remove_half(&mut self, mount: &Path) -> anyhow::Result<()> {
        let mut number = 0;
        let (kept, removed) = std::mem::take(&mut self.files).into_iter().partition(|_| {
            number += 1;
            number % 2 == 0
        });
        self.files = kept;
        remove(removed, mount)
    }

    /// Removes all.
    pub fn remove(&mut self, mount: &Path) -> anyhow::Result<()> {
        remove(std::mem::take(&mut self.files), mount)
    }
}

fn remove(files: Vec<Content>, mount: &Path) -> anyhow::Result<()> {
    for file in files {
        fs::remove_file(mount.join(&file.path)).with_context(|| format!("remove {}", file.path.display()))?;
    }
    Ok(())
}

/// Adds files to a new folder; paths are relative to its parent.
fn fill_folder(folder: &Path, mut random: Random) -> anyhow::Result<Vec<Content>> {
    fs::create_dir(folder).context("make a folder")?;
    let name = PathBuf::from(folder.file_name().context("a folder has a name")?);
    let mut files = Vec::new();
    let mut refusals = 0;
    while refusals < REFUSALS {
        let number = files.len() as u64;
        let len = match random.below(4) {
            0 => 1 + random.below(4_000),
            1 | 2 => 5_000 + random.below(200_000),
            _ => (1 << 20) + random.below(8 << 20),
        };
        let mut file =
            Content { path: name.join(number.to_string()), seed: random.next(), len: 0, changes: Vec::new() };
        let path = folder.join(number.to_string());
        if write(&path, &mut file, len, number.is_multiple_of(SYNCED))? {
            refusals = 0;
        } else {
            refusals += 1;
        }
        files.push(file);
    }
    Ok(files)
}

/// Writes until all is there or something is refused; whether all is there.
fn write(path: &Path, noted: &mut Content, len: u64, sync: bool) -> anyhow::Result<bool> {
    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    let bytes = content(noted.seed, len as usize);
    while noted.len < len {
        let end = (noted.len + PIECE).min(len);
        match file.write_at(&bytes[noted.len as usize..end as usize], noted.len) {
            Ok(written) => noted.len += written as u64,
            Err(error) if is_full(&error) => break,
            Err(error) => return Err(error).with_context(|| format!("write {}", path.display())),
        }
    }
    let all = noted.len == len;
    if sync || !all {
        file.sync_all().with_context(|| format!("{} was accepted and cannot be synced", path.display()))?;
    }
    Ok(all)
}
