use super::{Fault, Keep, SimDisk};
use crate::{BlockDev, Durability, IoBuf, IoClass, IoError};
use types::{ByteOffset, Errno};

fn disk() -> SimDisk {
    SimDisk::new(1 << 30)
}

/// Runs a future that is ready at once, as all of a simulated disk's are.
fn now<T>(future: crate::IoFuture<T>) -> Result<T, IoError> {
    let mut future = future;
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("a simulated disk made somebody wait"),
    }
}

fn write(disk: &SimDisk, block: u64, fill: u8, sync: Durability) -> Result<(), IoError> {
    now(disk.write(ByteOffset(block * 4096), vec![IoBuf::from_bytes(&[fill; 4096])], sync, IoClass::Write))
        .map(drop)
}

fn read(disk: &SimDisk, block: u64) -> Result<u8, IoError> {
    now(disk.read(ByteOffset(block * 4096), IoBuf::zeroed(4096), IoClass::Read)).map(|buf| buf[4095])
}

const BUFFERED: Durability = Durability::Buffered;

#[test]
fn only_what_was_flushed_or_durable_survives_a_cut() {
    let disk = disk();
    write(&disk, 1, 1, BUFFERED).expect("write");
    now(disk.flush()).expect("flush");
    write(&disk, 2, 2, BUFFERED).expect("write");
    write(&disk, 3, 3, Durability::Durable).expect("write");
    assert_eq!(disk.at_risk(), 1);
    let lost = disk.after_power_cut(7, Keep::Nothing);
    assert_eq!([1, 2, 3].map(|block| read(&lost, block)), [Ok(1), Ok(0), Ok(3)]);
    let kept = disk.after_power_cut(7, Keep::Everything);
    assert_eq!([1, 2, 3].map(|block| read(&kept, block)), [Ok(1), Ok(2), Ok(3)]);
    assert_eq!(read(&disk, 2), Ok(2), "the disk itself goes on");
}

#[test]
fn a_flush_covers_only_writes_that_had_completed() {
    let disk = disk();
    let write =
        disk.write(ByteOffset(0), vec![IoBuf::from_bytes(&[9; 4096])], Durability::Buffered, IoClass::Write);
    now(disk.flush()).expect("flush");
    assert_eq!(read(&disk.after_power_cut(0, Keep::Nothing), 0), Ok(0), "it was in flight");
    now(write).expect("write");
    now(disk.flush()).expect("flush");
    assert_eq!(read(&disk.after_power_cut(0, Keep::Nothing), 0), Ok(9));
}

#[test]
fn a_flush_that_nobody_waited_for_makes_nothing_durable() {
    let disk = disk();
    write(&disk, 0, 9, BUFFERED).expect("write");
    let flush = disk.flush();
    assert_eq!(disk.at_risk(), 1);
    now(flush).expect("flush");
    assert_eq!(disk.at_risk(), 0);
}

#[test]
fn a_cut_keeps_any_version_of_each_block_and_tears_some() {
    let disk = disk();
    write(&disk, 0, 1, Durability::Durable).expect("write");
    write(&disk, 0, 2, BUFFERED).expect("write");
    write(&disk, 0, 3, BUFFERED).expect("write");
    let mut whole = std::collections::BTreeSet::new();
    let mut torn = 0;
    for seed in 0..200 {
        let after = disk.after_power_cut(seed, Keep::Any).peek(0, 4096);
        assert_eq!(after, disk.after_power_cut(seed, Keep::Any).peek(0, 4096), "seed {seed} repeats");
        assert!(
            after.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])),
            "sectors are whole"
        );
        if after.iter().all(|byte| *byte == after[0]) {
            whole.insert(after[0]);
        } else {
            torn += 1;
        }
    }
    assert_eq!(whole.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(torn > 5, "{torn} of 200 were torn");
}

#[test]
fn power_goes_after_the_operation_that_was_named() {
    let disk = disk();
    disk.inject(Fault::CutAfter(2));
    write(&disk, 0, 1, BUFFERED).expect("operation 1");
    now(disk.flush()).expect("operation 2");
    assert_eq!(write(&disk, 1, 2, Durability::Durable), Err(IoError::Gone));
    assert_eq!(read(&disk, 0), Err(IoError::Gone));
    assert_eq!(now(disk.flush()), Err(IoError::Gone));
    assert_eq!(disk.at_risk(), 1, "the write that met the cut is in flight");
    assert_eq!(read(&disk.after_power_cut(0, Keep::Nothing), 0), Ok(1));
    assert_eq!(read(&disk.after_power_cut(0, Keep::Everything), 1), Ok(2));
}

