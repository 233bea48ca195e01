//! The bytes of version 1, as docs/FORMATS/arena.md draws them.

use types::{Dseq, Errno, Ino};

use super::{fd_of, frozen, peek, poke, small, write};
use crate::Arena;
use crate::layout::{CHUNKS_AT, ERRORS};

const HEADER: &str = "\
    48464152 454e4131 01000000 c44d02f9 03000000 02000000 09000000 00000000 \
    08070605 04030201 01000100 00000000 00000400 00000000 00400000 22000000 \
    00000100 00000000 00001000 00000000 00001100 00000000 00004000 00000000 \
    00005100 00000000 00004000 00000000 00009100 00000000 00000100 00000000 \
    00000001 00000000 00a00a01 00000000 00000000 00000000 00000000 00000000 \
    00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
    00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
    00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000";
const RECORD: &str = "\
    4c495645 8d04925f 77000000 00000000 05000000 00000000 01000000 00000000 \
    00100000 00000000 55000000 00000000 55000000 00000000 09000000 d057b71f \
    00000001 00000000 00000000 00000000 686f6c64 20666173 74000000 00000000";
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
    arena.accept(write(0x77, 0x1000, 0x55, b"hold fast")).expect("room");
    arena.raise_late_error(Ino(0x77), Errno::EIO).expect("raised");
    arena
}

#[test]
fn version_1_is_written_as_drawn() {
    let fd = fd_of(&sample());
    assert_eq!(hex(&peek(&fd, 0, 256)), hex(&unhex(HEADER)));
    assert_eq!(hex(&peek(&fd, CHUNKS_AT, 96)), hex(&unhex(RECORD)));
    assert_eq!(hex(&peek(&fd, ERRORS.0 + 16, 16)), hex(&unhex(LATE_ERROR)));
}

#[test]
fn version_1_is_read() {
    let fd = frozen(&small());
    poke(&fd, 0, &unhex(HEADER));
    poke(&fd, CHUNKS_AT, &unhex(RECORD));
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
}
