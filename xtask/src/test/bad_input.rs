//! Bad input: one clear sentence, an exit code other than 0, and nothing changed.

mod cases;
mod full;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::{Run, Tally};
use crate::served::{Up, is_mounted};
use crate::shell;

/// A refusal takes no longer.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);

/// A refusal is one sentence; only a usage error may add how the command is used.
const SENTENCE_LINES_MAX: usize = 1;
const USAGE_LINES_MAX: usize = 8;

/// One thing that a user may get wrong.
pub struct Case {
    /// What it is, in a few words.
    pub name: &'static str,
    /// Gets it wrong in an empty folder.
    pub run: fn(&Bench) -> anyhow::Result<()>,
}

/// Where a case happens.
pub struct Bench {
    /// The case's own folder.
    pub scratch: PathBuf,
}

impl Bench {
    /// The `up` that would be right, with the smallest capacity.
    pub fn up(&self) -> Up {
        Up::in_folder(&self.scratch, "1GiB")
    }

    /// A data directory that was in use and stopped, with one file in it.
    pub fn used(&self) -> anyhow::Result<Up> {
        let up = self.up();
        let served = up.start()?;
        fs::write(served.mount().join("kept"), "kept").context("write a file")?;
        served.stop()?;
        Ok(up)
    }
}

/// How a refused command has to sound.
pub struct Refusal<'a> {
    /// Its message has to hold one word of each group.
    pub says: &'a [&'a [&'a str]],
    /// Whether it may add lines about its usage.
    pub usage: bool,
    /// Nothing below these may change.
    pub keeps: &'a [&'a Path],
}

/// Runs `command`, which has to be refused, and checks all that a refusal promises.
pub fn refused(mut command: Command, refusal: &Refusal<'_>) -> anyhow::Result<()> {
    let before = refusal.keeps.iter().map(|path| picture(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let output = finish(&mut command)?;
    let text = shell::printed(&output);
    ensure!(!output.status.success(), "it was accepted: {text:?}");
    ensure!(output.status.code().is_some(), "it died: {}; {text}", output.status);
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(!message.contains("panicked"), "it panicked: {message}");
    let lines = message.lines().filter(|line| !line.trim().is_empty()).count();
    let most = if refusal.usage { USAGE_LINES_MAX } else { SENTENCE_LINES_MAX };
    ensure!((1..=most).contains(&lines), "{lines} lines where at most {most} are right: {message}");
    let lower = message.to_lowercase();
    for group in refusal.says {
        ensure!(
            group.iter().any(|word| lower.contains(word)),
            "the message speaks of none of {group:?}: {message}"
        );
    }
    for (path, before) in refusal.keeps.iter().zip(before) {
        let after = picture(path)?;
        ensure!(before == after, "{} was changed: {}", path.display(), difference(&before, &after));
    }
    Ok(())
}

/// Waits for the end, but not for ever: what should be refused might serve.
fn finish(command: &mut Command) -> anyhow::Result<Output> {
    use std::process::Stdio;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{}`", shell::shown(command)))?;
    let began = Instant::now();
    while child.try_wait().context("wait for the refusal")?.is_none() {
        if began.elapsed() > REFUSED_WITHIN {
            child.kill().context("stop what was not refused")?;
            child.wait().context("wait for its end")?;
            bail!("`{}` was not refused within {REFUSED_WITHIN:?}", shell::shown(command));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().context("read what it printed")
}

/// What a file is: kind and mode, length, time of the last change, and content if it is small.
type Picture = BTreeMap<PathBuf, (u32, u64, i64, i64, Vec<u8>)>;

/// The lock of a data directory.
const LOCK: &str = "LOCK";

/// Files up to this length are compared by content, longer ones by the time of their change.
const CONTENT_MAX: u64 = 1 << 20;

fn picture(path: &Path) -> anyhow::Result<Picture> {
    let mut picture = Picture::new();
    let mut next = vec![path.to_owned()];
    while let Some(path) = next.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if path.file_name().is_some_and(|name| name == LOCK) && meta.is_file() {
            // Whoever holds it writes who he is; what counts is whether it is there.
            picture.insert(path, (meta.mode(), 0, 0, 0, Vec::new()));
            continue;
        }
        let mut content = Vec::new();
        if meta.is_dir() && !is_mounted(&path) {
            for entry in fs::read_dir(&path).with_context(|| format!("list {}", path.display()))? {
                next.push(entry.context("read an entry")?.path());
            }
        } else if meta.is_file() && meta.len() <= CONTENT_MAX {
            content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        }
        picture.insert(path, (meta.mode(), meta.len(), meta.mtime(), meta.mtime_nsec(), content));
    }
    Ok(picture)
}

fn difference(before: &Picture, after: &Picture) -> String {
    let mut paths: Vec<String> = after
        .iter()
        .filter(|(path, what)| before.get(*path) != Some(what))
        .map(|(path, _)| path.display().to_string())
        .collect();
    paths.extend(
        before
            .keys()
            .filter(|path| !after.contains_key(*path))
            .map(|path| format!("{} (gone)", path.display())),
    );
    paths.join(", ")
}

/// Runs every case in a folder of its own.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for case in cases::CASES.iter().chain(full::CASES) {
        let bench = Bench { scratch: run.scratch("bad-input")? };
        match (case.run)(&bench) {
            Ok(()) => {
                tally.passed += 1;
                println!("bad-input: {} right", case.name);
            }
            Err(error) => {
                tally.failed += 1;
                println!("bad-input: {} WRONG: {error:#}", case.name);
            }
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::{Refusal, picture, refused};
    use std::process::Command;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_refusal_is_one_sentence_and_an_exit_code() {
        let says: &[&[&str]] = &[&["full", "space"]];
        let right = Refusal { says, usage: false, keeps: &[] };
        assert!(refused(sh("echo No space here. >&2; exit 2"), &right).is_ok());
        for wrong in [
            "echo No space here. >&2",
            "exit 2",
            "echo What >&2; exit 2",
            "echo No space >&2; echo here >&2; exit 2",
            "echo space panicked >&2; exit 2",
            "echo space >&2; kill -9 $$",
        ] {
            assert!(refused(sh(wrong), &right).is_err(), "{wrong}");
        }
    }

    #[test]
    fn changes_below_a_kept_folder_are_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a"), "1").expect("write");
        let keeps: &[&std::path::Path] = &[folder.path()];
        let refusal = Refusal { says: &[], usage: false, keeps };
        let command = |script: &str| {
            let mut command = sh(&format!("echo no >&2; {script}; exit 1"));
            command.current_dir(folder.path());
            command
        };
        assert!(refused(command("cat a"), &refusal).is_ok());
        assert!(refused(command("echo 2 > a"), &refusal).is_err());
        assert!(refused(command("touch b"), &refusal).is_err());
        assert!(refused(command("rm a"), &refusal).is_err());
        assert!(picture(folder.path()).expect("a picture").len() > 1);
    }
}
