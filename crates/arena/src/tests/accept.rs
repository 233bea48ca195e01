//! Limits, freeing, and what is known of live records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use types::{Dseq, Errno, Ino, Nanos};

use super::{OPEN_MAX, OWNER, SMALL, small, write};
use crate::{AcceptError, Arena, CreateError, LateError, Options};

const ALL: Dseq = Dseq(u64::MAX);

#[test]
fn a_later_write_lies_on_top_and_a_request_is_found() {
    let arena = small();
    assert_eq!(arena.accept(write(7, 10, 100, &[1; 20])), Ok(Dseq(1)));
    assert_eq!(arena.accept(write(7, 15, 101, &[2; 5])), Ok(Dseq(2)));
    assert_eq!(arena.accept(write(8, 0, 102, &[3; 5])), Ok(Dseq(3)));
    let mut buf = [9; 40];
    assert_eq!(arena.overlay(Ino(7), 0, &mut buf), Ok(20));
    let expected: Vec<u8> = [&[9; 10][..], &[1; 5], &[2; 5], &[1; 10], &[9; 10]].concat();
    assert_eq!(buf[..], expected[..]);
    let mut buf = [9; 40];
    arena.overlay_through(Ino(7), Dseq(1), 0, &mut buf).expect("overlay");
    assert_eq!(buf[..], [&[9; 10][..], &[1; 20], &[9; 10]].concat()[..]);
    assert!(arena.covers(Ino(7), 10, 20) && !arena.covers(Ino(7), 10, 21) && !arena.covers(Ino(7), 9, 2));
    assert_eq!(
        arena.find_unique(101).map(|r| (r.ino, r.dseq, r.offset, r.len)),
        Some((Ino(7), Dseq(2), 15, 5))
    );
    assert_eq!(arena.find_unique(99), None);

    let record = arena.records(Ino(7), ALL)[0];
    let mut bytes = [0; 20];
    assert_eq!(arena.read_record(&record, &mut bytes), Ok(true));
    assert_eq!(bytes, [1; 20]);
    assert_eq!(arena.mapped(Ino(7), Dseq(1)), Ok(20));
    assert_eq!(arena.read_record(&record, &mut bytes), Ok(false));
    assert_eq!(arena.find_unique(100), None);
    assert_eq!(arena.records(Ino(7), ALL).len(), 1);
}

#[test]
fn sums_follow_accepts_and_frees() {
    let arena = small();
    assert_eq!(arena.summary(Ino(7)), None);
    arena.accept(write(7, 1000, 1, &[1; 24])).expect("room");
    arena.accept(write(8, 0, 2, &[1; 10])).expect("room");
    arena.accept(write(7, 0, 3, &[1; 500])).expect("room");
    let sum = arena.summary(Ino(7)).expect("dirty");
    assert_eq!((sum.records, sum.bytes, sum.end), (2, 524, 1024));
    assert_eq!((sum.first, sum.last, sum.oldest, sum.newest), (Dseq(1), Dseq(3), Nanos(1), Nanos(3)));
    assert_eq!((arena.dirty_bytes(), arena.record_count()), (534, 3));
    let inodes = |max| arena.dirty(max).iter().map(|sum| sum.ino).collect::<Vec<_>>();
    assert_eq!(inodes(9), [Ino(7), Ino(8)]);
    assert_eq!(inodes(1), [Ino(7)]);

    arena.mapped(Ino(7), Dseq(1)).expect("freed");
    assert_eq!(arena.summary(Ino(7)).map(|sum| (sum.bytes, sum.end)), Some((500, 500)));
    assert_eq!(inodes(9), [Ino(8), Ino(7)]);
    arena.mapped(Ino(7), ALL).expect("freed");
    arena.mapped(Ino(8), ALL).expect("freed");
    assert_eq!((arena.dirty_bytes(), arena.record_count()), (0, 0));
    assert_eq!(arena.used(), 4096, "the page of the open chunk");
    assert_eq!(inodes(9), []);
}

#[test]
fn what_cannot_be_a_record_is_refused() {
    let arena = small();
    assert_eq!(arena.accept(write(7, 0, 1, &[])), Err(AcceptError::Length(0)));
    let long = vec![1; SMALL.chunk_bytes as usize + 1];
    assert_eq!(arena.accept(write(7, 0, 1, &long)), Err(AcceptError::Length(long.len())));
    let over = i64::MAX as u64 - 3;
    assert_eq!(arena.accept(write(7, over, 1, &[1; 4])), Err(AcceptError::Offset(over)));
    assert_eq!(arena.accept(write(7, over - 1, 1, &[1; 4])), Ok(Dseq(1)));
    for (capacity, chunk_bytes) in
        [(0, 16 << 10), (256 << 10, 0), (256 << 10, 5000), (32 << 10, 16 << 10), (u64::MAX, 4096)]
    {
        let options = Options { capacity, chunk_bytes };
        assert_eq!(Arena::create(OWNER, options).err(), Some(CreateError::Options(options)));
    }
}

