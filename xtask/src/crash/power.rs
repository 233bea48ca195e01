//! Power cuts: of the disk below the data directory, under writers, and while the very first start makes it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::disk::{self, Disk};
use super::image::{Cut, Loss};
use super::load::{Load, Running};
use super::seen::Seen;
use super::{Args, Outcome};
use crate::random::Random;
use crate::served::{Served, Up};
use crate::test;

/// Room for the data directory: the disk file, logs, rows.
const DISK_BYTES: u64 = 4 << 30;
const CAPACITY: &str = "1GiB";

/// A cycle with fewer acknowledged syncs says nothing.
const SYNCS_MIN: u64 = 50;

/// How long a cycle may take to have seen enough.
const ENOUGH_WITHIN: Duration = Duration::from_secs(90);

/// The cut comes at a moment within this after a cycle has seen enough.
const MOMENT_MAX_MS: u64 = 1500;

/// When none of the cycles asked for found anything unflushed, at most so many more are run until one does.
const MORE_CYCLES_MAX: u64 = 20;

/// Blocks that wait for a flush at a busy moment.
const BUSY_BLOCKS_MAX: u64 = 200;

/// Syncs before a disk begins to lie, and after.
const SYNCS_LIE: u64 = 100;

/// The program outlives its disk by no more.
const GONE_MAX_MS: u64 = 200;

/// Logs and beats so small that a few seconds of writing purge and checkpoint.
pub const TUNING: &str =
    "beat_commands=100,beat_ms=300,raft_log_bytes=16777216,journal_bytes=8388608,segment_bytes=1048576";

fn up_on(scratch: &Path, disk: &Disk) -> Up {
    let mut up = Up::in_folder(scratch, CAPACITY);
    up.data = disk.folder().join("data");
    up.tuning = TUNING.into();
    up
}

/// Cuts the power under writers, `args.cycles` times on one data directory.
pub fn cycles(args: &Args, scratch: &Path) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    if args.cycles == 0 {
        return Ok(outcome);
    }
    disk::prove(&test::empty_scratch("crash-proof")?).context("does the disk forget?")?;
    catches_a_lie(args, &test::empty_scratch("crash-lie")?)?;
    let mut disk = Disk::new(scratch, DISK_BYTES)?;
    let up = up_on(scratch, &disk);
    let mut served = up.start()?;
    let mut load = Load::new(served.mount(), args.seed)?;
    let mut forgotten = 0;
    let mut cycle = 0;
    // A run in which no disk lost anything has shown nothing.
    while cycle < args.cycles || (forgotten == 0 && cycle < args.cycles + MORE_CYCLES_MAX) {
        let mut random = Random::new(args.seed.wrapping_add(cycle));
        let loss = Loss::choose(&mut random);
        let began = Instant::now();
        let ((cut, seen), syncs) =
            load.run(&up.mount, |running| cut_at_random(running, served, &disk, loss, &mut random))?;
        forgotten += cut.lost + cut.torn;
        disk.come_back().context("bring the disk back")?;
        if cycle % 2 == 1 {
            // Whoever looks before the next start finds it clean too.
            up.fsck().with_context(|| format!("right after power cut {cycle}"))?;
        }
        served = up.start().with_context(|| format!("start after cut {cycle}"))?;
        let restart = served.start_took();
        let checked = load.check().with_context(|| format!("after power cut {cycle} ({loss:?})"))?;
        println!(
            "crash: cut {}/{}: {loss:?}: {} blocks lost, {} kept, {} torn; {syncs} syncs, {seen}; \
             {} names and {:.1} MB right after {:.1} s restart ({:.0} s)",
            cycle + 1,
            args.cycles,
            cut.lost,
            cut.kept,
            cut.torn,
            checked.names,
            checked.bytes as f64 / 1e6,
            restart.as_secs_f64(),
            began.elapsed().as_secs_f64()
        );
        ensure!(syncs >= SYNCS_MIN, "void: only {syncs} syncs in cycle {cycle}, {SYNCS_MIN} are the least");
        seen.check(cycle)?;
        served.stop()?;
        up.fsck().with_context(|| format!("after power cut {cycle}"))?;
        outcome.passed += 1;
        outcome.syncs += syncs;
        served = up.start()?;
        cycle += 1;
    }
    served.stop()?;
    ensure!(forgotten > 0, "no cut took anything away: did the disk forget at all?");
    outcome.notes.push(format!("{cycle} power cuts, {} syncs, {forgotten} blocks forgotten", outcome.syncs));
    Ok(outcome)
}

