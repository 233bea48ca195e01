use std::time::Duration;

use namespace::{Attr, DirEntry, FileKind};
use proptest::prelude::*;
use types::{Errno, Ino, Nanos};
use vfs::{Handle, Listed, Outcome, StatFs, TimeToLive};

use super::super::wire::Fields;
use super::{Body, Shape, encode};

const TTL: TimeToLive = TimeToLive { entry: Duration::new(3, 4), attr: Duration::new(5, 6) };

fn attr(ino: u64) -> Attr {
    Attr {
        mode: 0o4751,
        nlink: 2,
        uid: 1000,
        gid: 1001,
        rdev: 0x1_0307,
        size: 12_345,
        allocated: 16_384,
        atime: Nanos::from_parts(-2, 500_000_001),
        mtime: Nanos::from_parts(20, 21),
        ctime: Nanos::from_parts(30, 31),
        btime: Nanos::from_parts(40, 41),
        ..Attr::blank(Ino(ino), FileKind::File)
    }
}

fn bytes(shape: Shape, outcome: Outcome) -> Vec<u8> {
    encode(shape, outcome).expect("they fit").bytes
}

/// Numbers of 64 and 32 bits as they follow each other.
fn words(bytes: &[u8], widths: &str) -> Vec<u64> {
    let mut fields = Fields(bytes);
    let words = widths.bytes().map(|width| match width {
        b'8' => fields.u64().expect("there"),
        b'4' => u64::from(fields.u32().expect("there")),
        _ => u64::from(fields.u16().expect("there")),
    });
    let words = words.collect();
    assert!(fields.0.is_empty(), "{} bytes are left", fields.0.len());
    words
}

const MINUS_TWO: u64 = -2i64 as u64;
const ATTR: &str = "8888884444444444";

fn attr_words(ino: u64) -> Vec<u64> {
    let mode = 0o104_751;
    vec![ino, 12_345, 32, MINUS_TWO, 20, 30, 500_000_001, 21, 31, mode, 2, 1000, 1001, 0x1_0307, 4096, 0]
}

#[test]
fn attributes_and_entries() {
    let (attr, ttl) = (attr(9), TTL.attr);
    let plain = words(&bytes(Shape::Attr, Outcome::Attr { attr, ttl }), &format!("844{ATTR}"));
    assert_eq!(plain, [vec![5, 6, 0], attr_words(9)].concat());
    let entry = words(&bytes(Shape::Entry, Outcome::Entry { attr, ttl: TTL }), &format!("888844{ATTR}"));
    let head = vec![9, 0, 3, 5, 4, 6];
    assert_eq!(entry, [head.clone(), attr_words(9)].concat());
    let opened =
        Outcome::Created { attr, ttl: TTL, handle: Handle(1 << 63), keep_cache: true, direct: false };
    let created = words(&bytes(Shape::Created, opened), &format!("888844{ATTR}844"));
    let writes = Handle(1 << 63).writes();
    let noflush = if writes { 0 } else { 32 };
    assert_eq!(created, [head, attr_words(9), vec![1 << 63, 2 | noflush, 0]].concat());
    let nothing = bytes(Shape::Entry, Outcome::NoEntry { ttl: TTL.entry });
    assert_eq!(words(&nothing[..40], "888844"), [0, 0, 3, 0, 4, 0]);
    assert_eq!(nothing.len(), 128);
}

#[test]
fn statx_tells_the_time_of_birth() {
    let told = bytes(Shape::Statx, Outcome::Attr { attr: attr(9), ttl: TTL.attr });
    assert_eq!(told.len(), 288);
    let told = words(&told, "84488448444228888844844844844444488888888888888");
    let expected = [
        vec![5, 6, 0, 0, 0, 0xfff, 4096, 0, 2, 1000, 1001, 0o104_751, 0, 9, 12_345, 32, 0],
        vec![MINUS_TWO, 500_000_001, 0, 40, 41, 0, 30, 31, 0, 20, 21, 0, 0x103, 7, 0, 0],
    ];
    assert_eq!(told[..33], expected.concat());
    assert!(told[33..].iter().all(|word| *word == 0));
}

