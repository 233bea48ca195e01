//! `kill -9` of the whole process tree under writers; the machine and its disk live on.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::load::Load;
use super::seen::Seen;
use super::{Args, Outcome, power};
use crate::random::Random;
use crate::served::Up;
use crate::test::make_tree;

/// A cycle with fewer acknowledged syncs says nothing.
const SYNCS_MIN: u64 = 50;

/// How long a cycle may take to have seen enough.
const ENOUGH_WITHIN: Duration = Duration::from_secs(60);

/// The kill comes at a moment within this after a cycle has seen enough.
const MOMENT_MAX_MS: u64 = 1000;

/// A restart with all the files of the tree takes no longer.
const RESTART_MAX: Duration = Duration::from_secs(5);

/// How often data is checked by `fsck` too: every so many kills, and after the last.
const FSCK_EVERY: u64 = 10;

/// Kills `args.kill` times on one data directory, which also holds a tree of `args.files` files.
pub fn cycles(args: &Args, scratch: &Path) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    if args.kill == 0 {
        return Ok(outcome);
    }
    let mut up = Up::in_folder(scratch, "4GiB");
    up.tuning = power::TUNING.into();
    let mut served = up.start()?;
    println!("crash: making {} files", args.files);
    make_tree(&served.mount().join("tree"), args.files, args.seed)?;
    let mut load = Load::new(served.mount(), args.seed)?;
    let mut slowest = Duration::ZERO;
    for cycle in 0..args.kill {
        let mut random = Random::new(args.seed.wrapping_add(cycle));
        let began = Instant::now();
        let (seen, syncs) = load.run(&up.mount, |running| {
            let mut seen = Seen::default();
            running.wait(ENOUGH_WITHIN, || {
                seen.look(&served)?;
                Ok(running.syncs() >= SYNCS_MIN && seen.is_all())
            })?;
            std::thread::sleep(Duration::from_millis(random.below(MOMENT_MAX_MS)));
            running.begin();
            served.kill()?;
            Ok(seen)
        })?;
        served = up.start().with_context(|| format!("start after kill {cycle}"))?;
        let restart = served.start_took();
        slowest = slowest.max(restart);
        let checked = load.check().with_context(|| format!("after kill {cycle}"))?;
        println!(
            "crash: kill {}/{}: {syncs} syncs, {seen}; {} names and {:.1} MB right after {:.2} s restart ({:.0} s)",
            cycle + 1,
            args.kill,
            checked.names,
            checked.bytes as f64 / 1e6,
            restart.as_secs_f64(),
            began.elapsed().as_secs_f64()
        );
        ensure!(syncs >= SYNCS_MIN, "void: only {syncs} syncs in cycle {cycle}, {SYNCS_MIN} are the least");
        seen.check(cycle)?;
        ensure!(restart < RESTART_MAX, "the restart took {restart:?}, {RESTART_MAX:?} is the most");
        if (cycle + 1) % FSCK_EVERY == 0 || cycle + 1 == args.kill {
            served.stop()?;
            up.fsck().with_context(|| format!("after kill {cycle}"))?;
            served = up.start()?;
        }
        outcome.passed += 1;
        outcome.syncs += syncs;
    }
    served.stop()?;
    outcome.notes.push(format!(
        "{} kills, {} syncs, slowest restart {:.2} s with {} files",
        args.kill,
        outcome.syncs,
        slowest.as_secs_f64(),
        args.files
    ));
    Ok(outcome)
}
