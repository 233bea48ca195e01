//! Bytes that change on the disk: below the mark an error, and never other records.

use super::{append, fresh, from_first, open, shape};
use crate::{OpenError, Start};
use device::Fault;
use types::ByteOffset;

const SEGMENTS: u64 = 8;

#[test]
fn each_byte_that_flips_below_the_mark_is_an_error_or_padding() {
    let disk = fresh(SEGMENTS);
    let (log, ..) = open(&disk, SEGMENTS, from_first(SEGMENTS)).expect("open");
    let (mut places, mut written) = (Vec::new(), Vec::new());
    for n in 0..9_u8 {
        let body = vec![n; 40 + usize::from(n) * 700];
        let lsn = append(&log, &body).expect("append");
        places.push((lsn, 64 + 8 + body.len().next_multiple_of(8)));
        written.push(body);
    }
    let last = places.pop().expect("nine");
    let image = disk.image();
    let (mut damaged, mut padding) = (0, 0);
    for (lsn, len) in &places {
        let at = shape(SEGMENTS).offset_of(*lsn).0;
        // Headers and record headers byte by byte, bodies and padding by samples.
        for offset in
            (0..80).chain((80..*len).step_by(97)).chain((*len..len.next_multiple_of(4096)).step_by(509))
        {
            let disk = device::SimDisk::from_image(&image);
            disk.inject(Fault::Rot(ByteOffset(at + offset as u64), 1 << (offset % 8)));
            match open(&disk, SEGMENTS, from_first(SEGMENTS)) {
                Err(OpenError::Damaged { at: named, .. }) if offset < *len => {
                    assert_eq!(named.0, at, "{lsn} byte {offset}");
                    damaged += 1;
                }
                Ok((_, records, _)) if offset >= *len => {
                    assert_eq!(records, written);
                    padding += 1;
                }
                other => panic!("{lsn} byte {offset}: {:?}", other.map(|(_, records, _)| records.len())),
            }
        }
    }
    assert!(damaged > 640 && padding > 20, "{damaged} and {padding}");
    // Of the last batch nothing behind it tells that it was durable: it may go, but never become another.
    let at = shape(SEGMENTS).offset_of(last.0).0;
    for offset in 0..last.1 {
        let disk = device::SimDisk::from_image(&image);
        disk.inject(Fault::Rot(ByteOffset(at + offset as u64), 1 << (offset % 8)));
        let (_, records, _) = open(&disk, SEGMENTS, from_first(SEGMENTS)).expect("a torn tail");
        assert_eq!(records, written[..8]);
    }
    // Unless somebody else remembers.
    let disk = device::SimDisk::from_image(&image);
    disk.inject(Fault::Rot(ByteOffset(at), 1));
    let known = Start::At { start: shape(SEGMENTS).first(), flushed: log.flushed_mark() };
    assert!(matches!(open(&disk, SEGMENTS, known), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_whole_segment_that_vanished_is_damage() {
    let disk = fresh(SEGMENTS);
    let (log, ..) = open(&disk, SEGMENTS, from_first(SEGMENTS)).expect("open");
    let lsns: Vec<_> = (0..9).map(|n| append(&log, &[n; 3000]).expect("append")).collect();
    let image = disk.image();
    for lsn in [lsns[0], lsns[4], lsns[8]] {
        let begin = shape(SEGMENTS).begin_of(shape(SEGMENTS).sequence(lsn));
        // Its first block is zeros, as if never written: the batches behind it still tell.
        let disk = device::SimDisk::from_image(&image);
        disk.poke(shape(SEGMENTS).offset_of(begin).0, &[0; 4096]);
        let opened = open(&disk, SEGMENTS, from_first(SEGMENTS));
        assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{lsn}: {:?}", opened.map(|o| o.1.len()));
    }
    // The whole middle segment.
    let middle = shape(SEGMENTS).begin_of(shape(SEGMENTS).sequence(lsns[4]));
    let disk = device::SimDisk::from_image(&image);
    disk.poke(shape(SEGMENTS).offset_of(middle).0, &[0; super::SEGMENT as usize]);
    assert!(
        matches!(open(&disk, SEGMENTS, from_first(SEGMENTS)), Err(OpenError::Damaged { lsn, .. }) if lsn >= middle)
    );
}

#[test]
fn another_logs_bytes_are_not_this_ones() {
    let disk = fresh(SEGMENTS);
    let (log, ..) = open(&disk, SEGMENTS, from_first(SEGMENTS)).expect("open");
    append(&log, b"mine").expect("append");
    let mut other = shape(SEGMENTS);
    other.uuid[0] ^= 1;
    let dev: std::sync::Arc<dyn device::BlockDev> = std::sync::Arc::new(disk.clone());
    let recovery = super::now(crate::Recovery::read(dev, other, Start::Oldest)).expect("empty");
    assert_eq!((recovery.remaining(), recovery.dropped()), (0, 0));
}