#[test]
fn a_recorded_history_can_be_cut_anywhere() {
    let disk = disk();
    disk.record_history();
    for n in 1..=50_u8 {
        write(&disk, u64::from(n), n, BUFFERED).expect("write");
        now(disk.flush()).expect("flush");
    }
    assert_eq!(disk.operations(), 100);
    for op in 1..=100 {
        let lost = disk.cut_at(op, op, Keep::Nothing).expect("recorded");
        let kept = disk.cut_at(op, op, Keep::Everything).expect("recorded");
        // A write is operation 2n-1 and its flush 2n: it is durable when the next operation is under way.
        let (durable, written) = ((op - 1) / 2, op.div_ceil(2));
        assert_eq!(read(&lost, durable), Ok(durable as u8));
        assert_eq!(read(&lost, durable + 1), Ok(0));
        assert_eq!(read(&kept, written), Ok(written as u8));
        assert_eq!(read(&kept, written + 1), Ok(0));
    }
    assert!(disk.cut_at(101, 0, Keep::Any).is_none() && disk.cut_at(0, 0, Keep::Any).is_none());
    assert!(disk.op_log().iter().all(|op| op.at_risk == 1));
}

#[test]
fn a_failed_read_is_an_answer_and_a_failed_write_or_flush_the_end() {
    let disk = disk();
    disk.inject(Fault::Fail(1, Errno::EIO));
    disk.inject(Fault::Fail(2, Errno::ENOSPC));
    assert!(matches!(read(&disk, 0), Err(IoError::Failed { op: "read", errno: Errno::EIO, .. })));
    assert!(matches!(
        write(&disk, 0, 1, BUFFERED),
        Err(IoError::Failed { op: "write", errno: Errno::ENOSPC, len: 4096, .. })
    ));
    assert_eq!(read(&disk, 0), Err(IoError::Gone));
    let flushed = SimDisk::new(1 << 20);
    flushed.inject(Fault::Fail(1, Errno::EIO));
    assert!(matches!(now(flushed.flush()), Err(IoError::Failed { op: "flush", .. })));
    assert_eq!(read(&flushed, 0), Err(IoError::Gone));
}

#[test]
fn lost_misdirected_rotten_and_unreadable_blocks_look_like_success_until_read() {
    let disk = disk();
    disk.inject(Fault::LoseWrite(1));
    disk.inject(Fault::MisdirectWrite(2, ByteOffset(7 * 4096)));
    write(&disk, 1, 1, Durability::Durable).expect("acknowledged");
    write(&disk, 2, 2, Durability::Durable).expect("acknowledged");
    assert_eq!([1, 2, 7].map(|block| read(&disk, block)), [Ok(0), Ok(0), Ok(2)]);
    disk.inject(Fault::Rot(ByteOffset(7 * 4096 + 4095), 0x80));
    assert_eq!(read(&disk, 7), Ok(0x82));
    disk.inject(Fault::Unreadable(ByteOffset(7 * 4096)));
    let after = disk.after_power_cut(0, Keep::Nothing);
    assert!(matches!(read(&after, 7), Err(IoError::Failed { op: "read", errno: Errno::EIO, .. })));
    write(&after, 7, 3, BUFFERED).expect("write");
    assert_eq!(read(&after, 7), Ok(3), "writing it heals it");
}

#[test]
fn a_lying_cache_loses_what_it_acknowledged() {
    let disk = disk();
    write(&disk, 0, 1, BUFFERED).expect("write");
    now(disk.flush()).expect("flush");
    disk.inject(Fault::LieFrom(3));
    write(&disk, 1, 2, Durability::Durable).expect("write");
    now(disk.flush()).expect("flush");
    let after = disk.after_power_cut(0, Keep::Nothing);
    assert_eq!([0, 1].map(|block| read(&after, block)), [Ok(1), Ok(0)]);
}

#[test]
fn an_image_rolls_a_disk_back() {
    let disk = disk();
    write(&disk, 0, 1, BUFFERED).expect("write");
    let image = disk.image();
    write(&disk, 0, 2, Durability::Durable).expect("write");
    let old = SimDisk::from_image(&image);
    assert_eq!(read(&old, 0), Ok(1));
    now(old.flush()).expect("flush");
    assert_eq!(read(&old.after_power_cut(0, Keep::Nothing), 0), Ok(1));
    assert_eq!(read(&disk.fork(), 0), Ok(2));
}
