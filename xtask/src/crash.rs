//! `cargo xtask crash`: takes the power or the life of a real `holdfast up` under writers that note each acknowledged
//! sync outside of the mount, starts it again, and compares every byte and name.

mod disk;
mod image;
mod image_file;
mod kill;
mod load;
mod model;
mod power;
mod scatter;
mod seen;
mod writer;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

pub use disk::Disk;
pub use image::{Cut, Loss};

use crate::test::{self, Tally};
use crate::tree;

/// Arguments of `crash`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Power cuts under writers.
    #[arg(long, default_value_t = 25)]
    pub cycles: u64,

    /// Power cuts during a very first start.
    #[arg(long, default_value_t = 5)]
    pub first_start: u64,

    /// `kill -9` of the whole process tree under writers.
    #[arg(long, default_value_t = 0)]
    pub kill: u64,

    /// Files that lie in the mount while it is killed and restarted.
    #[arg(long, default_value_t = 5_000)]
    pub files: u64,

    /// Where random choices start from; cycle N of a run with seed S chooses as cycle 0 with seed S+N.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Write the result to docs/RESULTS.md.
    #[arg(long)]
    pub record: bool,
}

/// What one kind of crash has shown.
#[derive(Clone, Default, Debug)]
pub struct Outcome {
    /// Cycles that lost nothing.
    passed: u64,
    /// Syncs that were acknowledged in them.
    syncs: u64,
    /// For people.
    notes: Vec<String>,
}

impl Args {
    /// No crashes at all, from `seed`.
    pub fn seeded(seed: u64) -> Args {
        Args { cycles: 0, first_start: 0, kill: 0, files: 0, seed, record: false }
    }
}

/// Builds the program and crashes it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "crashes need loop devices and mounts: run this as root");
    test::build_release()?;
    let tally = run_built(args)?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 {
        bail!("something was lost, or could not be told");
    }
    Ok(())
}

type Kind = (&'static str, fn(&Args, &Path) -> anyhow::Result<Outcome>);

const KINDS: &[Kind] =
    &[("first-start", power::first_starts), ("power", power::cycles), ("kill", kill::cycles)];

/// Crashes the program that is built. What a failed kind leaves behind is kept for a look at it.
pub fn run_built(args: &Args) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut notes = Vec::new();
    for (name, run) in KINDS {
        let scratch = scratch(name)?;
        match run(args, &scratch) {
            Ok(outcome) => {
                tally.passed += outcome.passed;
                notes.extend(outcome.notes);
            }
            Err(error) => {
                tally.failed += 1;
                println!("crash: {name} with seed {} FAILED: {error:#}", args.seed);
            }
        }
    }
    for note in &notes {
        println!("crash: {note}");
    }
    if args.record && tally.failed == 0 {
        record(args, &notes)?;
    }
    Ok(tally)
}

fn scratch(name: &str) -> anyhow::Result<PathBuf> {
    test::empty_scratch(&format!("crash-{name}"))
}

fn record(args: &Args, notes: &[String]) -> anyhow::Result<()> {
    let mut text = String::from(
        "# Results\n\nThe last recorded run of `cargo xtask crash --record`: nothing that was acknowledged was lost, `fsck` was clean after each crash.\n\n",
    );
    text.push_str(&format!("Seed {}.\n\n", args.seed));
    for note in notes {
        text.push_str(&format!("- {note}\n"));
    }
    // What other runs noted stands below, in sections of its own.
    let page = tree::root().join("docs/RESULTS.md");
    let before = std::fs::read_to_string(&page).context("read docs/RESULTS.md")?;
    if let Some(at) = before.find("\n## ") {
        text.push_str(&before[at..]);
    }
    std::fs::write(page, text).context("write docs/RESULTS.md")
}
