//! A power cut at every operation, and what the log owes afterwards.

use super::{batch_of, drain, fresh, from_first, now, open, shape};
use crate::{Log, Lsn, Recovery, Room, Start};
use device::{BlockDev, Durability, Keep, SimDisk};
use std::collections::VecDeque;
use std::sync::Arc;

const SEGMENTS: u64 = 6;

/// A small generator (xorshift64*): one seed, one workload.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// What was written and what may be expected, told by the number of operations at which it came about.
#[derive(Default)]
struct Story {
    /// Every record, in order: the first operation at which it can be on the disk.
    records: Vec<(u64, Vec<u8>)>,
    /// So many records were durable when the disk had seen so many operations.
    durable: Vec<(u64, usize)>,
    /// A restart begins here: operation, place, number of records before it.
    starts: Vec<(u64, Lsn, usize)>,
}

/// Appends with up to three batches in flight, flushes, stamps, frees.
fn play(disk: &SimDisk, log: &Log, seed: u64, steps: u64, story: &mut Story) {
    let mut random = Seeded(seed * 2 + 1);
    let mut flying = VecDeque::new();
    let mut written = None;
    let mut places: Vec<(Lsn, usize)> = Vec::new();
    for _ in 0..steps {
        if flying.is_empty() && log.usage().used >= log.usage().capacity {
            if now(disk.flush()).is_err() {
                return;
            }
            log.flushed(log.end());
            written = None;
            story.durable.push((disk.operations(), story.records.len()));
            story.starts.push((disk.operations(), log.end(), story.records.len()));
            log.free_before(log.end());
            // Only a durable stamp that carries the mark gives everything back.
            let Ok(stamp) = log.append(log.batch(), Durability::Durable, Room::Reserve) else { return };
            let end = stamp.end;
            if now(stamp.written).is_err() {
                return;
            }
            log.flushed(end);
        }
        if flying.len() < 3 && log.usage().used < log.usage().capacity && random.below(4) > 0 {
            let bodies: Vec<Vec<u8>> = (0..random.below(3))
                .map(|n| {
                    let number = (story.records.len() as u64 + n).to_le_bytes();
                    [number.to_vec(), vec![random.below(256) as u8; random.below(7000) as usize]].concat()
                })
                .collect();
            let mut kept = Vec::new();
            let mut batch = log.batch();
            for body in bodies {
                if batch.push(1, 0, &body).is_ok() {
                    kept.push(body);
                }
            }
            let Ok(append) = log.append(batch, Durability::Buffered, Room::Ordinary) else { continue };
            let operation = disk.operations();
            places.push((append.lsn, story.records.len()));
            story.records.extend(kept.into_iter().map(|body| (operation, body)));
            flying.push_back((append, story.records.len()));
        } else if let Some((append, records)) = flying.pop_front() {
            if now(append.written).is_err() {
                return;
            }
            written = Some((append.end, records));
        }
        if random.below(3) == 0
            && let Some((end, records)) = written.take()
        {
            if now(disk.flush()).is_err() {
                return;
            }
            log.flushed(end);
            story.durable.push((disk.operations(), records));
            // What is durable may be given up, as a checkpoint would, which is durable before.
            if random.below(2) == 0
                && let Some(place) = places.iter().rev().find(|(lsn, _)| *lsn < end)
            {
                story.starts.push((disk.operations(), place.0, place.1));
                log.free_before(place.0);
            }
        }
    }
}

/// Opens the log as it is after a cut at `operation` and checks it; gives the number of records found.
fn check(cut: &SimDisk, story: &Story, operation: u64, about: &str) -> (Log, usize) {
    let (start, skipped) = story
        .starts
        .iter()
        .rfind(|(at, ..)| *at < operation)
        .map_or((shape(SEGMENTS).first(), 0), |(_, lsn, skipped)| (*lsn, *skipped));
    // Without knowing where to begin, at least as much is found, and the same.
    let mut oldest = now(Recovery::read(Arc::new(cut.fork()), shape(SEGMENTS), Start::Oldest))
        .unwrap_or_else(|error| panic!("{about}, from the oldest on: {error}"));
    let oldest = drain(&mut oldest).unwrap_or_else(|error| panic!("{about}, from the oldest on: {error}"));
    let owed = story.durable.iter().rfind(|(at, _)| *at < operation).map_or(0, |(_, records)| *records);
    let can = story.records.iter().filter(|(at, _)| *at <= operation).count();
    let (log, found, _) = open(cut, SEGMENTS, Start::At { start, flushed: Lsn::default() })
        .unwrap_or_else(|error| panic!("{about}: {error}"));
    assert!(oldest.ends_with(&found), "{about}: the oldest on lacks some");
    let total = skipped + found.len();
    assert!(total >= owed, "{about}: {total} of {owed} durable records are there");
    assert!(total <= can, "{about}: {total} records are there, {can} were written");
    for (n, record) in found.iter().enumerate() {
        assert!(*record == story.records[skipped + n].1, "{about}: record {} is another", skipped + n);
    }
    (log, total)
}

