use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use types::{Dseq, Epoch, ExtentId, Grant, GroupId, Ino, LayoutId, Nanos, SessionId, VolumeId};

use super::data::{Extent, Map, MapData};
use super::inode::Inode;
use super::names::Dentry;
use super::project::{Project, Unvisited};
use super::reclaim::{Cut, Tail};
use super::session::Slot;
use super::volume::Volume;
use super::{body, value};
use crate::keys;
use crate::query::{FileKind, QuotaState};
use crate::wire::Wire;
use crate::{DecodeError, Reply};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `fields` are the body's, as the format page lists them.
fn check<T: Wire + PartialEq + core::fmt::Debug>(key: (Vec<u8>, &str), row: T, fields: &str) {
    assert_eq!(hex(&key.0), key.1.replace(' ', ""), "key");
    let bytes = value(&row);
    assert_eq!(hex(&bytes), format!("010000000000000000{}", fields.replace(' ', "")), "{row:?}");
    assert_eq!(body::<T>(&bytes), Ok(row));
}

/// The bytes of version 1. If this fails the format has changed: raise its version and keep reading this one.
#[test]
fn version_1_as_it_was_written() {
    let volume = VolumeId(0x0102_0304);
    let id = ExtentId { volume, session: SessionId(5), counter: 6 };
    let id_hex = "01020304 000000000005 000000000006";
    let row = Inode {
        kind: FileKind::File,
        mode: 0o4755,
        uid: 1,
        gid: 2,
        rdev: 3,
        nlink: 4,
        size: 5,
        allocated: 6,
        atime: Nanos(-1),
        mtime: Nanos(7),
        ctime: Nanos(8),
        btime: Nanos(9),
        change: 10,
        parent: Ino(11),
        cookie: 12,
        grant: Grant(13),
        applied: Dseq(14),
        flags: 3,
        map_gen: 15,
        xattr_bytes: 16,
        project: Ino(17),
    };
    check(
        (keys::inode(volume, Ino(9)), "01 01020304 49 0000000000000009"),
        row,
        "01 ed090000 01000000 02000000 03000000 04000000 0500000000000000 0600000000000000 \
         ffffffffffffffff 0700000000000000 0800000000000000 0900000000000000 0a00000000000000 \
         0b00000000000000 0c00000000000000 0d00000000000000 0e00000000000000 03000000 0f000000 10000000 \
         1100000000000000",
    );
    let row = Volume {
        name: b"v".to_vec(),
        limit: 1,
        used: 2,
        inodes: 3,
        next_ino: Ino(4),
        next_grant: Grant(5),
        next_session: SessionId(6),
        next_epoch: Epoch(7),
        hash_key: [0xaa; 16],
        hash_bits: 55,
        quota_bytes: 8,
        quota_inodes: 9,
        counting: Ino(10),
    };
    check(
        (keys::volume(volume), "01 01020304 56"),
        row,
        "01000000 76 0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000 \
         0600000000000000 07000000 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 37 \
         0800000000000000 0900000000000000 0a00000000000000",
    );
    let row = Dentry { ino: Ino(7), kind: FileKind::Symlink, name: b"ab".to_vec() };
    let key = keys::dentry(volume, Ino(1), 0x300);
    check(
        (key, "01 01020304 44 0000000000000001 0000000000000300"),
        row,
        "0700000000000000 03 02000000 6162",
    );
    let key = keys::map(volume, Ino(9), 4096);
    let map_key = "01 01020304 4d 0000000000000009 0000000000001000";
    let row = Map { len: 256, generation: 2, data: MapData::Unwritten };
    check((key.clone(), map_key), row, "0001000000000000 02000000 00");
    let row = Map { len: 256, generation: 2, data: MapData::Extent { id, offset: 3 } };
    check((key, map_key), row, &format!("0001000000000000 02000000 01 {id_hex} 03000000"));
    let row = Extent {
        group: GroupId(1),
        layout: LayoutId(2),
        codec: 3,
        plain_len: 4,
        stored_len: 5,
        content_crc: 6,
        refs: 7,
        live: 8,
    };
    check(
        (keys::extent(id), &format!("01 01020304 45 {id_hex}")),
        row,
        "01000000 02000000 03000000 04000000 05000000 06000000 07000000 0800000000000000",
    );
    let row = Slot { seq: 1, digest: 2, reply: Reply::Left(3) };
    check(
        (keys::slot(volume, SessionId(5), 255), "01 01020304 54 0000000000000005 ff"),
        row,
        "0100000000000000 0200000000000000 09 03000000",
    );
    let row = Tail { cuts: [Cut { from: 1, generation: 2 }].into(), cursor: 3 };
    check(
        (keys::reclaim(volume, keys::class::TAIL, 9), "01 01020304 47 02 0000000000000009"),
        row,
        "01000000 0100000000000000 02000000 0300000000000000",
    );
    let row = Project {
        outer: Ino(1),
        limit_bytes: 2,
        limit_inodes: 3,
        bytes: 4,
        inodes: 5,
        state: QuotaState::Removing,
    };
    check(
        (keys::of_inode(volume, keys::kind::PROJECT, Ino(9)), "01 01020304 55 0000000000000009"),
        row,
        "0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000 02",
    );
    check(
        (keys::reclaim(volume, keys::class::UNVISITED, 9), "01 01020304 47 06 0000000000000009"),
        Unvisited { cursor: 7 },
        "0700000000000000",
    );
    assert_eq!(hex(&keys::dead_extent(id)), format!("01010203044704{}", id_hex.replace(' ', "")));
}

#[test]
fn a_newer_row_is_not_read() {
    let mut bytes = value(&Dentry { ino: Ino(7), kind: FileKind::File, name: b"ab".to_vec() });
    bytes[0] = 2;
    assert_eq!(body::<Dentry>(&bytes), Err(DecodeError::Version(2)));
}
