//! What people do in a mount: unpack trees, git, rsync, SQLite, builds.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::{Run, Tally};
use crate::served::{Served, Up};
use crate::{shell, tree};

/// A process that keeps a descriptor per file it has seen has more.
const DESCRIPTORS_MAX: usize = 500;

/// Files per folder of the generated tree.
const FILES_PER_FOLDER: u64 = 100;

type Job = (&'static str, fn(&Run, &Path, &Path) -> anyhow::Result<()>);

const JOBS: &[Job] = &[
    ("untar", untar),
    ("rsync", rsync),
    ("cp and ls", copy),
    ("git", git),
    ("SQLite, delete mode", sqlite_delete),
    ("SQLite, WAL mode", sqlite_wal),
    ("git clone", clone),
];

/// Does each job in one mount, then looks at everything again after a restart.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let scratch = run.scratch("real-work")?;
    let source = scratch.join("source");
    let files = run.count(5_000, 50_000);
    println!("real-work: making a tree of {files} files");
    make_tree(&source, files, run.seed)?;
    // The POSIX format keeps nanoseconds.
    let mut tar = Command::new("tar");
    tar.args(["--format=posix", "-C"]).arg(&scratch).arg("-cf").arg(scratch.join("source.tar")).arg("source");
    shell::run(&mut tar)?;
    let up = Up::in_folder(&scratch, run.count("4GiB", "24GiB"));
    let mut served = up.start()?;
    let mut tally = Tally::default();
    let mut jobs = JOBS.to_vec();
    if run.long {
        jobs.push(("cargo build", build));
    }
    for (name, job) in jobs {
        let began = std::time::Instant::now();
        match job(run, &scratch, served.mount()).and_then(|()| few_descriptors(&served)) {
            Ok(()) => {
                tally.passed += 1;
                println!("real-work: {name} right in {:.1} s", began.elapsed().as_secs_f64());
            }
            Err(error) => {
                tally.failed += 1;
                println!("real-work: {name} failed: {error:#}");
            }
        }
    }
    served.stop()?;
    up.fsck()?;
    served = up.start()?;
    match same(&source, &served.mount().join("source")) {
        Ok(()) => {
            tally.passed += 1;
            println!("real-work: the same after a restart");
        }
        Err(error) => {
            tally.failed += 1;
            println!("real-work: after a restart {error:#}");
        }
    }
    served.stop()?;
    Ok(tally)
}

/// Files of many sizes with content that depends on `seed`, symlinks and an executable in each folder.
pub fn make_tree(root: &Path, files: u64, seed: u64) -> anyhow::Result<()> {
    for number in 0..files {
        let folder = root.join(format!("{:03}", number / FILES_PER_FOLDER));
        if number % FILES_PER_FOLDER == 0 {
            fs::create_dir_all(&folder).context("make a folder")?;
            std::os::unix::fs::symlink("f1", folder.join("link")).context("make a symlink")?;
        }
        // Most are small, as in a source tree; some go beyond what is kept inline.
        let mixed = (number ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let len = if number % 20 == 0 { 4_000 + mixed % 60_000 } else { mixed % 3_000 };
        let line = format!("{mixed:016x} line of file {number}\n");
        let content: String = line.chars().cycle().take(len as usize).collect();
        let path = folder.join(format!("f{}", number % FILES_PER_FOLDER));
        fs::write(&path, content).context("write a file")?;
    }
    Ok(())
}

fn few_descriptors(served: &Served) -> anyhow::Result<()> {
    let open = served.open_descriptors()?;
    ensure!(open < DESCRIPTORS_MAX, "holdfast has {open} descriptors open: does it pin one per file?");
    Ok(())
}

/// Nothing differs: content, modes, owners, times and links.
fn same(left: &Path, right: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("rsync");
    command.args(["--archive", "--hard-links", "--checksum", "--dry-run", "--delete", "--itemize-changes"]);
    let differences =
        shell::read(command.arg(format!("{}/", left.display())).arg(format!("{}/", right.display())))?;
    let first: Vec<&str> = differences.lines().take(5).collect();
    ensure!(first.is_empty(), "these differ: {first:?}");
    Ok(())
}

fn untar(_: &Run, scratch: &Path, mount: &Path) -> anyhow::Result<()> {
    shell::read(Command::new("tar").arg("-C").arg(mount).arg("-xf").arg(scratch.join("source.tar")))?;
    same(&scratch.join("source"), &mount.join("source"))
}

fn rsync(_: &Run, scratch: &Path, mount: &Path) -> anyhow::Result<()> {
    let from = format!("{}/", scratch.join("source").display());
    shell::read(Command::new("rsync").args(["--archive", &from]).arg(mount.join("rsynced")))?;
    same(&scratch.join("source"), &mount.join("rsynced"))
}

fn copy(_: &Run, scratch: &Path, mount: &Path) -> anyhow::Result<()> {
    shell::read(Command::new("cp").arg("-a").arg(mount.join("source")).arg(mount.join("copied")))?;
    let left = shell::read(
        Command::new("ls").arg("-lR").arg("--time-style=full-iso").current_dir(scratch.join("source")),
    )?;
    let right = shell::read(
        Command::new("ls").arg("-lR").arg("--time-style=full-iso").current_dir(mount.join("copied")),
    )?;
    // Folders have other sizes here, so their lines and the totals are left out.
    let files = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.starts_with('d') && !line.starts_with("total"))
            .map(str::to_owned)
            .collect()
    };
    ensure!(files(&left) == files(&right), "`ls -lR` shows another tree after `cp -a`");
    same(&scratch.join("source"), &mount.join("copied"))
}

