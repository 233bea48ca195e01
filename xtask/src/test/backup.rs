//! Stage `backup`: the metadata are backed up under load and restored over the same disks, twice.

mod dumps;
mod files;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Run, Tally};
use crate::served::{Served, Up, number};
use crate::{shell, tree};
use dumps::Used;
use files::{Damage, Files};

/// Reclaim of what was deleted takes no longer than this.
const RECLAIMED_WITHIN: Duration = Duration::from_secs(60);

/// Runs the stage.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let scratch = run.scratch("backup")?;
    let up = Up::in_folder(&scratch, "1GiB");
    let (early, late) = (scratch.join("early.backup"), scratch.join("late.backup"));

    let mut files = Files::new(run.seed, run.count(90, 2_000));
    let served = up.start()?;
    files.write_all(served.mount())?;
    under_load(&served, || backup(&up, &early).context("back up under load"))?;
    let at_early = files.clone();
    let full = fragments(&served)?;
    // A third is as it was, a third is overwritten, a third is gone, and others are new.
    files.change(served.mount())?;
    wait_until_freed(&served, full)?;
    backup(&up, &late)?;
    refused(&up, &early, &["in use"]).context("restore into a running one")?;
    served.stop()?;
    up.fsck()?;
    let used = Used::read(&up)?;
    refusals(&up, &scratch, &early)?;
    ensure!(Used::read(&up)? == used, "a refused restore has changed something");

    // The early one: files that were not touched are whole, the others are as they were or named.
    let named = restore(&up, &early)?;
    ensure!(
        !named.is_empty(),
        "the extents of overwritten files were freed, and no file is said to lack any"
    );
    let found = fsck(&up)?;
    let back = Used::read(&up)?;
    ensure!(found.damaged_files == named, "fsck names {:?}, restore {named:?}", found.damaged_files);
    ensure!(found.others.is_empty(), "fsck finds more than lost data: {:?}", found.others);
    let served = up.start()?;
    at_early.compare(served.mount(), &named, Damage::Allowed(&files))?;
    Files::new(run.seed + 1, 30).write_all_in(served.mount(), "new")?;
    let gone = number(&served.status()?, "/mounts/0/reclaimed_extents")?;
    for name in &named {
        fs::remove_file(served.mount().join(name)).with_context(|| format!("delete the damaged {name}"))?;
    }
    wait_until_reclaimed(&served, gone + found.lacking)?;
    served.stop()?;
    up.fsck().context("after the damaged files were deleted")?;
    let then = Used::read(&up)?;
    then.is_above(&[&used, &back])?;
    then.still_has(&used)?;

    // The late one after that: what it names was kept, so all of it is there.
    let named = restore(&up, &late)?;
    ensure!(named.is_empty(), "the late backup lacks {named:?}");
    up.fsck()?;
    let served = up.start()?;
    files.compare(served.mount(), &[], Damage::None)?;
    ensure!(!served.mount().join("new").exists(), "a folder is there that was made after the backup");
    Files::new(run.seed + 2, 30).write_all_in(served.mount(), "newer")?;
    served.stop()?;
    up.fsck()?;
    let last = Used::read(&up)?;
    last.is_above(&[&used, &back, &then])?;
    Ok(Tally::ONE)
}

/// Does something while others write, make and delete files below the mount.
fn under_load(served: &Served, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let folder = served.mount().join("load");
    fs::create_dir(&folder).context("make a folder")?;
    let (stop, rounds) = (AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| -> anyhow::Result<()> {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                let path = folder.join(format!("{}", round % 7));
                fs::write(&path, vec![round as u8; 300_000]).context("write under load")?;
                fs::rename(&path, folder.join("renamed")).context("rename under load")?;
                round += 1;
                rounds.store(round, Ordering::Relaxed);
            }
            Ok(())
        });
        let done = || {
            while rounds.load(Ordering::Relaxed) < 20 && !load.is_finished() {
                std::thread::yield_now();
            }
            work()
        };
        let worked = done();
        stop.store(true, Ordering::Relaxed);
        let loaded = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
        worked.and(loaded)
    })
}

fn backup(up: &Up, file: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(tree::holdfast());
    shell::read(command.args(["metadata", "backup"]).arg(file).arg("--data").arg(&up.data))?;
    Ok(())
}