#[test]
fn a_record_of_a_mebibyte_fits_the_default_chunk() {
    let arena = Arena::create(OWNER, Options::default()).expect("an arena");
    let data = vec![7; 1 << 20];
    for n in 0..8 {
        assert_eq!(arena.accept(write(7, n << 20, n, &data)), Ok(Dseq(n + 1)));
    }
    assert_eq!(arena.used(), 8 * ((1 << 20) + 4096));
}

#[test]
fn full_is_full_until_something_is_freed() {
    let arena = small();
    let told = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&told);
    arena.on_freed(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let data = [1; 9000];
    let mut accepted = 0;
    while arena.accept(write(7, 0, 0, &data)).is_ok() {
        accepted += 1;
    }
    assert_eq!(arena.accept(write(7, 0, 0, &data)), Err(AcceptError::ArenaFull));
    // One record of 9,080 bytes in each chunk of 20,480 takes three pages, a second one five in all.
    assert!(accepted * 9080 > SMALL.capacity * 8 / 10, "{accepted} records in {} bytes", SMALL.capacity);
    assert_eq!(told.load(Ordering::Relaxed), 0);
    assert_eq!(arena.mapped(Ino(9), ALL), Ok(0));
    assert_eq!(told.load(Ordering::Relaxed), 0, "nothing was freed");
    arena.mapped(Ino(7), Dseq(2)).expect("freed");
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert_eq!(arena.accept(write(7, 0, 0, &data)), Ok(Dseq(accepted + 1)), "no dseq was spent on refusals");
}

#[test]
fn freed_chunks_give_their_memory_back_and_are_used_again() {
    let arena = small();
    let empty = arena.resident().expect("fstat");
    let data = [1; 9000];
    let mut last = Dseq(0);
    for round in 0..50 {
        let mut count = 0;
        while let Ok(dseq) = arena.accept(write(7, 0, 0, &data)) {
            last = dseq;
            count += 1;
        }
        assert!(count > 10, "round {round} has room for {count}");
        let full = arena.resident().expect("fstat");
        assert!(full >= empty + count * 9000, "{full} of {empty}");
        arena.mapped(Ino(7), last).expect("freed");
        // The header may have taken no more pages meanwhile.
        let kept = arena.resident().expect("fstat") - empty;
        assert!(kept <= OPEN_MAX, "round {round}: {kept}");
    }
}

#[test]
fn small_writes_are_limited_by_bytes_only() {
    let options = Options { capacity: 16 << 20, chunk_bytes: 1 << 20 };
    let arena = Arena::create(OWNER, options).expect("an arena");
    let mut count = 0_u64;
    while arena.accept(write(7, count * 10, 0, &[count as u8; 10])).is_ok() {
        count += 1;
    }
    // 80 bytes of head and 16 of data each.
    assert!(count * 96 > options.capacity * 98 / 100, "{count} records");
    let mut buf = vec![0; 1000];
    arena.overlay(Ino(7), (count - 100) * 10, &mut buf).expect("overlay");
    for (n, part) in buf.chunks(10).enumerate() {
        assert_eq!(part, [(count - 100 + n as u64) as u8; 10]);
    }
    arena.mapped(Ino(7), ALL).expect("freed");
    assert!(arena.used() <= u64::from(options.chunk_bytes) + 4096, "{}", arena.used());
}

#[test]
fn an_open_chunk_that_holds_nothing_makes_room_for_what_does_not_fit_it() {
    // As much as there can be but for what the open chunk keeps, which nothing that is freed could give back.
    let arena = small();
    for round in 0..100 {
        arena.accept(write(7, 0, 0, &[1; 10_000])).expect("room");
        arena.mapped(Ino(7), ALL).expect("freed");
        assert!(arena.used() <= OPEN_MAX, "round {round}: {}", arena.used());
    }
    let mut accepted = 0;
    while arena.accept(write(8, 0, 0, &[1; 16_000])).is_ok() {
        accepted += 1;
    }
    assert!(accepted * 20_480 > SMALL.capacity - 2 * 20_480, "{accepted} chunks of {}", SMALL.capacity);
}

#[test]
fn late_errors_count_and_share_an_entry_when_the_table_is_full() {
    let arena = small();
    assert_eq!(arena.late_error(Ino(7)), LateError::default());
    arena.raise_late_error(Ino(7), Errno::EIO).expect("raised");
    let second = arena.raise_late_error(Ino(7), Errno::ENOSPC).expect("raised");
    assert_eq!(second, LateError { count: 2, errno: Some(Errno::ENOSPC) });
    assert_eq!(arena.late_error(Ino(7)), second);
    assert_eq!(arena.late_error(Ino(8)), LateError::default());
    for ino in 100..100 + 4094 {
        assert_eq!(arena.raise_late_error(Ino(ino), Errno::EIO).expect("raised").count, 1);
    }
    assert_eq!(arena.late_error(Ino(8)).count, 0, "the table is just full");
    let shared = arena.raise_late_error(Ino(8), Errno::EDQUOT).expect("raised");
    assert_eq!(shared, LateError { count: 1, errno: Some(Errno::EDQUOT) });
    assert_eq!(arena.late_error(Ino(9)).count, 1, "whoever has no entry hears of it too");
    assert_eq!(arena.late_error(Ino(7)).count, 3);
}
