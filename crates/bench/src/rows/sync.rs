//! Writes that are made durable.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use super::{BLOCK, Numbers, p50_us, rate, timed};
use crate::row::{At, Done};
use crate::subject::Subject;

const CHUNK: usize = 1 << 20;

/// Writes the file whose blocks are overwritten.
pub(crate) fn prepare_overwrite(at: &At<'_>) -> Done<()> {
    let chunk = Numbers::new(2).bytes(CHUNK);
    let mut file = File::create(at.dir.join("file"))?;
    for _ in 0..at.scale.overwrite_bytes / CHUNK as u64 {
        at.go_on()?;
        file.write_all(&chunk)?;
    }
    Ok(file.sync_all()?)
}

/// Microseconds of a pwrite and an fdatasync; of the raw flush, of a pwrite with O_DSYNC.
pub(crate) fn overwrite(at: &At<'_>) -> Done<f64> {
    let raw = at.subject == Subject::Raw;
    let flags = if raw { libc::O_DSYNC } else { 0 };
    let file = OpenOptions::new().write(true).custom_flags(flags).open(at.dir.join("file"))?;
    let mut numbers = Numbers::new(at.round + 1);
    let block = numbers.bytes(BLOCK);
    let blocks = at.scale.overwrite_bytes / BLOCK as u64;
    let calls = each(at, |_| {
        file.write_all_at(&block, numbers.below(blocks) * BLOCK as u64)?;
        if raw { Ok(()) } else { Ok(file.sync_data()?) }
    })?;
    Ok(p50_us(&calls))
}

/// Microseconds of a write at the end of a growing file and an fsync.
pub(crate) fn append(at: &At<'_>) -> Done<f64> {
    let path = at.dir.join("log");
    let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
    let block = Numbers::new(3).bytes(BLOCK);
    let calls = each(at, |_| {
        file.write_all(&block)?;
        Ok(file.sync_all()?)
    })?;
    drop(file);
    fs::remove_file(path)?;
    Ok(p50_us(&calls))
}

/// Megabytes per second of a file that is written from its start to its end and then made durable.
pub(crate) fn big_file(at: &At<'_>) -> Done<f64> {
    let path = at.dir.join("big");
    let chunk = Numbers::new(4).bytes(CHUNK);
    let mut file = File::create_new(&path)?;
    let took = timed(|| {
        for _ in 0..at.scale.big_bytes / CHUNK as u64 {
            at.go_on()?;
            file.write_all(&chunk)?;
        }
        Ok(file.sync_all()?)
    })?;
    drop(file);
    fs::remove_file(path)?;
    Ok(rate(at.scale.big_bytes, took) / 1e6)
}

/// Microseconds from open to close of a small file that is durable before it is closed.
pub(crate) fn small_files(at: &At<'_>) -> Done<f64> {
    let dir = at.dir.join(format!("round-{}", at.round));
    fs::create_dir(&dir)?;
    let content = Numbers::new(5).bytes(1024);
    let calls = each(at, |number| {
        let mut file = File::create_new(dir.join(format!("file-{number}")))?;
        file.write_all(&content)?;
        Ok(file.sync_all()?)
    })?;
    fs::remove_dir_all(dir)?;
    Ok(p50_us(&calls))
}

fn each(at: &At<'_>, mut call: impl FnMut(u64) -> Done<()>) -> Done<Vec<Duration>> {
    let mut calls = Vec::new();
    for number in 0..at.scale.syncs {
        at.go_on()?;
        let start = Instant::now();
        call(number)?;
        calls.push(start.elapsed());
    }
    Ok(calls)
}
