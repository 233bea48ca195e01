//! Flips single bits of used bytes in a stopped data directory, one at a time, starts it and reads everything: what was
//! flipped must not come back as data, and where there is a second copy all of it is there and healed. `holdfast dump
//! --map` says which bytes are used.

mod copies;
mod files;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use files::{BLOCK, Files, Seen};

use super::{Run, Tally};
use crate::random::Random;
use crate::served::Up;
use crate::{shell, tree};

/// Every kind of region that there is, and what a flip in it may cost.
const KINDS: &[(&str, Cost)] = &[
    ("identity", Cost::Metadata),
    ("superblock", Cost::Metadata),
    ("journal", Cost::Metadata),
    ("checkpoint", Cost::Metadata),
    ("fragment header", Cost::Extent),
    ("fragment data", Cost::Blocks),
    ("log header", Cost::Metadata),
    ("log", Cost::Metadata),
    ("rows pointer", Cost::Metadata),
    ("rows manifest", Cost::Metadata),
    ("rows table", Cost::Metadata),
];

/// What is flipped where everything lies on two disks: the data. Of each extent one copy is read first, so that half
/// of the flips show nothing.
const KINDS_OF_TWO: &[(&str, Cost)] = &[("fragment header", Cost::Nothing), ("fragment data", Cost::Nothing)];

/// A flip that nothing reads shows nothing: so many are tried for each that is wanted.
const TRIES: u64 = 8;

/// The longest extent.
const EXTENT_MAX: u64 = 1 << 20;

/// Small logs, so that copies of the data directory are small.
const TUNING: &str = "raft_log_bytes=16777216,journal_bytes=8388608,segment_bytes=1048576";

/// What may be lost by a flip, at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cost {
    /// It is healed, or refused with a sentence.
    Metadata,
    /// The bytes of one extent are EIO.
    Extent,
    /// The block that it is in is EIO: two of a file's if they do not lie alike.
    Blocks,
    /// Another copy serves, and this one is made good.
    Nothing,
}

/// A line of the map.
#[derive(Clone, Debug, Deserialize)]
struct Range {
    file: PathBuf,
    at: u64,
    len: u64,
    kind: String,
    extent: Option<String>,
    durable: bool,
}

/// What a flip led to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Verdict {
    /// Nothing read it.
    Void,
    /// All is there, and the bytes were written anew.
    Healed,
    /// Whoever met it was told.
    Told,
    /// `up` does not start.
    Refused,
}

/// Flips bits in each kind of region on one disk, and then in data that has copies on two.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let mut tally = flip_kinds(run, 1, KINDS)?;
    tally.add(flip_kinds(run, 2, KINDS_OF_TWO)?);
    Ok(tally)
}

fn flip_kinds(run: &Run, copies: u32, kinds: &[(&str, Cost)]) -> anyhow::Result<Tally> {
    let scratch = run.scratch("flips")?;
    let (home, pristine) = (scratch.join("home"), scratch.join("pristine"));
    fs::create_dir(&home).context("make a folder")?;
    let mut up = Up::in_folder(&scratch, "300MiB");
    up.data = home.join("data");
    up.tuning = TUNING.into();
    if copies > 1 {
        copies::ask_for(&mut up, &home, copies);
    }
    let files = fill(&up, run.seed)?;
    let map = map(&up)?;
    fs::rename(&home, &pristine).context("set the data directory and its disks aside")?;
    let bench = Bench { up, home, pristine, files };
    let mut tally = Tally::default();
    for (kind, cost) in kinds {
        let ranges: Vec<&Range> = map.iter().filter(|range| range.kind == *kind).collect();
        let mut random = Random::new(run.seed.wrapping_add(ranges.len() as u64));
        match flip_some(&bench, &ranges, *cost, run.count(2, 20), &mut random) {
            Ok(seen) => {
                println!("flips: {kind} with {copies} copies: {seen:?}");
                tally.passed += 1;
            }
            Err(error) => {
                println!("flips: {kind} with {copies} copies and seed {} WRONG: {error:#}", run.seed);
                tally.failed += 1;
            }
        }
    }
    let unknown = map.iter().find(|range| !KINDS.iter().any(|(known, _)| *known == range.kind));
    ensure!(unknown.is_none(), "the map has a kind that is not tested: {unknown:?}");
    Ok(tally)
}

/// Flips until `wanted` flips were read.
fn flip_some(
    bench: &Bench,
    ranges: &[&Range],
    cost: Cost,
    wanted: u64,
    random: &mut Random,
) -> anyhow::Result<BTreeMap<Verdict, u64>> {
    ensure!(!ranges.is_empty(), "void: the map names no such region");
    let mut seen = BTreeMap::new();
    let mut read = 0;
    for _ in 0..wanted * TRIES {
        let range = ranges[random.below(ranges.len() as u64) as usize];
        let at = range.at + random.below(range.len);
        let bit = 1_u8 << random.below(8);
        let verdict = bench.flip(range, at, bit, cost).with_context(|| {
            format!("bit {bit:#04x} of byte {at} of {} ({range:?})", range.file.display())
        })?;
        *seen.entry(verdict).or_default() += 1;
        read += u64::from(verdict != Verdict::Void);
        if read == wanted {
            return Ok(seen);
        }
    }
    bail!("void: only {read} of {wanted} flips were read: {seen:?}")
}

