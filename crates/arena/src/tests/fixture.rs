//! The bytes of version 2, as docs/FORMATS/arena.md draws them.

use types::{Dseq, Errno, Ino};

use super::{fd_of, frozen, peek, poke, small, write};
use crate::layout::{CHUNKS_AT, ERRORS, JOURNAL, SLOTS};
use crate::ring::RING_START;
use crate::{Arena, Entry, FoundEntry, FoundJournal, RanEntry, Write};

const HEADER: &str = "\
    48464152 454e4131 02000000 bf47ce36 03000000 02000000 09000000 00000000 \
    08070605 04030201 01000100 00000000 00000400 00000000 00400000 22000000 \
    00000100 00000000 00001000 00000000 00001100 00000000 00004000 00000000 \
    00005100 00000000 00004000 00000000 00009100 00000000 00000100 00000000 \
    00000001 00000000 00a00a01 00000000 00000000 00000000 00000000 00000000 \
    00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
    00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
    00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000";
const RECORD: &str = "\
    4c495645 aa79ae16 77000000 00000000 05000000 00000000 01000000 00000000 \
    00100000 00000000 55000000 00000000 55000000 00000000 09000000 d057b71f \
    00000001 00000000 01000000 00000000 686f6c64 20666173 74000000 00000000";
const MARKS: &str = "\
    00105100 00000000 01000000 00000000 4d3eaa24 00000000 00000000 00000000 \
    00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
    00000000 00000000 01000000 00000000 cde74c0b 00000000";
const ENTRIES: &str = "\
    4c495645 9c9a83c9 01000000 00000000 56000000 00000000 00105100 00000000 \
    06000000 04000000 04000000 11d2867d 63726561 74650000 6d616465 00000000 \
    4c495645 09a4c5aa 02000000 00000000 00000000 00000000 40105100 00000000 \
    06000000 08000000 00000000 00000000 636f6d6d 69740000 00000000 00000000 \
    00000000 00000000";
const SLOT: &str = "\
    09000000 00000000 0c8b2cc1 01000000 00000000 00000000 10000000 00000000 \
    02000000 00000000 02000000 00000000";
const LATE_ERROR: &str = "\
    77000000 00000000 01000000 05000000";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An arena with something in each part.
fn sample() -> Arena {
    let arena = small();
    arena.set_init_flags(0x0102_0304_0506_0708).expect("kept");
    let write = Write { kill_priv: true, ..write(0x77, 0x1000, 0x55, b"hold fast") };
    arena.accept(write).expect("room");
    let journal = arena.journal();
    let entry = Entry { unique: 0x56, command: b"create", reply: b"made", reply_room: 4 };
    assert_eq!(journal.append(entry), Ok(1));
    let entry = Entry { unique: 0, command: b"commit", reply: b"", reply_room: 8 };
    assert_eq!(journal.append(entry), Ok(2));
    journal.set_busy(3, 1, 1).expect("stored");
    journal.settle(1).expect("stored");
    journal.set_free(3).expect("stored");
    journal.set_busy(4, 2, 2).expect("stored");
    arena.raise_late_error(Ino(0x77), Errno::EIO).expect("raised");
    arena
}

#[test]
fn version_2_is_written_as_drawn() {
    let fd = fd_of(&sample());
    assert_eq!(hex(&peek(&fd, 0, 256)), hex(&unhex(HEADER)));
    assert_eq!(hex(&peek(&fd, CHUNKS_AT, 96)), hex(&unhex(RECORD)));
    assert_eq!(hex(&peek(&fd, JOURNAL.0, 88)), hex(&unhex(MARKS)));
    assert_eq!(hex(&peek(&fd, RING_START, 136)), hex(&unhex(ENTRIES)));
    assert_eq!(hex(&peek(&fd, SLOTS.0, 48)), hex(&unhex(SLOT)));
    assert_eq!(hex(&peek(&fd, ERRORS.0 + 16, 16)), hex(&unhex(LATE_ERROR)));
}

#[test]
fn version_2_is_read() {
    let fd = frozen(&small());
    poke(&fd, 0, &unhex(HEADER));
    poke(&fd, CHUNKS_AT, &unhex(RECORD));
    poke(&fd, JOURNAL.0, &unhex(MARKS));
    poke(&fd, RING_START, &unhex(ENTRIES));
    poke(&fd, SLOTS.0, &unhex(SLOT));
    poke(&fd, ERRORS.0 + 16, &unhex(LATE_ERROR));
    let (found, recovery) = Arena::recover(fd).expect("an arena");
    assert_eq!((recovery.records, recovery.damaged.len()), (1, 0));
    let sample = sample();
    assert_eq!(found.records(Ino(0x77), Dseq(1)), sample.records(Ino(0x77), Dseq(1)));
    assert_eq!(found.late_error(Ino(0x77)), sample.late_error(Ino(0x77)));
    assert_eq!(found.init_flags(), sample.init_flags());
    let mut bytes = [0; 9];
    found.overlay(Ino(0x77), 0x1000, &mut bytes).expect("overlay");
    assert_eq!(&bytes, b"hold fast");
    let entries = [(1, 0x56, "create"), (2, 0, "commit")].map(|(jseq, unique, command)| FoundEntry {
        jseq,
        unique,
        command: command.into(),
        is_withdrawn: false,
    });
    let journal = FoundJournal { entries: entries.into(), settled: 1, seq: 4, busy: Some((2, 2)) };
    assert_eq!(recovery.journal, journal);
    let ran = RanEntry { jseq: 1, reply: Some(b"made".into()) };
    assert_eq!(found.journal().find_unique(0x56), Ok(Some(ran)));
}
