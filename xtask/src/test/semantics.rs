//! What docs/SEMANTICS.md promises to applications, asked of a real mount: one small test for each sentence that no
//! other test guards.

mod data;
mod directories;
mod durable;
mod errors;
mod lists;
mod sparse;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::{Run, Tally};
use crate::served::Up;
use crate::shell;

/// Where a test works.
pub struct Place {
    /// A folder of its own in the mount, which everybody may enter and change.
    pub dir: PathBuf,
    /// A folder of its own on another filesystem.
    pub elsewhere: PathBuf,
    /// Full counts.
    pub long: bool,
}

impl Place {
    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// One test: its name, and what it does.
type Behaviour = (&'static str, fn(&Place) -> anyhow::Result<()>);

/// One test of what a `kill -9` leaves: its name, what is done before and what is looked at after.
type Survival = (&'static str, fn(&Place) -> anyhow::Result<()>, fn(&Place) -> anyhow::Result<()>);

const BEHAVIOURS: &[&[Behaviour]] = &[data::ALL, directories::ALL, errors::ALL, lists::ALL, sparse::ALL];

/// The names of all tests, as pages give them.
pub fn names() -> impl Iterator<Item = String> {
    let behaviours = BEHAVIOURS.iter().flat_map(|some| some.iter()).map(|(name, _)| *name);
    behaviours.chain(durable::ALL.iter().map(|(name, _, _)| *name)).map(full_name)
}

fn full_name(name: &str) -> String {
    format!("test semantics::{name}")
}

/// Runs each test in a folder of its own, in one mount.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let scratch = run.scratch("semantics")?;
    let up = Up::in_folder(&scratch, "4GiB");
    let mut tally = Tally::default();
    let mut note = |run: &mut Run, name: &str, result: anyhow::Result<()>| match result {
        Ok(()) => {
            println!("{} ok", full_name(name));
            run.passed.insert(full_name(name));
            tally.passed += 1;
        }
        Err(error) => {
            println!("{} FAILED: {error:#}", full_name(name));
            tally.failed += 1;
        }
    };
    let mut served = up.start()?;
    for (name, test) in BEHAVIOURS.iter().flat_map(|some| some.iter()) {
        let done = place(&scratch, served.mount(), name, run.long).and_then(|place| test(&place));
        note(run, name, done);
    }
    // One kill for all that is about it.
    let mut begun = Vec::new();
    for (name, before, after) in durable::ALL {
        let place = place(&scratch, served.mount(), name, run.long);
        match place.and_then(|place| before(&place).map(|()| place)) {
            Ok(place) => begun.push((name, place, after)),
            Err(error) => note(run, name, Err(error)),
        }
    }
    served.kill()?;
    served = up.start()?;
    for (name, place, after) in begun {
        note(run, name, after(&place));
    }
    served.stop()?;
    up.fsck()?;
    Ok(tally)
}

fn place(scratch: &Path, mount: &Path, name: &str, long: bool) -> anyhow::Result<Place> {
    let place = Place { dir: mount.join(name), elsewhere: scratch.join("elsewhere").join(name), long };
    for folder in [&place.dir, &place.elsewhere] {
        std::fs::create_dir_all(folder).context("make the folder of a test")?;
        open_to_all(folder, 0o777)?;
    }
    Ok(place)
}

fn open_to_all(path: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).context("chmod")
}

/// A shell's line as another user, who is in no other group; whether it succeeded.
fn as_user(uid: u32, gid: u32, line: &str) -> anyhow::Result<bool> {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups"]);
    let output = shell::output(command.args(["sh", "-c", line]))?;
    Ok(output.status.success())
}

/// `result` is the error that it should be.
fn refused<T>(what: &str, result: rustix::io::Result<T>, errno: rustix::io::Errno) -> anyhow::Result<()> {
    match result {
        Ok(_) => anyhow::bail!("{what} was done, and should be refused with {errno:?}"),
        Err(error) => {
            ensure!(error == errno, "{what} was refused with {error:?}, and should be with {errno:?}");
            Ok(())
        }
    }
}