/// On a disk that forgets what it flushed, something must be found to be lost: else the check is blind.
fn catches_a_lie(args: &Args, scratch: &Path) -> anyhow::Result<()> {
    let mut disk = Disk::new(scratch, DISK_BYTES)?;
    let up = up_on(scratch, &disk);
    let served = up.start()?;
    let mut load = Load::new(served.mount(), args.seed)?;
    load.run(&up.mount, |running| {
        running.wait(ENOUGH_WITHIN, || Ok(running.syncs() >= SYNCS_LIE))?;
        disk.lie();
        let told = running.wait(ENOUGH_WITHIN, || Ok(running.syncs() >= 3 * SYNCS_LIE))?;
        ensure!(told, "nothing was synced on the lying disk");
        running.begin();
        disk.cut(Loss::All, &mut Random::new(args.seed))?;
        served.kill()
    })?;
    disk.come_back().context("bring the lying disk back")?;
    match up.start().and_then(|served| load.check().map(|_| served)) {
        Err(_) => {
            println!("crash: a disk that lies about its flushes is caught");
            Ok(())
        }
        Ok(_) => bail!("a disk lied about its flushes and nothing was found to be lost: the check is blind"),
    }
}

fn cut_at_random(
    running: &Running<'_>,
    served: Served,
    disk: &Disk,
    loss: Loss,
    random: &mut Random,
) -> anyhow::Result<(Cut, Seen)> {
    let mut seen = Seen::default();
    running.wait(ENOUGH_WITHIN, || {
        seen.look(&served)?;
        Ok(running.syncs() >= SYNCS_MIN && seen.is_all())
    })?;
    std::thread::sleep(Duration::from_millis(random.below(MOMENT_MAX_MS)));
    running.begin();
    // Half of the cuts come whenever they come, the others where most is in flight.
    let blocks = random.below(2) * random.below(BUSY_BLOCKS_MAX);
    let cut = disk.cut_busy(blocks as usize, loss, random)?;
    // The machine is gone a moment later than its disk: what it still acknowledges has to be true all the same.
    std::thread::sleep(Duration::from_millis(random.below(GONE_MAX_MS)));
    served.kill()?;
    Ok((cut, seen))
}

/// Cuts the power while a data directory is made, each time a new one.
pub fn first_starts(args: &Args, scratch: &Path) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    if args.first_start == 0 {
        return Ok(outcome);
    }
    let whole = {
        let disk = Disk::new(scratch, DISK_BYTES)?;
        let up = up_on(scratch, &disk);
        let mut served = up.spawn()?;
        let took = served.wait_ready()?;
        served.stop()?;
        took
    };
    let mut before_ready = 0;
    for number in 0..args.first_start {
        let mut random = Random::new(args.seed.wrapping_add(1000 + number));
        let loss = Loss::choose(&mut random);
        let mut disk = Disk::new(scratch, DISK_BYTES)?;
        let up = up_on(scratch, &disk);
        let served = up.spawn()?;
        // Spread over the start: one cut in each of its parts.
        let part = whole / args.first_start as u32;
        let moment = part * number as u32 + part.mul_f64(random.below(100) as f64 / 100.0);
        std::thread::sleep(moment);
        let cut = disk.cut(loss, &mut random)?;
        before_ready += u64::from(!served.was_ready());
        served.kill()?;
        disk.come_back().context("bring the disk back")?;
        let served =
            up.start().with_context(|| format!("start after first-start cut {number} at {moment:?}"))?;
        let mut load = Load::new(served.mount(), args.seed)?;
        load.run(&up.mount, |running| {
            running.wait(ENOUGH_WITHIN, || Ok(running.syncs() >= SYNCS_MIN))?;
            running.begin();
            Ok(())
        })?;
        load.check()?;
        served.stop()?;
        up.fsck().with_context(|| format!("after first-start cut {number}"))?;
        println!(
            "crash: first start {}/{}: cut after {} of {} ms, {loss:?}: {} blocks lost, {} kept, {} torn; usable and clean",
            number + 1,
            args.first_start,
            moment.as_millis(),
            whole.as_millis(),
            cut.lost,
            cut.kept,
            cut.torn
        );
        outcome.passed += 1;
    }
    ensure!(before_ready > 0, "no cut came before the start was ready");
    outcome.notes.push(format!(
        "{} cuts during the first start, {before_ready} before it was ready",
        args.first_start
    ));
    Ok(outcome)
}
