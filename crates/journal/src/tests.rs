//! What the log's parts have to do together, on a simulated disk.

use crate::{AppendError, Batch, Log, Lsn, OpenError, Recovery, Room, Shape, Start};
use device::{BlockDev, Durability, Fault, Keep, SimDisk};
use std::future::Future;
use std::sync::Arc;
use types::ByteOffset;

mod corruption;
mod crash;
mod fixture;

const SEGMENT: u32 = 16 << 10;

pub(crate) fn shape(segments: u64) -> Shape {
    Shape {
        at: ByteOffset(8192),
        bytes: segments * u64::from(SEGMENT),
        uuid: *b"a log of a test!",
        segment_bytes: SEGMENT,
    }
}

/// Runs a future that never waits: a simulated disk's answers are ready at once.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("a simulated disk made somebody wait"),
    }
}

pub(crate) fn fresh(segments: u64) -> SimDisk {
    let disk = SimDisk::new(1 << 20);
    now(Log::format(&disk, &shape(segments))).expect("format");
    disk
}

pub(crate) fn from_first(segments: u64) -> Start {
    Start::At { start: shape(segments).first(), flushed: Lsn::default() }
}

pub(crate) fn open(
    disk: &SimDisk,
    segments: u64,
    start: Start,
) -> Result<(Log, Vec<Vec<u8>>, Recovery), OpenError> {
    let dev: Arc<dyn BlockDev> = Arc::new(disk.clone());
    let (log, mut recovery) = now(Log::open(dev, shape(segments), start))?;
    let records = drain(&mut recovery)?;
    Ok((log, records, recovery))
}

/// All records of a log, in order.
pub(crate) fn drain(recovery: &mut Recovery) -> Result<Vec<Vec<u8>>, OpenError> {
    let mut records = Vec::new();
    while let Some(batch) = now(recovery.next())? {
        records.extend(batch.records().map(|record| record.body.to_vec()));
    }
    Ok(records)
}

pub(crate) fn batch_of(log: &Log, bodies: &[Vec<u8>]) -> Batch {
    let mut batch = log.batch();
    for (n, body) in bodies.iter().enumerate() {
        batch.push(n as u16 + 1, 0, body).expect("the batch has room");
    }
    batch
}

fn append(log: &Log, body: &[u8]) -> Result<Lsn, AppendError> {
    let append = log.append(batch_of(log, &[body.to_vec()]), Durability::Durable, Room::Ordinary)?;
    now(append.written).expect("write");
    log.flushed(append.end);
    Ok(append.lsn)
}

#[test]
fn records_come_back_in_order_with_kind_and_flags() {
    let disk = fresh(4);
    let (log, records, recovery) = open(&disk, 4, from_first(4)).expect("open");
    assert!(records.is_empty() && recovery.dropped() == 0);
    let mut batch = log.batch();
    batch.push(7, 0x8001, b"one").expect("room");
    batch.push(u16::MAX, 0, b"").expect("room");
    batch.push(0, 3, &[9; 5000]).expect("room");
    let append = log.append(batch, Durability::Durable, Room::Ordinary).expect("append");
    assert_eq!(append.end.0 - append.lsn.0, 8192);
    now(append.written).expect("write");
    let mut recovery =
        now(Recovery::read(Arc::new(disk.after_power_cut(0, Keep::Nothing)), shape(4), from_first(4)))
            .expect("read");
    let batch = loop {
        let batch = now(recovery.next()).expect("whole").expect("one with records");
        if batch.records().next().is_some() {
            break batch;
        }
    };
    let found: Vec<_> =
        batch.records().map(|record| (record.kind, record.flags, record.body.len())).collect();
    assert_eq!(found, [(7, 0x8001, 3), (u16::MAX, 0, 0), (0, 3, 5000)]);
    assert_eq!((batch.lsn, batch.end), (append.lsn, append.end));
    assert!(now(recovery.next()).expect("end").is_none());
}