#[test]
fn small_replies() {
    assert_eq!(bytes(Shape::Empty, Outcome::Done), b"");
    assert_eq!(words(&bytes(Shape::Written, Outcome::Written(7)), "44"), [7, 0]);
    assert_eq!(words(&bytes(Shape::Copied, Outcome::Written(7)), "8"), [7]);
    assert_eq!(words(&bytes(Shape::Offset, Outcome::Offset(1 << 40)), "8"), [1 << 40]);
    let opened = Outcome::Opened { handle: Handle(0), keep_cache: false, direct: true };
    assert_eq!(words(&bytes(Shape::Open, opened), "844"), [0, 1 | 32, 0]);
    let space = StatFs { blocks: 1, free: 2, files: 3, files_free: 4 };
    let told = words(&bytes(Shape::StatFs, Outcome::StatFs(space)), "888884444444444");
    assert_eq!(told, [1, 2, 2, 3, 4, 4096, 255, 4096, 0, 0, 0, 0, 0, 0, 0]);
    let read = encode(Shape::Bytes, Outcome::Bytes(b"abc".to_vec())).expect("bytes");
    assert_eq!((read.bytes.as_slice(), read.moved), (&b"abc"[..], 3));
}

#[test]
fn values_fit_or_are_refused() {
    let value = || Outcome::Bytes(b"value".to_vec());
    assert_eq!(words(&bytes(Shape::Value { size: 0 }, value()), "44"), [5, 0]);
    assert_eq!(bytes(Shape::Value { size: 5 }, value()), b"value");
    assert_eq!(encode(Shape::Value { size: 4 }, value()).err(), Some(Errno::ERANGE));
    let names = Outcome::Names(vec![b"a".to_vec(), b"bc".to_vec()]);
    assert_eq!(bytes(Shape::Value { size: 5 }, names), b"a\0bc\0");
}

#[test]
fn an_outcome_of_another_kind_is_an_error() {
    for shape in [
        Shape::Empty,
        Shape::Entry,
        Shape::Bytes,
        Shape::Value { size: 9 },
        Shape::ListingPlus { size: 9, asked: 1 },
    ] {
        assert_eq!(encode(shape, Outcome::Offset(1)).err(), Some(Errno::EIO), "{shape:?}");
    }
}

fn listed(cookie: u64, name: &[u8], with_attr: bool) -> Listed {
    let known = with_attr.then(|| attr(cookie + 10));
    let entry =
        DirEntry { cookie, ino: Ino(cookie + 10), kind: FileKind::File, name: name.to_vec(), attr: known };
    Listed { entry, ttl: TTL }
}

fn list(shape: Shape, entries: Vec<Listed>) -> (Body, usize) {
    let body = encode(shape, Outcome::Entries(entries)).expect("a listing");
    let told = body.listed.as_ref().expect("what was told").told;
    (body, told)
}

#[test]
fn names_are_padded_and_as_many_as_fit() {
    let entries = || vec![listed(1, b".", false), listed(2, b"eightlet", false), listed(3, b"third", false)];
    let (body, told) = list(Shape::Listing { size: 96, asked: 3 }, entries());
    assert_eq!((told, body.bytes.len()), (3, 96));
    assert_eq!(words(&body.bytes[..24], "8844"), [11, 1, 1, 8]);
    assert_eq!(&body.bytes[24..32], b".\0\0\0\0\0\0\0");
    assert_eq!(&body.bytes[56..64], b"eightlet");
    let (body, told) = list(Shape::Listing { size: 95, asked: 3 }, entries());
    assert_eq!((told, body.bytes.len()), (2, 64));
}

#[test]
fn names_with_attributes_are_entries_and_dots_stand_for_themselves() {
    let entries =
        vec![listed(1, b".", false), listed(2, b"f", true), listed(3, b"bare", false), listed(4, b"g", true)];
    let (body, told) = list(Shape::ListingPlus { size: 4096, asked: 4 }, entries);
    assert_eq!((told, body.bytes.len()), (2, 2 * 160), "what lacks attributes is left for the next request");
    let plus = words(&body.bytes[160..312], &format!("888844{ATTR}8844"));
    assert_eq!(plus, [vec![12, 0, 3, 5, 4, 6], attr_words(12), vec![12, 2, 1, 8]].concat());
    assert_eq!(body.bytes[312], b'f');
}

proptest! {
    #[test]
    fn a_listing_is_never_longer_than_asked(
        size in 0u32..3000,
        plus in any::<bool>(),
        lens in prop::collection::vec(1usize..256, 0..20),
    ) {
        let entries: Vec<_> = lens.iter().enumerate().map(|(at, len)| listed(at as u64 + 1, &vec![b'x'; *len], plus)).collect();
        let shape = match plus {
            true => Shape::ListingPlus { size, asked: 20 },
            false => Shape::Listing { size, asked: 20 },
        };
        let (body, told) = list(shape, entries);
        prop_assert!(body.bytes.len() <= size as usize && body.bytes.len() % 8 == 0);
        prop_assert!(told <= lens.len());
        let head = if plus { 152 } else { 24 };
        let next = lens.get(told).map(|len| (head + len).next_multiple_of(8));
        prop_assert!(next.is_none_or(|next| body.bytes.len() + next > size as usize), "one more would fit");
    }
}
