//! Two copies on three disks: each way of losing a disk, and bytes that rot, with everything readable, writable and
//! healed again. A case whose fault never showed is void, and that is a failure.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Run, Tally};
use crate::crash::{Disk, Loss};
use crate::random::{Random, content};
use crate::served::{self, Served, Up};
use crate::{shell, tree};

/// How long a heal or a failure may take to show.
const SHOWN_WITHIN: Duration = Duration::from_secs(120);

/// Bytes of a file, and how many there are: a few runs of extents on every group.
const FILE_BYTES: usize = 3 << 20;
const FILES: u64 = 12;

/// Of each disk file.
const CAPACITY: &str = "300MiB";

/// Of the filesystem for the disk file that will fail: what `up` wants to stay free beside one is there too.
const FAILING_BYTES: u64 = 700 << 20;

type Case = (&'static str, fn(&Bench) -> anyhow::Result<()>);

const CASES: &[Case] = &[
    ("deleted while stopped, then a new one", deleted_then_new),
    ("deleted while stopped, then given up", deleted_then_failed),
    ("errors while running, then given up", errors_then_failed),
    ("rotten bytes", rotten),
];

/// Runs every case.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for (name, case) in CASES {
        let bench = Bench { scratch: run.scratch("replicas")?, seed: run.seed };
        let verdict = case(&bench);
        served::detach(&bench.scratch.join("mnt"));
        match verdict {
            Ok(()) => {
                println!("replicas: {name}: right");
                tally.passed += 1;
            }
            Err(error) => {
                println!("replicas: {name}: {error:#}");
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

struct Bench {
    scratch: PathBuf,
    seed: u64,
}

impl Bench {
    fn disk(&self, n: u32) -> PathBuf {
        self.scratch.join(format!("disk-{n}"))
    }

    fn up(&self, disks: &[PathBuf]) -> Up {
        let mut up = Up::in_folder(&self.scratch, CAPACITY);
        up.args.extend(["--redundancy".into(), "replica:2".into()]);
        for disk in disks {
            up.args.extend(["--disk".into(), disk.display().to_string()]);
        }
        up
    }

    fn write(&self, served: &Served, files: std::ops::Range<u64>) -> anyhow::Result<()> {
        for number in files {
            let file = File::create(served.mount().join(format!("f{number}"))).context("make a file")?;
            file.write_all_at(&content(self.seed ^ number, FILE_BYTES), 0).context("write")?;
            file.sync_all().context("sync")?;
        }
        Ok(())
    }

    fn read(&self, served: &Served, files: u64) -> anyhow::Result<()> {
        for number in 0..files {
            let bytes = fs::read(served.mount().join(format!("f{number}"))).context("read a file")?;
            ensure!(bytes == content(self.seed ^ number, FILE_BYTES), "file {number} has other content");
        }
        Ok(())
    }

    /// A healed start: the first files are on all three disks, and it is stopped again.
    fn healed(&self, disks: &[PathBuf]) -> anyhow::Result<Up> {
        let up = self.up(disks);
        let served = up.start()?;
        self.write(&served, 0..FILES)?;
        let status = served.status()?;
        ensure!(status["data"]["at_risk"] == false, "the data of a new directory is at risk: {status}");
        let used = |disk: &Value| disk["fragments"].as_u64().unwrap_or(0) > 0;
        ensure!(status["disks"].as_array().is_some_and(|disks| disks.iter().all(used)), "a disk is not used");
        served.stop()?;
        up.fsck()?;
        Ok(up)
    }
}

/// Waits until the status is as it should be.
fn shows(served: &Served, what: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    served.status_until(SHOWN_WITHIN, what, |status| Ok(is(status)))
}

fn at_risk(served: &Served) -> anyhow::Result<()> {
    let status = shows(served, "at risk", |status| status["data"]["at_risk"] == true)?;
    ensure!(
        status["why"].as_str().is_some_and(|why| why.contains("at risk")),
        "it does not say why: {status}"
    );
    Ok(())
}

/// Waits until all copies are there again; that they were being made has to be seen on the way.
fn healed(served: &Served) -> anyhow::Result<()> {
    let progress = Cell::new(false);
    let status = shows(served, "healed", |status| {
        let says = status["why"].as_str().is_some_and(|why| why.contains("slots are being filled"));
        progress.set(progress.get() || says && status["data"]["slots_filling"].as_u64() > Some(0));
        status["data"]["at_risk"] == false
    })?;
    ensure!(status["data"]["filled_bytes"].as_u64().unwrap_or(0) > 0, "nothing was copied: {status}");
    ensure!(progress.get(), "no progress was shown");
    Ok(())
}

fn fail(up: &Up, disk: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(tree::holdfast());
    command.args(["disk", "--data"]).arg(&up.data).arg("fail").arg(disk);
    shell::read(&mut command)?;
    Ok(())
}

fn deleted_then_new(bench: &Bench) -> anyhow::Result<()> {
    let disks: Vec<PathBuf> = (0..3).map(|n| bench.disk(n)).collect();
    let up = bench.healed(&disks)?;
    fs::remove_file(&disks[2]).context("delete a disk")?;
    let served = up.start()?;
    at_risk(&served)?;
    bench.read(&served, FILES)?;
    bench.write(&served, FILES..FILES + 4)?;
    served.stop()?;
    let up = bench.up(&[disks[0].clone(), disks[1].clone(), bench.disk(3)]);
    let served = up.start()?;
    healed(&served)?;
    bench.read(&served, FILES + 4)?;
    served.stop()?;
    up.fsck()
}

fn deleted_then_failed(bench: &Bench) -> anyhow::Result<()> {
    let disks: Vec<PathBuf> = (0..3).map(|n| bench.disk(n)).collect();
    let up = bench.healed(&disks)?;
    fs::remove_file(&disks[1]).context("delete a disk")?;
    let served = up.start()?;
    at_risk(&served)?;
    fail(&up, &disks[1])?;
    healed(&served)?;
    bench.read(&served, FILES)?;
    bench.write(&served, FILES..FILES + 4)?;
    served.stop()?;
    let up = bench.up(&[disks[0].clone(), disks[2].clone()]);
    up.fsck()?;
    let served = up.start()?;
    bench.read(&served, FILES + 4)?;
    served.stop()?;
    Ok(())
}

fn errors_then_failed(bench: &Bench) -> anyhow::Result<()> {
    let failing = Disk::new(&bench.scratch, FAILING_BYTES)?;
    let disks = [bench.disk(0), bench.disk(1), failing.folder().join("disk-2")];
    let up = bench.healed(&disks)?;
    let served = up.start()?;
    failing.cut(Loss::All, &mut Random::new(bench.seed))?;
    bench.write(&served, FILES..FILES + 8)?;
    at_risk(&served)?;
    bench.read(&served, FILES + 8)?;
    fail(&up, &disks[2])?;
    healed(&served)?;
    bench.read(&served, FILES + 8)?;
    bench.write(&served, FILES + 8..FILES + 10)?;
    served.stop()?;
    drop(failing);
    let up = bench.up(&disks[..2]);
    up.fsck()?;
    let served = up.start()?;
    bench.read(&served, FILES + 10)?;
    served.stop()?;
    Ok(())
}

/// A byte of every other file rots on the first disk that has it.
fn rotten(bench: &Bench) -> anyhow::Result<()> {
    let disks: Vec<PathBuf> = (0..3).map(|n| bench.disk(n)).collect();
    let up = bench.healed(&disks)?;
    let mut flips = 0;
    for disk in &disks {
        let mut bytes = fs::read(disk).context("read a disk")?;
        let file = File::options().write(true).open(disk).context("open a disk")?;
        for number in (0..FILES).step_by(2) {
            // The second block of each MiB of the file.
            let plain = content(bench.seed ^ number, FILE_BYTES);
            for at in (4096..FILE_BYTES).step_by(1 << 20) {
                let wanted = &plain[at..at + 4096];
                let Some(found) = bytes.chunks_exact(4096).position(|block| block == wanted) else {
                    continue;
                };
                let at = found * 4096 + 100;
                // One of the two copies stays good: which disk has lost which file's is told by its number.
                if number % 3 == disks.iter().position(|other| other == disk).unwrap_or(0) as u64 {
                    bytes[at] ^= 0x10;
                    file.write_all_at(&bytes[at..=at], at as u64).context("flip")?;
                    flips += 1;
                }
            }
        }
        file.sync_all().context("sync")?;
    }
    ensure!(flips > 0, "no byte of a file was found on the disks");
    let found = up.fsck();
    ensure!(found.is_err(), "fsck sees none of {flips} rotten copies");
    let served = up.start()?;
    let began = Instant::now();
    // A read takes one of the copies: it is read until each bad one was met.
    loop {
        bench.read(&served, FILES)?;
        let status = served.status()?;
        let repaired = status["data"]["repaired"].as_u64().unwrap_or(0);
        if repaired > 0 && status["data"]["bad_copies"] == status["data"]["repaired"] {
            break;
        }
        ensure!(began.elapsed() < SHOWN_WITHIN, "not repaired: {status}");
    }
    served.stop()?;
    Ok(())
}
