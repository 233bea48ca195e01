//! Crashes of a disk's store: power cut at every write and flush of seeded lives, and disks that fail or lie.

mod bench;
mod model;
mod workload;

use device::{Fault, Keep, OpKind, OpRecord, SimDisk};
use store::OpenError;
use types::{ByteOffset, Errno};

use crate::report::{Report, Violation};
use bench::{Rng, Task, run as run_tasks};
use model::{Content, put_of};
use store::FragmentStore;
use workload::{DEVICE_BYTES, Life, live, open};

/// Changes per client and phase of a life.
const STEPS: u64 = 30;
/// Lives after which no more distinct crash points are sought.
const LIVES_MAX: u64 = 100_000;

/// Crashes the store from `seed` on until about `points` distinct crash points were seen, or a promise was broken.
pub fn run(seed: u64, points: u64) -> Report {
    let mut report = Report::new();
    for life in 0..LIVES_MAX {
        if report.points() >= points || report.violations_seen() > 0 {
            break;
        }
        let seed = if life == 0 { seed } else { Rng::new(seed ^ life << 32).next() };
        cut_everywhere(seed, points, &mut report);
        fail_somewhere(seed, &mut report);
        lie_somewhere(seed, &mut report);
    }
    report
}

/// Power cuts at each write and flush of one life.
fn cut_everywhere(seed: u64, points: u64, report: &mut Report) {
    let life = live(seed, STEPS, |_| ());
    let mut rng = Rng::new(seed ^ 1);
    for broken in &life.model.broken {
        violated(report, seed, "workload", 0, broken.clone());
    }
    for (n, record) in life.disk.op_log().into_iter().enumerate() {
        let op = n as u64 + 1;
        if record.kind == OpKind::Read || report.points() >= points || report.violations_seen() > 0 {
            continue;
        }
        let operation = name_of(&record, op <= life.formatted_at);
        let third = if op.is_multiple_of(2) { Keep::Nothing } else { Keep::Everything };
        let mut crashes = 0;
        for keep in [Keep::Any, third] {
            let Some(disk) = life.disk.cut_at(op, rng.next(), keep) else { continue };
            crashes += 1;
            if let Err(text) = survive(&disk, &life, op, &mut rng) {
                violated(report, seed, operation, op, text);
            }
        }
        report.crashed(operation, 1, crashes);
    }
}

/// A write or a flush fails, the store is poisoned, power is cut: what was acknowledged is there.
fn fail_somewhere(seed: u64, report: &mut Report) {
    let mut rng = Rng::new(seed ^ 2);
    let fails = 100 + rng.below(900);
    let life = live(seed, STEPS, |disk| disk.inject(Fault::Fail(fails, Errno::EIO)));
    let at = life.disk.operations() + 1;
    for keep in [Keep::Nothing, Keep::Any] {
        let disk = life.disk.after_power_cut(rng.next(), keep);
        if let Err(text) = survive(&disk, &life, at, &mut rng) {
            violated(report, seed, "failed operation", fails, text);
        }
    }
}

/// A write is lost or goes elsewhere, bits rot: things may be missing, nothing is wrong.
fn lie_somewhere(seed: u64, report: &mut Report) {
    let mut rng = Rng::new(seed ^ 3);
    for _ in 0..4 {
        let op = 100 + rng.below(900);
        let place = ByteOffset(rng.below(DEVICE_BYTES / 4096) * 4096);
        let fault = if rng.below(2) == 0 { Fault::LoseWrite(op) } else { Fault::MisdirectWrite(op, place) };
        let mut life = live(seed, STEPS, |disk| disk.inject(fault));
        // The workload reads on the way, and may rightly be told of damage; wrong bytes are never right.
        life.model.broken.retain(|broken| broken.contains("wrong bytes"));
        for broken in &life.model.broken {
            violated(report, seed, "lying disk", op, broken.clone());
        }
        let disk = life.disk.after_power_cut(rng.next(), Keep::Everything);
        for _ in 0..40 {
            let at = (1 << 20) + rng.below(DEVICE_BYTES - (2 << 20));
            disk.inject(Fault::Rot(ByteOffset(at), 1 << rng.below(8)));
        }
        if let Ok(opened) = open(&disk)
            && let Err(text) = life.model.check_nothing_wrong(&opened.store)
        {
            violated(report, seed, "lying disk", op, text);
        }
    }
}