#[test]
fn a_cut_at_any_operation_loses_nothing_durable_and_invents_nothing() {
    let (mut points, mut at_risk, mut torn) = (0, 0, 0);
    for seed in 0..30 {
        let disk = fresh(SEGMENTS);
        let (log, ..) = open(&disk, SEGMENTS, from_first(SEGMENTS)).expect("open");
        disk.record_history();
        let begun = disk.operations();
        let mut story = Story::default();
        play(&disk, &log, seed, 120, &mut story);
        assert!(disk.operations() > begun + 40, "seed {seed} did little");
        for operation in begun + 1..=disk.operations() {
            let keeps = [(0, Keep::Nothing), (0, Keep::Everything)].into_iter();
            for (image, keep) in
                keeps.chain((0..4).map(|image| (seed * 1000 + operation * 10 + image, Keep::Any)))
            {
                let about = format!("seed {seed}, operation {operation}, image {image} {keep:?}");
                let cut = disk.cut_at(operation, image, keep).expect("recorded");
                points += 1;
                at_risk += usize::from(disk.op_log()[operation as usize - 1].at_risk > 0);
                let (_, found) = check(&cut, &story, operation, &about);
                torn += usize::from(found < story.records.iter().filter(|(at, _)| *at <= operation).count());
            }
        }
    }
    assert!(
        at_risk * 2 > points && torn * 4 > points,
        "{points} cuts, {at_risk} with something at risk, {torn} torn"
    );
}

#[test]
fn what_was_dropped_never_comes_back() {
    let (mut reopened, mut dropped) = (0, 0);
    for seed in 0..10_u64 {
        let disk = fresh(SEGMENTS);
        let (log, ..) = open(&disk, SEGMENTS, from_first(SEGMENTS)).expect("open");
        disk.record_history();
        let begun = disk.operations();
        let mut story = Story::default();
        play(&disk, &log, seed, 60, &mut story);
        for operation in (begun + 1..=disk.operations()).step_by(3) {
            let cut = disk.cut_at(operation, seed ^ operation, Keep::Any).expect("recorded");
            let about = format!("seed {seed}, operation {operation}");
            let begun_again = cut.operations();
            // The opening itself is cut as well, at each of its operations; then it is opened again and used.
            let (log, found) = check(&cut, &story, operation, &about);
            let opened = cut.operations();
            drop(log);
            for last in begun_again..=opened {
                let again = disk.cut_at(operation, seed ^ operation, Keep::Any).expect("recorded");
                again.inject(device::Fault::CutAfter(last));
                let _ = open(
                    &again,
                    SEGMENTS,
                    Start::At { start: shape(SEGMENTS).first(), flushed: Lsn::default() },
                );
                let again = again.after_power_cut(last, Keep::Any);
                let (log, same) =
                    check(&again, &story, operation, &format!("{about}, opening cut after {last}"));
                assert_eq!(same, found, "{about}: an opening that was cut after {last} changed the log");
                reopened += 1;
                if last != opened {
                    continue;
                }
                dropped += usize::from(found < story.records.len());
                second_life(&again, log, &story, operation, found, &about);
            }
        }
    }
    assert!(reopened > 500 && dropped > 50, "{reopened} openings were cut, {dropped} logs had lost records");
}

/// Writes other records where the first life's were lost, and cuts that as well.
fn second_life(disk: &SimDisk, log: Log, first: &Story, operation: u64, found: usize, about: &str) {
    let start = first.starts.iter().rfind(|(at, ..)| *at < operation);
    let mut story = Story {
        records: first.records[..found].iter().map(|(_, body)| (0, body.clone())).collect(),
        durable: vec![(0, found)],
        starts: start.map(|(_, lsn, skipped)| (0, *lsn, *skipped)).into_iter().collect(),
    };
    log.flushed(log.end());
    disk.record_history();
    let begun = disk.operations();
    play(disk, &log, operation + 77, 12, &mut story);
    for cut_at in begun + 1..=disk.operations() {
        let cut = disk.cut_at(cut_at, cut_at, Keep::Any).expect("recorded");
        check(&cut, &story, cut_at, &format!("{about}, second life cut at {cut_at}"));
    }
}

#[test]
fn batches_in_flight_beside_a_lost_one_are_dropped_for_good() {
    let disk = fresh(SEGMENTS);
    let (log, ..) = open(&disk, SEGMENTS, from_first(SEGMENTS)).expect("open");
    let lost = disk.operations() + 1;
    disk.inject(device::Fault::LoseWrite(lost));
    let appends: Vec<_> = (0..3_u8)
        .map(|n| {
            log.append(batch_of(&log, &[vec![n; 10]]), Durability::Durable, Room::Ordinary).expect("append")
        })
        .collect();
    for append in appends {
        now(append.written).expect("acknowledged");
    }
    let (log, records, recovery) = open(&disk, SEGMENTS, from_first(SEGMENTS)).expect("a torn tail");
    assert_eq!((records.len(), recovery.dropped()), (0, 2));
    // The same shape of batches again: had places repeated, the second and third old one would link now.
    let again =
        log.append(batch_of(&log, &[vec![9; 10]]), Durability::Durable, Room::Ordinary).expect("append");
    now(again.written).expect("write");
    let (_, records, recovery) = open(&disk, SEGMENTS, from_first(SEGMENTS)).expect("open");
    assert_eq!((records, recovery.dropped()), (vec![vec![9; 10]], 0));
}
