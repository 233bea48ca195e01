use types::Nanos;

use super::format::{END_BYTES, HEAD_BYTES};
use super::write::Writer;
use super::{Head, ReadError, Reader, Row, Totals};
use crate::Position;

fn head() -> Head {
    Head { cluster: [9; 16], position: Position { term: 3, index: 77 }, made: Nanos(1_234_567_890) }
}

fn written(rows: &[Row]) -> (Vec<u8>, Totals) {
    let mut bytes = Vec::new();
    let mut out = |chunk: Vec<u8>| {
        bytes.extend(chunk);
        Ok(())
    };
    let mut writer = Writer::begin(&head(), &mut out).unwrap();
    for (key, value) in rows {
        writer.row(key, value).unwrap();
    }
    let totals = writer.finish().unwrap();
    (bytes, totals)
}

fn read(mut bytes: &[u8]) -> Result<(Head, Vec<Row>, Totals), ReadError> {
    let mut reader = Reader::open(&mut bytes)?;
    let mut rows = Vec::new();
    while let Some(chunk) = reader.chunk()? {
        rows.extend(chunk);
    }
    assert!(reader.chunk()?.is_none(), "the end stays the end");
    Ok((*reader.head(), rows, reader.totals()))
}

fn row(n: u32, len: usize) -> Row {
    ([&[1][..], &n.to_be_bytes()].concat(), vec![n as u8; len])
}

#[test]
fn what_is_written_is_read() {
    for count in [0, 1, 2, 1000] {
        // The larger ones fill a chunk alone.
        let rows: Vec<Row> = (0..count).map(|n| row(n, if n % 100 == 7 { 300_000 } else { 900 })).collect();
        let (bytes, totals) = written(&rows);
        assert_eq!(totals, Totals { rows: u64::from(count), bytes: bytes.len() as u64 });
        let (found, read, seen) = read(&bytes).unwrap();
        assert_eq!((found, seen), (head(), totals));
        assert!(read == rows, "{count} rows");
    }
}

#[test]
fn the_bytes_are_the_documented_ones() {
    let (bytes, _) = written(&[(vec![1, 2], vec![3, 4, 5])]);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = "48464d424b503031 01000000 b2369866 09090909090909090909090909090909 0300000000000000 4d00000000000000 d202964900000000 0000000000000000\
        48464d43 4c8acce1 0000000000000000 01000000 0b000000 0200 03000000 0102 030405\
        48464d45 040c84be 0100000000000000 0100000000000000 924f2b7e586d0355ebd30893cc86746f"
        .replace(' ', "");
    assert_eq!(hex, expected);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let rows: Vec<Row> = (0..3).map(|n| row(n, 20)).collect();
    let (bytes, _) = written(&rows);
    for at in 0..bytes.len() * 8 {
        let mut rotten = bytes.clone();
        rotten[at / 8] ^= 1 << (at % 8);
        let error = read(&rotten).expect_err("noticed");
        assert!(!matches!(error, ReadError::Io(_)), "bit {at}: {error}");
    }
    for len in 0..bytes.len() {
        let error = read(&bytes[..len]).expect_err("noticed");
        assert!(matches!(error, ReadError::Short { .. } | ReadError::Foreign), "{len} bytes: {error}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(read(&longer), Err(ReadError::Damaged { .. })));
}

#[test]
fn parts_that_are_missing_or_swapped_are_noticed_though_each_is_whole() {
    let rows: Vec<Row> = (0..3).map(|n| row(n, 400_000)).collect();
    let (bytes, _) = written(&rows);
    let part = (bytes.len() - HEAD_BYTES - END_BYTES) / 3;
    let (head, rest) = bytes.split_at(HEAD_BYTES);
    let (parts, end) = rest.split_at(3 * part);
    let parts: Vec<&[u8]> = parts.chunks(part).collect();
    for order in [&[0, 1][..], &[0, 2, 1], &[1, 2], &[0, 0, 1, 2], &[2, 1, 0], &[]] {
        let chosen: Vec<u8> = order.iter().flat_map(|n| parts[*n].to_vec()).collect();
        let other = [head, &chosen, end].concat();
        assert!(matches!(read(&other), Err(ReadError::Damaged { .. })), "{order:?}");
    }
    assert!(read(&[head, &parts.concat(), end].concat()).is_ok());
}

#[test]
fn a_newer_format_and_a_foreign_file_are_told_apart() {
    let (mut bytes, _) = written(&[]);
    bytes[8] = 2;
    bytes[12..16].fill(0);
    let crc = checksum::crc32c(&bytes[..HEAD_BYTES]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(read(&bytes), Err(ReadError::Newer { version: 2 })));
    assert!(matches!(read(b""), Err(ReadError::Foreign)));
    assert!(matches!(read(&[0; 200]), Err(ReadError::Foreign)));
}

mod service;