fn git(_: &Run, _: &Path, mount: &Path) -> anyhow::Result<()> {
    let run = |args: &[&str]| {
        let identity =
            ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "safe.directory=*"];
        let mut command = Command::new("git");
        shell::read(command.args(identity).args(args).current_dir(mount.join("rsynced")))
    };
    run(&["init", "--quiet"])?;
    run(&["add", "--all"])?;
    run(&["commit", "--quiet", "--message", "all"])?;
    run(&["repack", "-a", "-d", "-q"])?;
    run(&["fsck", "--strict", "--no-progress"])?;
    let changed = run(&["status", "--porcelain"])?;
    ensure!(changed.is_empty(), "git sees changes: {changed}");
    Ok(())
}

fn sqlite_delete(run: &Run, _: &Path, mount: &Path) -> anyhow::Result<()> {
    sqlite(run, mount, "delete")
}

fn sqlite_wal(run: &Run, _: &Path, mount: &Path) -> anyhow::Result<()> {
    sqlite(run, mount, "wal")
}

fn sqlite(run: &Run, mount: &Path, mode: &str) -> anyhow::Result<()> {
    let rows = run.count(20_000, 200_000);
    let database = mount.join(format!("{mode}.db"));
    let fill = format!(
        "PRAGMA journal_mode={mode}; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX i ON t(v);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<{rows}) INSERT INTO t SELECT x, hex(x*2654435761) FROM n;
         UPDATE t SET v = v || 'changed' WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0; VACUUM;"
    );
    shell::read(Command::new("sqlite3").arg(&database).arg(fill))?;
    // Many small transactions: each of them syncs.
    let small: String = (0..200).map(|id| format!("INSERT INTO t VALUES({}, 'x');", rows + 1 + id)).collect();
    shell::read(Command::new("sqlite3").arg(&database).arg(small))?;
    let verdict = shell::read(
        Command::new("sqlite3")
            .arg(&database)
            .arg("PRAGMA integrity_check; SELECT count(*) FROM t; PRAGMA journal_mode;"),
    )?;
    let wanted = format!("ok\n{}\n{mode}\n", rows - rows / 7 + 200);
    ensure!(verdict == wanted, "SQLite says {verdict:?}, not {wanted:?}");
    Ok(())
}

fn clone(_: &Run, _: &Path, mount: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("git");
    command.args(["-c", "safe.directory=*", "clone", "--quiet", "--no-hardlinks"]).arg(tree::root());
    shell::read(command.arg(mount.join("project")))?;
    shell::read(
        Command::new("git")
            .args(["-c", "safe.directory=*", "fsck", "--no-progress"])
            .current_dir(mount.join("project")),
    )?;
    Ok(())
}

fn build(_: &Run, _: &Path, mount: &Path) -> anyhow::Result<()> {
    let mut command = shell::cargo();
    command.args(["build", "--quiet"]).current_dir(mount.join("project")).env_remove("CARGO_TARGET_DIR");
    shell::run(&mut command)?;
    ensure!(mount.join("project/target/debug/holdfast").is_file(), "the build made no program");
    Ok(())
}
