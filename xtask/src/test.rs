//! `cargo xtask test`: command 2 of the README, from a bare machine to a verdict.

mod backup;
mod bad_input;
mod bench;
mod flips;
mod fsx;
mod full;
mod memory;
mod pjdfstest;
mod postgres;
mod quota;
mod real_work;
mod replicas;
mod semantics;
mod setup;
mod space;
mod unit;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail, ensure};

pub use real_work::make_tree;

use crate::{crash, served, shell, sim, tree, verify};

/// Free space that a run on a warm target folder needs; a cold one takes about 13 GiB.
const SPACE_MIN: u64 = 8 << 30;

/// Arguments of `test`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Only this stage, and what it needs; repeat it for more.
    #[arg(long, value_name = "STAGE")]
    pub only: Vec<String>,

    /// The full counts instead of those that fit into a CI run.
    #[arg(long)]
    pub long: bool,

    /// Where random choices start from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What a stage needs to know, and what it leaves for later ones.
pub struct Run {
    /// Full counts.
    pub long: bool,
    /// Where random choices start from.
    pub seed: u64,
    /// The names of the tests and stages that ran and passed.
    pub passed: BTreeSet<String>,
}

impl Run {
    /// An empty folder of the stage's own.
    pub fn scratch(&self, stage: &str) -> anyhow::Result<PathBuf> {
        empty_scratch(stage)
    }

    /// `few` in CI, `many` in a long run.
    pub fn count<T>(&self, few: T, many: T) -> T {
        if self.long { many } else { few }
    }
}

/// An empty folder for `stage`, on a real disk; what an earlier run left in it, mounts included, is gone.
pub fn empty_scratch(stage: &str) -> anyhow::Result<PathBuf> {
    let folder = tree::target().join("scratch").join(stage);
    for mount in ["mnt", "mnt2", "disk", "forgetful"] {
        served::detach(&folder.join(mount));
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("clear {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

/// Gives back the space of stages that passed.
fn clear_scratch() -> anyhow::Result<()> {
    let folder = tree::target().join("scratch");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("clear {}", folder.display()))?;
    }
    Ok(())
}

/// A disk that fills up midway fails in ways that say something else.
fn enough_space() -> anyhow::Result<()> {
    let target = tree::target();
    std::fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
    let stat = rustix::fs::statvfs(&target).context("ask how much space is free")?;
    let free = stat.f_bavail * stat.f_frsize;
    println!("{} GiB free below {}", free >> 30, target.display());
    ensure!(
        free >= SPACE_MIN,
        "the builds and the test disks need {} GiB in {}",
        SPACE_MIN >> 30,
        target.display()
    );
    Ok(())
}

/// How many single tests of a stage passed and failed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Right.
    pub passed: u64,
    /// Wrong.
    pub failed: u64,
}

impl Tally {
    /// One test that was right.
    pub const ONE: Tally = Tally { passed: 1, failed: 0 };

    fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// One stage.
struct Stage {
    name: &'static str,
    /// It runs the program that users get.
    needs_release: bool,
    run: fn(&mut Run) -> anyhow::Result<Tally>,
}

/// In order: what fails soon comes first.
const STAGES: &[Stage] = &[
    Stage { name: "verify", needs_release: false, run: verify_all },
    Stage { name: "unit", needs_release: false, run: unit::run },
    Stage { name: "bad-input", needs_release: true, run: bad_input::run },
    Stage { name: "bench", needs_release: true, run: bench::run },
    Stage { name: "pjdfstest", needs_release: true, run: pjdfstest::run },
    Stage { name: "semantics", needs_release: true, run: semantics::run },
    Stage { name: "fsx", needs_release: true, run: fsx::run },
    Stage { name: "backup", needs_release: true, run: backup::run },
    Stage { name: "quota", needs_release: true, run: quota::run },
    Stage { name: "real-work", needs_release: true, run: real_work::run },
    Stage { name: "memory", needs_release: true, run: memory::run },
    Stage { name: "postgres", needs_release: true, run: postgres::run },
    Stage { name: "replicas", needs_release: true, run: replicas::run },
    Stage { name: "full", needs_release: true, run: full::run },
    Stage { name: "space", needs_release: true, run: space::run },
    Stage { name: "crash", needs_release: true, run: power_cuts },
    Stage { name: "kill", needs_release: true, run: kills },
    Stage { name: "flips", needs_release: true, run: flips::run },
    Stage { name: "sim", needs_release: false, run: simulation },
    Stage { name: "sim-bugs", needs_release: false, run: planted_bugs },
];

/// The names of all stages.
pub fn stage_names() -> impl Iterator<Item = &'static str> {
    STAGES.iter().map(|stage| stage.name)
}

