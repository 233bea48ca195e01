//! A filesystem below the data directory that is full: before the start, and while it runs.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::fs::FallocateFlags;

use super::{Bench, Case, Refusal, refused};
use crate::served::{self, Served, Up};
use crate::shell;

/// The cases.
pub const CASES: &[Case] = &[
    Case { name: "the data directory's filesystem is full at the first start", run: full_at_start },
    Case { name: "the data directory's filesystem becomes full", run: full_while_running },
];

/// How long writers go on before the running program has to have noticed.
const NOTICED_WITHIN: Duration = Duration::from_secs(90);

/// Mounts a new ext4 of `bytes` on `scratch/disk`.
fn small_filesystem(bench: &Bench, bytes: u64) -> anyhow::Result<()> {
    let image = bench.scratch.join("image");
    let mount = bench.scratch.join("disk");
    File::create(&image).context("make an image")?.set_len(bytes).context("size it")?;
    fs::create_dir(&mount).context("make a folder")?;
    shell::read(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
    shell::read(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount))?;
    Ok(())
}

/// Takes every byte of the filesystem.
fn fill(folder: &Path) -> anyhow::Result<()> {
    let stat = rustix::fs::statvfs(folder).context("see what is free")?;
    let filler = File::create(folder.join("filler")).context("make the filler")?;
    let mut at = 0;
    // The filler's own metadata needs space too: ask for less until nothing is left to ask for.
    let mut piece = stat.f_bavail * stat.f_frsize;
    while piece >= stat.f_frsize {
        match rustix::fs::fallocate(&filler, FallocateFlags::empty(), at, piece) {
            Ok(()) => at += piece,
            Err(rustix::io::Errno::NOSPC) => piece /= 2,
            Err(error) => return Err(error).context("take the space"),
        }
    }
    Ok(())
}

fn up(bench: &Bench) -> Up {
    let mut up = bench.up();
    up.data = bench.scratch.join("disk/data");
    up
}

fn full_at_start(bench: &Bench) -> anyhow::Result<()> {
    small_filesystem(bench, 256 << 20)?;
    let up = up(bench);
    fs::create_dir(&up.mount).context("make the mount point")?;
    let disk = bench.scratch.join("disk");
    let verdict = refused(
        up.command(),
        &Refusal { says: &[&["space", "free", "room", "full"]], usage: false, keeps: &[&disk] },
    );
    served::detach(&disk);
    verdict
}

fn full_while_running(bench: &Bench) -> anyhow::Result<()> {
    small_filesystem(bench, 5 << 30)?;
    let disk = bench.scratch.join("disk");
    let verdict = stays_readable(bench, &disk);
    served::detach(&disk);
    verdict
}

fn stays_readable(bench: &Bench, disk: &Path) -> anyhow::Result<()> {
    let mut up = up(bench);
    // Rows are synced often, so that they need space soon.
    up.tuning = "beat_commands=200,beat_ms=200".into();
    let served = up.start()?;
    fs::write(served.mount().join("early"), "early").context("write while there is space")?;
    fill(disk)?;
    let acknowledged = write_until_refused(&served)?;
    let status = served.status().context("ask for the status")?;
    ensure!(status["state"] == "read-only", "its state is {}, not read-only", status["state"]);
    ensure!(status["why"].as_str().is_some_and(|why| !why.is_empty()), "it does not say why it is read-only");
    let early = fs::read_to_string(served.mount().join("early")).context("read while it is read-only")?;
    ensure!(early == "early", "an early file reads {early:?}");
    // However it stops, nothing that was acknowledged is lost.
    served.kill()?;
    fs::remove_file(disk.join("filler")).context("make space")?;
    let served = up.start().context("start again with space")?;
    for number in 0..acknowledged {
        let text =
            fs::read_to_string(served.mount().join(format!("n{number}"))).context("read what was synced")?;
        ensure!(text == number.to_string(), "file {number} reads {text:?}");
    }
    fs::write(served.mount().join("late"), "late").context("write again")?;
    served.stop()?;
    up.fsck()
}

/// Writes and syncs small files until one is refused; returns how many were acknowledged.
fn write_until_refused(served: &Served) -> anyhow::Result<u64> {
    let began = Instant::now();
    for number in 0.. {
        let path = served.mount().join(format!("n{number}"));
        let written = File::create(path).and_then(|mut file| {
            file.write_all(number.to_string().as_bytes()).and_then(|()| file.sync_all())
        });
        if written.is_err() {
            return Ok(number);
        }
        ensure!(began.elapsed() < NOTICED_WITHIN, "{number} files were synced and it noticed nothing");
    }
    unreachable!("the range has no end")
}