/// Opens a disk that was cut during operation `op` and compares it with what was promised; now and then cuts the
/// recovery too, uses the recovered store, or makes a block of the journal unreadable.
fn survive(disk: &SimDisk, life: &Life, op: u64, rng: &mut Rng) -> Result<(), String> {
    let drawn = rng.below(8);
    if drawn == 0 {
        return survive_unreadable(disk, life, op, rng);
    }
    let mut disk = disk.clone();
    if drawn <= 2 {
        disk.record_history();
        // How this one ends is seen by the one after the second cut.
        let _ = open(&disk);
        let cuts = disk.operations();
        let second = disk.cut_at(1 + rng.below(cuts.max(1)), rng.next(), Keep::Any);
        disk = second.ok_or("the recovery did nothing")?;
    }
    let opened = match open(&disk) {
        Ok(opened) => opened,
        Err(OpenError::Blank | OpenError::HalfFormatted) if op <= life.formatted_at => return Ok(()),
        Err(error) => return Err(format!("cannot be opened: {error}")),
    };
    life.model.check(&opened.store, op)?;
    if drawn == 3 {
        return survive_use(&disk, opened, life, op, rng);
    }
    Ok(())
}

/// A block of the journal answers EIO: the open is refused, or nothing is missing.
fn survive_unreadable(disk: &SimDisk, life: &Life, op: u64, rng: &mut Rng) -> Result<(), String> {
    let block = (1 << 20) + rng.below(32) * 4096;
    disk.inject(Fault::Unreadable(ByteOffset(block)));
    match open(disk) {
        Ok(opened) => {
            let checked = life.model.check(&opened.store, op);
            checked.map_err(|text| format!("with byte {block} unreadable: {text}"))
        }
        Err(_) => Ok(()),
    }
}

/// The recovered store takes new fragments, and has them after a kill.
fn survive_use(
    disk: &SimDisk,
    opened: workload::Opened,
    life: &Life,
    op: u64,
    rng: &mut Rng,
) -> Result<(), String> {
    let workload::Opened { store, driver } = opened;
    let mut model = life.model.clone();
    let fresh = Content { version: 7, len: 5000 };
    let counters = [1_000_000, 1_000_001];
    let tasks = counters.map(|counter| {
        let store = store.clone();
        Box::pin(async move {
            let (put, data) = put_of(counter, fresh);
            // Without room it is refused; the model allows both.
            let _ = store.put(put, data).await;
        }) as Task
    });
    let mut background: Option<Task> = Some(Box::pin(async move {
        let _ = driver.run().await;
    }));
    for counter in counters {
        model.begin(counter, 0, Some(fresh));
    }
    if !run_tasks(rng, tasks.into(), &mut background, 1_000_000) {
        return Err("a recovered store does not answer puts".to_owned());
    }
    for counter in counters {
        if store.entry(&model::id(counter)).is_some() {
            model.acknowledge(counter, 0);
        }
    }
    drop(background);
    let cut = disk.after_power_cut(rng.next(), Keep::Any);
    let again = open(&cut).map_err(|error| format!("cannot be opened after a second life: {error}"))?;
    model.check(&again.store, op.max(1))
}

/// What a disk's operation is part of.
fn name_of(record: &OpRecord, formatting: bool) -> &'static str {
    const MIB: u64 = 1 << 20;
    if formatting {
        return "format";
    }
    if record.kind == OpKind::Flush {
        return "flush";
    }
    match record.at {
        at if at < MIB
            || at >= DEVICE_BYTES - MIB - (512 << 10) && record.len == 4096 && at % (64 << 10) == 0 =>
        {
            "superblock write"
        }
        at if at < MIB + 8 * (16 << 10) => "journal write",
        at if at < MIB + 9 * (16 << 10) + 2 * (64 << 10) => "checkpoint write",
        _ => "fragment write",
    }
}

fn violated(report: &mut Report, seed: u64, operation: &str, prefix: u64, text: String) {
    report.violated(Violation { seed, operation: operation.to_owned(), prefix, text });
}

#[cfg(test)]
mod tests {
    use super::run;

    #[test]
    fn a_few_lives_keep_every_promise() {
        let report = run(1, 1500);
        assert_eq!(report.violations(), [], "{report:?}");
        assert!(report.points() >= 1500);
        for operation in
            ["format", "flush", "superblock write", "journal write", "checkpoint write", "fragment write"]
        {
            assert!(
                report.pairs().get(operation).is_some_and(|pairs| *pairs > 10),
                "{operation}: {report:?}"
            );
        }
    }
}