/// What pages can name as a guard: `test STAGE`, and the single tests of stages that list theirs.
pub fn guards() -> impl Iterator<Item = String> {
    stage_names().map(|name| format!("test {name}")).chain(semantics::names())
}

/// Sets the machine up and runs the stages; a failed one does not keep the others from running.
pub fn run(args: &Args) -> anyhow::Result<()> {
    for name in &args.only {
        let names: Vec<&str> = stage_names().collect();
        ensure!(names.contains(&name.as_str()), "there is no stage {name}; there are {}", names.join(", "));
    }
    let chosen: Vec<&Stage> = STAGES
        .iter()
        .filter(|stage| args.only.is_empty() || args.only.iter().any(|name| name == stage.name))
        .collect();
    let began = Instant::now();
    let mut run = Run { long: args.long, seed: args.seed, passed: BTreeSet::new() };
    enough_space()?;
    setup::run(&chosen.iter().map(|stage| stage.name).collect::<Vec<_>>())?;
    if chosen.iter().any(|stage| stage.needs_release) {
        build_release()?;
    }
    let mut total = Tally::default();
    for stage in chosen {
        println!("== {} (minute {})", stage.name, began.elapsed().as_secs() / 60);
        let stage_began = Instant::now();
        let tally = (stage.run)(&mut run).unwrap_or_else(|error| {
            println!("{}: {error:#}", stage.name);
            Tally { passed: 0, failed: 1 }
        });
        if tally.failed == 0 {
            run.passed.insert(format!("test {}", stage.name));
        }
        let seconds = stage_began.elapsed().as_secs();
        println!("== {}: {} passed, {} failed in {seconds} s", stage.name, tally.passed, tally.failed);
        total.add(tally);
        // What a failed stage left is for whoever looks into it.
        if total.failed == 0 {
            clear_scratch()?;
        }
    }
    if args.only.is_empty() && total.failed == 0 {
        total.add(guards_ran(&run)?);
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("{} tests failed", total.failed);
    }
    Ok(())
}

/// The program as users get it: command 1 of the README, without planted bugs.
pub fn build_release() -> anyhow::Result<()> {
    println!("== build of target/release/holdfast");
    shell::run(shell::cargo().args(["build", "--release", "--quiet", "--package", "cli"]))?;
    ensure!(tree::holdfast().is_file(), "the build made no {}", tree::holdfast().display());
    Ok(())
}

/// The guards that pages name are among what ran, not only among what exists.
fn guards_ran(run: &Run) -> anyhow::Result<Tally> {
    let findings = verify::unguarded(&run.passed)?;
    for finding in &findings {
        println!("not run: {finding}");
    }
    Ok(if findings.is_empty() { Tally::ONE } else { Tally { passed: 0, failed: findings.len() as u64 } })
}

fn verify_all(run: &mut Run) -> anyhow::Result<Tally> {
    verify::run(&verify::Args::default())?;
    run.passed.extend(verify::check_names().map(|name| format!("verify {name}")));
    Ok(Tally { passed: verify::check_names().count() as u64, failed: 0 })
}

fn power_cuts(run: &mut Run) -> anyhow::Result<Tally> {
    let args = crash::Args {
        cycles: run.count(3, 25),
        first_start: run.count(2, 5),
        kill: 0,
        ..crash::Args::seeded(run.seed)
    };
    crash::run_built(&args)
}

fn kills(run: &mut Run) -> anyhow::Result<Tally> {
    let args = crash::Args {
        kill: run.count(5, 100),
        files: run.count(5_000, 100_000),
        ..crash::Args::seeded(run.seed)
    };
    crash::run_built(&args)
}

fn simulation(run: &mut Run) -> anyhow::Result<Tally> {
    let points = run.count(20_000, 200_000);
    sim::run(&sim::Args { points, seed: run.seed, component: None, bugs: false })?;
    Ok(Tally::ONE)
}

fn planted_bugs(run: &mut Run) -> anyhow::Result<Tally> {
    sim::run(&sim::Args { points: 20_000, seed: run.seed, component: None, bugs: true })?;
    Ok(Tally::ONE)
}
