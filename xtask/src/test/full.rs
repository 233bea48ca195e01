//! A full disk: what does not fit is refused when it is written, what was there stays, and what is deleted comes back.

mod files;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use files::{Files, is_full};

use super::{Run, Tally};
use crate::random::content;
use crate::served::{Served, Up};
use crate::shell;

const MIB: u64 = 1 << 20;

/// Of a file that is written through a mapping: bytes that are there before, and its length, of which the rest is a hole.
const THERE: u64 = 64 << 10;
const MAPPED: u64 = 32 * MIB;

/// Of what was set aside, so much can be written for sure, of 100. The rest shares what always stays free for
/// compaction with all other writes, and may be refused as they are: at write(2).
const SURE_PERCENT: u64 = 97;

/// What is stored through the mapping.
const STORED: u8 = b'm';

/// Maps a file, stores bytes, and syncs them in both ways; prints each refusal with its errno.
const STORE: &str = r#"
import mmap, os, sys
path, at, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
file = os.open(path, os.O_RDWR)
view = mmap.mmap(file, 0)
view[at:at + length] = b"m" * length
for name, sync in (("msync", view.flush), ("fsync", lambda: os.fsync(file))):
    try:
        sync()
    except OSError as error:
        print(name, error.errno)
"#;

type Case = (&'static str, fn(&Bench) -> anyhow::Result<()>);

const CASES: &[Case] = &[("writes", writes), ("stores through mmap", stores), ("fallocate", allocations)];

/// Each case fills a disk of its own.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for (name, case) in CASES {
        let up = Up::in_folder(&run.scratch("full")?, run.count("300MiB", "10GiB"));
        let began = Instant::now();
        match case(&Bench { up, seed: run.seed }) {
            Ok(()) => {
                println!("full: {name} right in {:.1} s", began.elapsed().as_secs_f64());
                tally.passed += 1;
            }
            Err(error) => {
                println!("full: {name} with seed {} WRONG: {error:#}", run.seed);
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

struct Bench {
    up: Up,
    seed: u64,
}

impl Bench {
    /// Checks everything after a restart and once more offline.
    fn restart(&self, served: Served) -> anyhow::Result<Served> {
        served.stop()?;
        self.up.fsck()?;
        self.up.start()
    }
}

fn was_full(served: &Served, empty: u64) -> anyhow::Result<()> {
    let left = served.free()?;
    ensure!(left < empty / 20, "writes were refused with {left} of {empty} bytes free");
    Ok(())
}

/// Many files of all sizes, and changes of those that are there.
fn writes(bench: &Bench) -> anyhow::Result<()> {
    let mut served = bench.up.start()?;
    let empty = served.free()?;
    let mut files = Files::new(bench.seed);
    files.fill(served.mount())?;
    was_full(&served, empty)?;
    files.change(served.mount())?;
    files.sync(served.mount())?;
    files.check(served.mount())?;
    served = bench.restart(served)?;
    files.check(served.mount())?;
    files.remove_half(served.mount())?;
    files.check(served.mount())?;
    files.fill(served.mount())?;
    files.sync(served.mount())?;
    files.check(served.mount())?;
    files.remove(served.mount())?;
    served.wait_for_space(empty)?;
    served.stop()?;
    bench.up.fsck()
}

/// Stores what there is no room for.
fn stores(bench: &Bench) -> anyhow::Result<()> {
    let mut served = bench.up.start()?;
    let empty = served.free()?;
    let path = bench.up.mount.join("mapped");
    let there = content(bench.seed, THERE as usize);
    let file = File::create(&path).context("make a file")?;
    file.write_all_at(&there, 0).context("write")?;
    file.set_len(MAPPED).context("make a hole")?;
    file.sync_all().context("sync")?;
    drop(file);
    let mut files = Files::new(bench.seed);
    files.fill(served.mount())?;
    was_full(&served, empty)?;
    let refusals = store(&path, THERE, MAPPED - THERE)?;
    let told = |refusal: &str| refusal.ends_with(&format!(" {}", Errno::NOSPC.raw_os_error()));
    ensure!(
        !refusals.is_empty() && refusals.lines().all(told),
        "{MAPPED} bytes were stored on a full disk; refused were: {refusals:?}"
    );
    files.sync(served.mount())?;
    served = bench.restart(served)?;
    files.check(served.mount())?;
    let read = fs::read(&path).context("read what was stored")?;
    ensure!(read[..THERE as usize] == there, "what was there before the stores is gone");
    let whole = |page: &[u8]| page.iter().all(|byte| *byte == 0) || page.iter().all(|byte| *byte == STORED);
    ensure!(read[THERE as usize..].chunks(4096).all(whole), "a page is neither what was stored nor a hole");
    files.remove(served.mount())?;
    fs::remove_file(&path).context("remove")?;
    served.wait_for_space(empty)?;
    served.stop()?;
    bench.up.fsck()
}

/// What was refused; a store that kills who does it is an error.
fn store(path: &Path, at: u64, len: u64) -> anyhow::Result<String> {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", STORE]).arg(path).args([at.to_string(), len.to_string()]);
    shell::read(&mut command).context("store through a mapping")
}

/// Room that was set aside is there when nothing else is.
fn allocations(bench: &Bench) -> anyhow::Result<()> {
    let mut served = bench.up.start()?;
    let empty = served.free()?;
    let path = bench.up.mount.join("reserved");
    let file = File::create(&path).context("make a file")?;
    let (mut len, mut piece) = (0, 16 * MIB);
    while piece >= 4096 {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), len, piece) {
            Ok(()) => len += piece,
            Err(Errno::NOSPC) => piece /= 2,
            Err(errno) => return Err(errno).context("set room aside"),
        }
    }
    ensure!(len > empty / 10 * 9, "room was refused after {len} of {empty} bytes");
    let now = file.metadata().context("ask for its length")?.len();
    ensure!(now == len, "it has {now} bytes after {len} were set aside: did a refusal leave something?");
    let refused = takes(&bench.up.mount.join("other"), empty / 20, bench.seed)?;
    ensure!(refused, "another file takes bytes that were set aside");
    let refusals = store(&path, 0, MIB)?;
    ensure!(refusals.is_empty(), "a store where room was set aside was refused: {refusals}");
    let bytes = content(bench.seed, MIB as usize);
    let mut written = 1;
    while written < len / MIB {
        match file.write_at(&bytes, written * MIB) {
            Ok(now) if now == bytes.len() => written += 1,
            Ok(_) => break,
            Err(error) if is_full(&error) => break,
            Err(error) => return Err(error).context("write where room was set aside"),
        }
    }
    let sure = len * SURE_PERCENT / 100 / MIB;
    ensure!(written >= sure, "of {} MiB that were set aside only {written} can be written", len / MIB);
    file.sync_all().context("sync what room was set aside for")?;
    drop(file);
    served = bench.restart(served)?;
    let file = File::open(&path).context("open it again")?;
    let mut read = vec![0; MIB as usize];
    for number in 0..written {
        file.read_exact_at(&mut read, number * MIB).context("read it again")?;
        let right = if number == 0 { read.iter().all(|byte| *byte == STORED) } else { read == bytes };
        ensure!(right, "MiB {number} is not what was written");
    }
    drop(file);
    fs::remove_file(&path).context("remove")?;
    fs::remove_file(bench.up.mount.join("other")).context("remove")?;
    served.wait_for_space(empty)?;
    served.stop()?;
    bench.up.fsck()
}

/// Whether a new file is refused bytes at the latest after `most`; what it took can be synced.
fn takes(path: &Path, most: u64, seed: u64) -> anyhow::Result<bool> {
    let bytes = content(seed, 64 << 10);
    let file = File::create(path).context("make another file")?;
    let mut at = 0;
    let mut refused = false;
    while at < most && !refused {
        match file.write_at(&bytes, at) {
            Ok(written) => at += written as u64,
            Err(error) if is_full(&error) => refused = true,
            Err(error) => return Err(error).context("write another file"),
        }
    }
    file.sync_all().context("what was accepted cannot be synced")?;
    Ok(refused)
}