#[test]
fn a_batch_refuses_what_it_has_no_room_for() {
    let mut batch = Batch::new(&shape(4));
    let room = batch.room();
    assert_eq!(room, SEGMENT as usize - 64 - 8);
    assert!(batch.push(1, 0, &vec![0; room + 1]).is_err());
    assert!(batch.is_empty());
    batch.push(1, 0, &vec![0; room]).expect("room");
    assert_eq!((batch.room(), batch.len(), batch.stored_bytes()), (0, 1, u64::from(SEGMENT)));
    assert!(batch.push(1, 0, b"").is_err());
}

#[test]
fn a_full_log_refuses_before_it_writes_and_can_always_be_opened() {
    let disk = fresh(6);
    let (mut log, ..) = open(&disk, 6, from_first(6)).expect("open");
    let mut written = Vec::new();
    loop {
        let body = vec![written.len() as u8; 3000];
        let operations = disk.operations();
        match append(&log, &body) {
            Ok(_) => written.push(body),
            Err(error) => {
                assert_eq!(error, AppendError::LogFull { live: 4, segments: 6 });
                assert_eq!(disk.operations(), operations);
                break;
            }
        }
    }
    assert_eq!(written.len(), 15, "four segments of four blocks, less the opening's");
    assert_eq!(log.usage().used, log.usage().capacity);
    // Openings, each with something to put right, never run out of room and lose nothing.
    for round in 0..20 {
        let (again, records, _) = open(&disk, 6, from_first(6)).expect("open");
        assert!(records.starts_with(&written), "round {round}");
        log = again;
        assert!(matches!(append(&log, b"x"), Err(AppendError::LogFull { .. })), "round {round}");
        if round == 0 {
            let undo = batch_of(&log, &[b"undo".to_vec()]);
            now(log.append(undo, Durability::Durable, Room::Reserve).expect("reserve").written)
                .expect("write");
        }
    }
    log.flushed(log.end());
    log.free_before(log.end());
    let stamp = log.append(log.batch(), Durability::Durable, Room::Reserve).expect("reserve");
    now(stamp.written).expect("write");
    log.flushed(stamp.end);
    assert_eq!(log.usage().used, u64::from(SEGMENT));
    append(&log, b"there is room").expect("append");
}

#[test]
fn a_log_goes_round_its_region_for_ever() {
    let disk = fresh(5);
    let (mut log, ..) = open(&disk, 5, from_first(5)).expect("open");
    let mut start = shape(5).first();
    let mut kept: Vec<(Lsn, Vec<u8>)> = Vec::new();
    for n in 0..600_u32 {
        let body = [n.to_le_bytes().to_vec(), vec![n as u8; n as usize * 37 % 9000]].concat();
        kept.push((append(&log, &body).expect("append"), body));
        if kept.len() > 2 {
            kept.remove(0);
            start = kept[0].0;
            log.free_before(start);
        }
        if n % 7 == 0 {
            for start in [Start::At { start, flushed: log.flushed_mark() }, Start::Oldest] {
                let (again, records, recovery) =
                    open(&disk, 5, start).unwrap_or_else(|error| panic!("append {n}, {start:?}: {error}"));
                let expect: Vec<_> = kept.iter().map(|(_, body)| body.clone()).collect();
                assert!(records.ends_with(&expect), "append {n}, {start:?}");
                if start != Start::Oldest {
                    assert_eq!(records.len(), expect.len(), "append {n}");
                }
                assert_eq!((recovery.dropped(), recovery.remaining()), (0, 0));
                log = again;
            }
            log.flushed(log.end());
            log.free_before(start);
        }
    }
    assert!(shape(5).sequence(log.end()) > 1000, "openings leap over all that can have been written");
}

