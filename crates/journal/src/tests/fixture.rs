//! The bytes of docs/FORMATS/log.md.

use super::{drain, fresh, from_first, now, shape};
use crate::batch::{NOTHING, Place};
use crate::{Batch, Lsn, OpenError, Recovery};
use std::sync::Arc;

/// The batch that docs/FORMATS/log.md shows, without its padding.
const FIXTURE: &str = "\
    48464c42bf9d9d5e 61206c6f67206f66 2061207465737421 0040000000000000 0040000000000000 60000000 02000000 \
    0000000000000000 0040000000000000 \
    0700010005000000 68656c6c6f000000 0900000003000000 6f72640000000000";

fn fixture() -> Vec<u8> {
    let digits: Vec<u8> = FIXTURE.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte =
        |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal");
    digits.chunks(2).map(byte).collect()
}

#[test]
fn a_batch_is_written_as_the_page_draws_it() {
    let mut batch = Batch::new(&shape(4));
    batch.push(7, 1, b"hello").expect("room");
    batch.push(9, 0, b"ord").expect("room");
    let first = shape(4).first();
    let place = Place { flushed: first, previous: NOTHING, needed: first };
    let bytes = batch.seal(&shape(4).uuid, first, place);
    let text: String = bytes[..96].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, fixture().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_eq!(bytes.len(), 4096);
    assert!(bytes[96..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_written_batch_is_read_and_one_that_says_too_much_is_not() {
    let disk = fresh(4);
    let at = shape(4).offset_of(shape(4).first()).0;
    disk.poke(at, &fixture());
    let read = || now(Recovery::read(Arc::new(disk.clone()), shape(4), from_first(4)));
    let mut recovery = read().expect("whole");
    assert_eq!(recovery.end(), Lsn(0x5000));
    assert_eq!(drain(&mut recovery).expect("records"), [b"hello".to_vec(), b"ord".to_vec()]);
    // A whole batch whose record says more than there is.
    let mut bytes = fixture();
    bytes[68] = 200;
    let crc = checksum::crc32c(&bytes[8..]).to_le_bytes();
    bytes[4..8].copy_from_slice(&crc);
    disk.poke(at, &bytes);
    assert!(matches!(drain(&mut read().expect("whole")), Err(OpenError::Malformed { .. })));
}
