//! What a new engine finds, whatever the old one was doing.

use types::{Dseq, Errno, Ino};

use super::{OWNER, fd_of, frozen, peek, poke, small, write};
use crate::layout::{CHUNKS_AT, HEAD, footprint};
use crate::{Arena, DamagedRecord, LayoutError, RecoverError};

const ALL: Dseq = Dseq(u64::MAX);

/// Where the n-th of records of `len` bytes lies, all in the first chunk.
fn head_at(n: u64, len: u32) -> u64 {
    CHUNKS_AT + n * footprint(len)
}

fn three_records() -> Arena {
    let arena = small();
    for n in 0..3 {
        arena.accept(write(7, n * 50, 10 + n, &[n as u8 + 1; 100])).expect("room");
    }
    arena
}

fn shown(arena: &Arena) -> Vec<u8> {
    let mut buf = vec![0; 250];
    arena.overlay(Ino(7), 0, &mut buf).expect("overlay");
    buf
}

#[test]
fn everything_is_found_again() {
    let arena = three_records();
    arena.set_init_flags(0xabcd).expect("kept");
    arena.raise_late_error(Ino(8), Errno::EIO).expect("raised");
    let (found, recovery) = Arena::recover(fd_of(&arena)).expect("an arena");
    assert_eq!((recovery.records, recovery.damaged.len()), (3, 0));
    assert_eq!((found.owner(), found.init_flags()), (OWNER, 0xabcd));
    assert_eq!(found.records(Ino(7), ALL), arena.records(Ino(7), ALL));
    assert_eq!(found.summary(Ino(7)), arena.summary(Ino(7)));
    assert_eq!(found.find_unique(11), arena.find_unique(11));
    assert_eq!(found.late_error(Ino(8)), arena.late_error(Ino(8)));
    assert_eq!(shown(&found), shown(&arena));
    assert_eq!(found.capacity(), arena.capacity());
    assert_eq!((arena.engines_before(), found.engines_before()), (0, 1));
    assert_eq!(Arena::recover(fd_of(&found)).expect("an arena").0.engines_before(), 2);
}

#[test]
fn that_times_were_set_is_known_of_the_newest_record() {
    let arena = three_records();
    arena.times_are_set(Ino(7)).expect("stored");
    arena.times_are_set(Ino(99)).expect("nothing to store");
    arena.accept(write(7, 0, 20, &[9; 10])).expect("room");
    let (found, recovery) = Arena::recover(fd_of(&arena)).expect("an arena");
    assert_eq!((recovery.records, recovery.damaged.len()), (4, 0));
    let set: Vec<bool> = found.records(Ino(7), ALL).iter().map(|record| record.times_set).collect();
    assert_eq!(set, [false, false, true, false]);
}

#[test]
fn a_dseq_is_never_given_out_twice() {
    let mut arena = small();
    let mut last = Dseq(0);
    for _ in 0..3 {
        let dseq = arena.accept(write(7, 0, 1, &[1; 100])).expect("room");
        assert!(dseq > last, "{dseq} after {last}");
        last = dseq;
        // Nothing in the chunks tells any more how far it went.
        arena.mapped(Ino(7), ALL).expect("freed");
        arena = Arena::recover(fd_of(&arena)).expect("an arena").0;
    }
}

#[test]
fn a_death_at_any_byte_of_an_accept_leaves_all_of_it_or_nothing() {
    let before = three_records();
    let old = frozen(&before);
    before.accept(write(7, 20, 99, &[9; 60])).expect("room");
    let new = frozen(&before);
    let at = head_at(3, 100);
    let size = footprint(60);
    let (was, is) = (peek(&old, at, size as usize), peek(&new, at, size as usize));
    assert_ne!(was[..4], is[..4], "the state is stored last");

    // The first store: head and data, cut anywhere, with no state.
    for cut in 4..=size as usize {
        let dead = frozen(&Arena::recover(frozen_copy(&old)).expect("an arena").0);
        poke(&dead, at + 4, &is[4..cut]);
        let (found, recovery) = Arena::recover(dead).expect("an arena");
        assert_eq!((recovery.records, recovery.damaged.len()), (3, 0), "cut at {cut}");
        assert_eq!(found.find_unique(99), None, "cut at {cut}");
        // Life goes on, and nothing of the torso is met later.
        let dseq = found.accept(write(7, 0, 98, &[8; 60])).expect("room");
        assert!(dseq > Dseq(3));
        let (again, recovery) = Arena::recover(fd_of(&found)).expect("an arena");
        assert_eq!((recovery.records, recovery.damaged.len()), (4, 0), "cut at {cut}");
        assert_eq!(shown(&again), shown(&found), "cut at {cut}");
    }
    // The second store.
    let (found, recovery) = Arena::recover(new).expect("an arena");
    assert_eq!((recovery.records, recovery.damaged.len()), (4, 0));
    assert_eq!(found.find_unique(99).map(|record| record.len), Some(60));
}