#[test]
fn a_stamp_carries_the_mark() {
    let disk = fresh(4);
    let (log, ..) = open(&disk, 4, from_first(4)).expect("open");
    let append =
        log.append(batch_of(&log, &[b"x".to_vec()]), Durability::Buffered, Room::Ordinary).expect("append");
    now(append.written).expect("write");
    let mark = |disk: &SimDisk| {
        now(Recovery::read(Arc::new(disk.clone()), shape(4), from_first(4))).expect("read").flushed()
    };
    now(disk.flush()).expect("flush");
    assert!(mark(&disk) < append.end);
    log.flushed(append.end);
    now(log.append(log.batch(), Durability::Durable, Room::Ordinary).expect("stamp").written).expect("write");
    assert_eq!(mark(&disk), append.end);
    let (log, records, recovery) = open(&disk, 4, from_first(4)).expect("open");
    assert_eq!((records.len(), recovery.flushed(), log.flushed_mark()), (1, append.end, append.end));
}

#[test]
fn a_region_that_cannot_hold_a_log_is_refused() {
    let disk = SimDisk::new(1 << 20);
    let refuse = |change: fn(&mut Shape)| {
        let mut shape = shape(4);
        change(&mut shape);
        assert!(matches!(now(Log::format(&disk, &shape)), Err(OpenError::Shape(_))), "{shape:?}");
        let dev: Arc<dyn BlockDev> = Arc::new(disk.clone());
        assert!(matches!(now(Log::open(dev, shape, Start::Oldest)), Err(OpenError::Shape(_))), "{shape:?}");
    };
    refuse(|shape| shape.segment_bytes = 4096);
    refuse(|shape| shape.segment_bytes = 12 << 10);
    refuse(|shape| shape.segment_bytes = 0);
    refuse(|shape| shape.at = ByteOffset(1));
    refuse(|shape| shape.bytes -= 1);
    refuse(|shape| shape.bytes = 1 << 20);
    refuse(|shape| shape.bytes = u64::MAX);
    assert_eq!(disk.operations(), 0);
}

#[test]
fn a_read_error_is_never_the_end() {
    let disk = fresh(5);
    let (log, ..) = open(&disk, 5, from_first(5)).expect("open");
    let last = (0..7).map(|n| append(&log, &[n; 3000]).expect("append")).last().expect("seven");
    let at = shape(5).offset_of(last);
    disk.inject(Fault::Unreadable(at));
    for start in [from_first(5), Start::Oldest] {
        assert!(matches!(open(&disk, 5, start), Err(OpenError::Disk { .. })));
    }
}

#[test]
fn what_an_opening_found_is_durable_from_then_on() {
    let disk = fresh(4);
    let (log, ..) = open(&disk, 4, from_first(4)).expect("open");
    let append =
        log.append(batch_of(&log, &[b"x".to_vec()]), Durability::Buffered, Room::Ordinary).expect("append");
    now(append.written).expect("write");
    // The process is killed: its batch is in the disk's cache only. The next one acts on it, then power fails.
    let killed = disk.fork();
    assert!(killed.at_risk() > 0);
    let (_, found, _) = open(&killed, 4, from_first(4)).expect("open");
    let (_, kept, _) = open(&killed.after_power_cut(0, Keep::Nothing), 4, from_first(4)).expect("open");
    assert_eq!((found.len(), kept), (1, found));
}

#[test]
fn a_log_that_went_round_has_its_room_again_when_it_is_opened() {
    let disk = fresh(6);
    let (mut log, ..) = open(&disk, 6, Start::Oldest).expect("open");
    for round in 0..5 {
        for n in 0..40_u8 {
            let lsn = append(&log, &[n; 3000]).expect("append");
            log.free_before(lsn);
        }
        let (again, records, _) = open(&disk, 6, Start::Oldest).expect("open");
        assert!(
            records.ends_with(&[vec![39; 3000]]) && records.len() <= 2,
            "round {round}: {}",
            records.len()
        );
        assert!(again.usage().used <= 3 * u64::from(SEGMENT), "round {round}: {:?}", again.usage());
        log = again;
    }
}