/// Half of the files are followed by an orderly stop, the others by `kill -9`: index, rows and logs hold something.
fn fill(up: &Up, seed: u64) -> anyhow::Result<Files> {
    let mut files = Files::new(seed);
    let served = up.start()?;
    files.write(served.mount())?;
    served.stop()?;
    let served = up.start()?;
    files.write(served.mount())?;
    served.kill()?;
    crate::served::detach(&up.mount);
    Ok(files)
}

/// One flip after the other.
struct Bench {
    up: Up,
    /// Where the data directory and its disks are.
    home: PathBuf,
    /// What each flip starts from.
    pristine: PathBuf,
    files: Files,
}

fn map(up: &Up) -> anyhow::Result<Vec<Range>> {
    let mut dump = Command::new(tree::holdfast());
    dump.args(["dump", "--map", "--json", "--data"]).arg(&up.data);
    serde_json::from_str(&shell::read(&mut dump)?).context("read the map")
}

impl Bench {
    /// A copy of the data directory with one flip in it: the file, and what the byte is now.
    fn flipped(&self, range: &Range, at: u64, bit: u8) -> anyhow::Result<(PathBuf, u8)> {
        for leftover in [&self.home, &self.up.log] {
            shell::read(Command::new("rm").arg("-rf").arg(leftover))?;
        }
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--sparse=always"]).arg(&self.pristine).arg(&self.home);
        shell::read(&mut copy)?;
        let path = self.up.data.join(&range.file);
        let file = File::options().read(true).write(true).open(&path).context("open the file")?;
        let flipped = byte(&file, at)? ^ bit;
        file.write_all_at(&[flipped], at).context("flip")?;
        Ok((path, flipped))
    }

    /// One flip, and everything read.
    fn flip(&self, range: &Range, at: u64, bit: u8, cost: Cost) -> anyhow::Result<Verdict> {
        let (path, flipped) = self.flipped(range, at, bit)?;
        if cost == Cost::Nothing {
            return copies::heals(&self.up, &self.files);
        }
        let started = self.up.start();
        let mut seen = Seen::default();
        let refused = match started {
            Err(error) => Some(format!("{error:#}")),
            Ok(served) => {
                seen = self.files.read(served.mount())?;
                let stopped = served.stop();
                ensure!(stopped.is_ok() || cost == Cost::Metadata, "{:#}", stopped.unwrap_err());
                None
            }
        };
        let log = fs::read_to_string(&self.up.log).context("read what it said")?;
        ensure!(!log.contains("panicked"), "it panicked:\n{log}");
        if let Some(refused) = refused {
            ensure!(cost == Cost::Metadata, "data keeps it from starting: {refused}");
            return sentence(&log, &path).map(|()| Verdict::Refused);
        }
        if seen.is_all_right() {
            // A byte that is another one was written anew, and so is a file that has been replaced or cut.
            let now = File::open(&path).map(|file| byte(&file, at));
            return Ok(if matches!(now, Ok(Ok(now)) if now == flipped) {
                Verdict::Void
            } else {
                Verdict::Healed
            });
        }
        self.bearable(&seen, range, cost, &log)?;
        Ok(Verdict::Told)
    }

    /// The errors are no more than the flip may cost, and the log tells of them.
    fn bearable(&self, seen: &Seen, range: &Range, cost: Cost, log: &str) -> anyhow::Result<()> {
        let most = match cost {
            // Not known to have been durable, a fragment counts as half written and is taken back.
            Cost::Blocks if !range.durable => EXTENT_MAX + BLOCK,
            Cost::Metadata => {
                ensure!(log.contains("\"ERROR\""), "{seen:?}, and the log has no error:\n{log}");
                return Ok(());
            }
            Cost::Extent => EXTENT_MAX + BLOCK,
            Cost::Blocks => 2 * BLOCK,
            Cost::Nothing => 0,
        };
        ensure!(seen.refused.is_empty(), "names are lost to a flip of data: {seen:?}");
        ensure!(seen.unread.len() == 1, "more than one file is lost: {seen:?}");
        let extent = range.extent.as_deref().context("the map does not name the extent")?;
        for unread in &seen.unread {
            ensure!(unread.span() <= most, "{} bytes are lost, {most} are the most: {seen:?}", unread.span());
            let file = format!("\"ino\":{}", unread.ino);
            ensure!(
                log.lines().any(|line| line.contains(&file) && line.contains(&format!("extent {extent}"))),
                "no line of the log names {file} and extent {extent}:\n{log}"
            );
        }
        Ok(())
    }
}

fn byte(file: &File, at: u64) -> anyhow::Result<u8> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).context("read the byte")?;
    Ok(byte[0])
}

/// A refusal names what is damaged and is one line for people.
fn sentence(log: &str, path: &Path) -> anyhow::Result<()> {
    let said: Vec<&str> =
        log.lines().filter(|line| line.contains("\"ERROR\"") || !line.starts_with('{')).collect();
    let last = said.last().with_context(|| format!("it refused without a word:\n{log}"))?;
    let folders = path.ancestors().take(3).filter_map(|part| part.file_name()?.to_str());
    let named = folders.filter(|name| !name.is_empty()).any(|name| last.contains(name));
    ensure!(named, "it refused without naming {}: {last}", path.display());
    Ok(())
}
