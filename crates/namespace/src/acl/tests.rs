//! Lists as bytes, and what modes make of them.

use alloc::vec;
use alloc::vec::Vec;
use types::Errno;

use super::{Acl, BYTES_MAX};

type Entry = (u16, u16, u32);

const NOBODY: u32 = u32::MAX;

fn bytes(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// `u::rw- g::r-- o::---`, and these in their place.
fn with(more: &[Entry]) -> Vec<u8> {
    let mut entries = vec![(1, 6, NOBODY), (4, 4, NOBODY), (32, 0, NOBODY)];
    entries.extend_from_slice(more);
    entries.sort_by_key(|entry| (entry.0, entry.2));
    bytes(&entries)
}

#[test]
fn a_valid_list_is_read_and_written_as_it_was() {
    let lists = [
        with(&[]),
        with(&[(16, 7, NOBODY)]),
        with(&[(2, 7, 1000), (16, 5, NOBODY)]),
        with(&[(2, 7, 0), (2, 1, 5), (8, 3, 7), (8, 2, 9), (16, 0, NOBODY)]),
    ];
    for list in lists {
        let acl = Acl::read(&list).expect("valid").expect("not empty");
        assert_eq!(acl.write(), list);
    }
    assert_eq!(Acl::read(&[2, 0, 0, 0]), Ok(None), "no entry is no list");
    let shuffled = bytes(&[(8, 3, 9), (32, 0, NOBODY), (8, 2, 7), (16, 7, NOBODY), (4, 4, 0), (1, 6, 0)]);
    let acl = Acl::read(&shuffled).expect("valid").expect("not empty");
    assert_eq!(acl.write(), with(&[(8, 2, 7), (8, 3, 9), (16, 7, NOBODY)]), "put in order");
}

#[test]
fn what_is_no_list_is_refused() {
    let wrong = [
        (vec![], "nothing"),
        (vec![2, 0, 0], "no version"),
        (with(&[])[..27].to_vec(), "torn"),
        (bytes(&[(1, 6, NOBODY), (4, 4, NOBODY)]), "no entry for others"),
        (with(&[(1, 6, NOBODY)]), "two owners"),
        (with(&[(2, 7, 1000)]), "a named user without a mask"),
        (with(&[(2, 7, 1000), (2, 6, 1000), (16, 7, NOBODY)]), "a user twice"),
        (with(&[(2, 7, NOBODY), (16, 7, NOBODY)]), "a user without a number"),
        (with(&[(16, 7, NOBODY), (16, 7, NOBODY)]), "two masks"),
        (with(&[(16, 8, NOBODY)]), "a permission that does not exist"),
        (with(&[(64, 7, NOBODY)]), "a tag that does not exist"),
    ];
    for (list, what) in wrong {
        assert_eq!(Acl::read(&list), Err(Errno::EINVAL), "{what}");
    }
    assert_eq!(Acl::read(&[3, 0, 0, 0]), Err(Errno::EOPNOTSUPP), "another version");
    assert_eq!((BYTES_MAX - 4) / 8, 511, "entries of the longest list");
}

#[test]
fn the_group_bits_of_the_mode_are_the_mask_if_there_is_one() {
    let read = |list: Vec<u8>| Acl::read(&list).expect("valid").expect("not empty");
    assert_eq!(read(with(&[])).mode(), 0o640);
    let mut named = read(with(&[(2, 7, 1000), (16, 5, NOBODY)]));
    assert_eq!(named.mode(), 0o650);
    assert!(!named.is_minimal() && read(with(&[])).is_minimal());
    named.set_mode(0o4713);
    assert_eq!(
        named.write(),
        bytes(&[(1, 7, NOBODY), (2, 7, 1000), (4, 4, NOBODY), (16, 1, NOBODY), (32, 3, NOBODY)])
    );
    let mut minimal = read(with(&[]));
    minimal.set_mode(0o713);
    assert_eq!(minimal.write(), bytes(&[(1, 7, NOBODY), (4, 1, NOBODY), (32, 3, NOBODY)]));
}

#[test]
fn a_new_file_gets_no_more_than_it_was_made_with() {
    let mut acl = Acl::read(&with(&[(2, 7, 1000), (16, 7, NOBODY)])).expect("valid").expect("not empty");
    assert_eq!(acl.inherit(0o666), 0o660, "others have nothing in the list");
    assert_eq!(acl.write(), with(&[(2, 7, 1000), (16, 6, NOBODY)]), "the user's entry stays behind the mask");
}