fn frozen_copy(of: &std::os::fd::OwnedFd) -> std::os::fd::OwnedFd {
    frozen(&Arena::recover(of.try_clone().expect("another descriptor")).expect("an arena").0)
}

#[test]
fn a_death_while_freeing_leaves_each_record_live_or_gone() {
    let arena = three_records();
    let before = frozen(&arena);
    arena.mapped(Ino(7), Dseq(2)).expect("freed");
    let after = frozen(&arena);
    let (found, _) = Arena::recover(frozen_copy(&after)).expect("an arena");
    assert_eq!(
        found.records(Ino(7), ALL).len(),
        1,
        "a freed record does not come back while its chunk lives"
    );
    // Between the stores of the two states: the younger one is live again, and is freed anew.
    let first = peek(&after, head_at(0, 100), 4);
    poke(&before, head_at(0, 100), &first);
    let (found, recovery) = Arena::recover(before).expect("an arena");
    assert_eq!((recovery.records, recovery.damaged.len()), (2, 0));
    found.mapped(Ino(7), Dseq(2)).expect("freed");
    assert_eq!(found.records(Ino(7), ALL), arena.records(Ino(7), ALL));
}

#[test]
fn any_flipped_bit_of_a_record_is_seen_and_the_others_stay() {
    let arena = three_records();
    let at = head_at(1, 100);
    for byte in 0..HEAD + 100 {
        let fd = frozen(&arena);
        let was = peek(&fd, at + byte, 1)[0];
        poke(&fd, at + byte, &[was ^ 4]);
        let (found, recovery) = Arena::recover(fd).expect("an arena");
        let trusted = !(4..HEAD).contains(&byte);
        let record = trusted.then_some((Ino(7), Dseq(2)));
        assert_eq!(recovery.damaged, [DamagedRecord { at, record }], "byte {byte}");
        let live: Vec<Dseq> = found.records(Ino(7), ALL).iter().map(|record| record.dseq).collect();
        let expected = if trusted { vec![Dseq(1), Dseq(3)] } else { vec![Dseq(1)] };
        assert_eq!(live, expected, "byte {byte}");
    }
}

#[test]
fn bytes_that_look_like_a_record_are_no_record() {
    let arena = three_records();
    let fd = frozen(&arena);
    // A whole accepted record, where another one could begin.
    let record = peek(&fd, head_at(0, 100), footprint(100) as usize);
    poke(&fd, head_at(3, 100), &record);
    let (found, recovery) = Arena::recover(fd).expect("an arena");
    assert_eq!(recovery.damaged, [DamagedRecord { at: head_at(3, 100), record: None }]);
    assert_eq!(shown(&found), shown(&arena));
}

#[test]
fn a_record_above_the_mark_of_the_header_is_no_record() {
    let arena = three_records();
    let fd = frozen(&arena);
    let mut header = peek(&fd, 0, 256);
    header[40..48].copy_from_slice(&3_u64.to_le_bytes());
    poke(&fd, 0, &with_checksum(header));
    let (found, recovery) = Arena::recover(fd).expect("an arena");
    assert_eq!((found.record_count(), recovery.damaged.len()), (2, 1));
}

fn with_checksum(mut header: Vec<u8>) -> Vec<u8> {
    header[12..16].fill(0);
    let crc = checksum::crc32c(&header);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

#[test]
fn a_foreign_header_is_refused() {
    let arena = three_records();
    let case = |at: u64, bytes: &[u8]| {
        let fd = frozen(&arena);
        poke(&fd, at, bytes);
        Arena::recover(fd).err()
    };
    assert_eq!(case(0, b"X"), Some(RecoverError::Layout(LayoutError::NotAnArena)));
    assert_eq!(case(8, &[1]), Some(RecoverError::Layout(LayoutError::Version(1))));
    for at in (12..256).step_by(7) {
        let was = peek(&fd_of(&arena), at, 1)[0];
        assert_eq!(case(at, &[was ^ 1]), Some(RecoverError::Layout(LayoutError::Damaged)), "byte {at}");
    }
    // A reserved byte in use, under a right checksum.
    let mut header = peek(&fd_of(&arena), 0, 256);
    header[200] = 1;
    assert_eq!(case(0, &with_checksum(header)), Some(RecoverError::Layout(LayoutError::Unknown)));
    let short = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    assert_eq!(Arena::recover(short).err(), Some(RecoverError::Layout(LayoutError::NotAnArena)));
}