/// Restores, and answers the files that are said to lack data, without the leading slash, sorted.
fn restore(up: &Up, file: &Path) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new(tree::holdfast());
    let text = shell::read(command.args(["metadata", "restore"]).arg(file).arg("--data").arg(&up.data))?;
    let kept = text.lines().find_map(|line| line.split_once("are kept in ")).context("nothing is kept")?.1;
    ensure!(Path::new(kept).join("raft.log").is_file(), "the replaced metadata are not in {kept}");
    let mut named: Vec<String> =
        text.lines().filter_map(|line| line.strip_prefix("damaged: ")).map(name).collect();
    named.sort();
    Ok(named)
}

/// The file that a line about damage names.
fn name(line: &str) -> String {
    line.split_once(": ").map_or(line, |(path, _)| path).trim_start_matches('/').to_string()
}

/// What `fsck` says.
struct Found {
    damaged_files: Vec<String>,
    /// Extents without data.
    lacking: u64,
    /// Problems that are not about extents without data.
    others: Vec<String>,
}

fn fsck(up: &Up) -> anyhow::Result<Found> {
    let mut command = Command::new(tree::holdfast());
    let output = command.args(["fsck", "--json", "--data"]).arg(&up.data).output().context("run fsck")?;
    let found: Value = serde_json::from_slice(&output.stdout).context("read what fsck says")?;
    let list = |field: &str| -> anyhow::Result<Vec<String>> {
        let list = found[field].as_array().with_context(|| format!("fsck lists no {field}"))?;
        Ok(list.iter().filter_map(|text| text.as_str().map(str::to_string)).collect())
    };
    let mut damaged_files: Vec<String> = list("damaged_files")?.iter().map(|line| name(line)).collect();
    damaged_files.sort();
    let (lacking, others): (Vec<String>, Vec<String>) =
        list("problems")?.into_iter().partition(|text| text.contains("of a live extent cannot be read"));
    Ok(Found { damaged_files, lacking: lacking.len() as u64, others })
}

fn fragments(served: &Served) -> anyhow::Result<u64> {
    number(&served.status()?, "/disks/0/fragments")
}

/// Waits until fragments of what was overwritten and deleted are gone: else nothing would be lost.
fn wait_until_freed(served: &Served, before: u64) -> anyhow::Result<()> {
    served.status_until(RECLAIMED_WITHIN, &format!("less than {before} fragments"), |status| {
        Ok(number(status, "/disks/0/fragments")? < before)
    })?;
    Ok(())
}

/// Waits until so many extents went, and none is about to: until then a deleted file's have rows.
fn wait_until_reclaimed(served: &Served, extents: u64) -> anyhow::Result<()> {
    served.status_until(RECLAIMED_WITHIN, &format!("{extents} extents reclaimed"), |status| {
        let mount = |field: &str| number(status, &format!("/mounts/0/{field}"));
        let more = mount("pending_commands")? + mount("to_reclaim_bytes")? > 0;
        Ok(mount("reclaimed_extents")? >= extents && !more)
    })?;
    Ok(())
}

/// A restore that has to be refused, with a sentence that holds each of these.
fn refused(up: &Up, file: &Path, says: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(tree::holdfast());
    let command = command.args(["metadata", "restore"]).arg(file).arg("--data").arg(&up.data);
    let output = command.output().context("run the restore")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it was not refused");
    ensure!(said.lines().count() == 1, "it is not told in one line: {said}");
    let missing: Vec<_> = says.iter().filter(|word| !said.contains(**word)).collect();
    ensure!(missing.is_empty(), "it does not say {missing:?}: {said}");
    Ok(())
}

fn refusals(up: &Up, scratch: &Path, good: &Path) -> anyhow::Result<()> {
    let whole = fs::read(good).context("read the backup")?;
    let bad = scratch.join("bad.backup");
    let with = |bytes: &[u8], says: &[&str]| {
        fs::write(&bad, bytes).context("write a bad backup")?;
        refused(up, &bad, says).with_context(|| format!("a backup that says {says:?}"))
    };
    for at in [20, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        with(&flipped, &["damaged", "use another backup"])?;
    }
    with(&whole[..whole.len() / 2], &["cut off"])?;
    with(b"a thesis", &["not a backup"])?;
    let other = Up { data: scratch.join("other"), ..up.clone() };
    other.start()?.stop()?;
    refused(&other, good, &["backup of the cluster"])?;
    fs::remove_dir_all(&other.data).context("remove the other data directory")?;
    refused(up, &scratch.join("none"), &["none"])
}
