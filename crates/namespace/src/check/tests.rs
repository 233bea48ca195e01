//! Each row of a sound volume is lost or bent in turn: the check must see it.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use types::{Ino, VolumeId};

use super::{Fault, check};
use crate::keys::kind;
use crate::memory::MemoryRows;
use crate::tests::World;
use crate::{Command, Cred, NewKind, XattrMode, describe};

fn problems(rows: &MemoryRows) -> Vec<super::Problem> {
    let mut all = check(rows, VolumeId(0), &mut |_| {}).unwrap();
    all.extend(check(rows, VolumeId(1), &mut |_| {}).unwrap());
    all
}

#[test]
fn no_row_can_be_lost_unseen() {
    let rows = varied();
    assert_eq!(problems(&rows), []);
    // Lost, these change nothing that other rows speak of.
    let alone = [kind::CLOCK, kind::NODE, kind::RESTORED, kind::WRITER, kind::SLOT, kind::SESSION];
    let mut kinds = Vec::new();
    for key in rows.0.keys() {
        let mut rows = rows.clone();
        rows.0.remove(key);
        let kind = key[5];
        kinds.push(kind);
        let harmless =
            alone.contains(&kind) || (kind == kind::RECLAIM && key[6] == crate::keys::class::SESSION);
        assert!(harmless || !problems(&rows).is_empty(), "lost: {}", describe(key, &[]));
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, b"DEGIMNOPSTUVWXYcdgnrtv", "the volume has a row of every kind");
}

#[test]
fn rows_that_cannot_be_read_are_named() {
    let rows = varied();
    for (key, value) in &rows.0 {
        let mut torn = rows.clone();
        torn.0.insert(key.clone(), value[..value.len() - 1].to_vec());
        let bent = describe(key, &torn.0[key]);
        assert!(bent.contains("no such row"), "{bent}");
        assert!(!describe(key, value).contains("no such row"), "{}", describe(key, value));
        let unreadable = |problem: &super::Problem| matches!(problem.fault, Fault::Unreadable(_));
        assert!(problems(&torn).iter().any(unreadable), "{}", describe(key, value));
    }
    let mut rows = rows;
    rows.0.insert(vec![1, 0, 0, 0, 1, b'Q', 0], vec![]);
    assert_eq!(problems(&rows)[0].fault, Fault::UnknownKind);
}

#[test]
fn a_bent_byte_of_any_row_stops_nothing() {
    let rows = varied();
    let mut kinds: BTreeMap<u8, usize> = BTreeMap::new();
    for (key, value) in &rows.0 {
        let of_kind = kinds.entry(key[5]).or_default();
        *of_kind += 1;
        if *of_kind > 3 {
            continue;
        }
        for at in 0..value.len() {
            let mut bent = rows.clone();
            let mut value = value.clone();
            value[at] ^= 0x81;
            bent.0.insert(key.clone(), value);
            for volume in [0, 1] {
                let _ = check(&bent, VolumeId(volume), &mut |_| {});
            }
        }
    }
}

#[test]
fn progress_counts_every_row_of_the_volume() {
    let rows = varied();
    let mut read = 0;
    check(&rows, VolumeId(1), &mut |rows| read = rows).unwrap();
    let own = rows.0.keys().filter(|key| key[1..5] == [0, 0, 0, 1]).count() as u64;
    assert!(read >= own, "{read} of {own}");
}

/// Rows with something of every kind.
fn varied() -> MemoryRows {
    let mut world = World::new();
    world.restored();
    let cred = Cred { uid: 0, gid: 0 };
    let dir = world.dir(Ino::ROOT, "dir");
    world.dir(dir, "below");
    let small = world.file("small");
    world.commit(small, crate::Content::Inline(vec![1; 100]), 100);
    world.run(Command::Link { ino: small, parent: dir, name: b"again".to_vec() });
    let (name, value) = (b"user.a".to_vec(), vec![1, 2, 3]);
    world.run(Command::SetXattr { ino: small, name, value, mode: XattrMode::Set, cred });
    world.create_as(Ino::ROOT, "link", NewKind::Symlink(b"dir".to_vec()), 0, cred).unwrap();
    world.run(Command::SetQuota { dir, bytes: Some(1 << 20), inodes: None });
    // Too much for one command: a walk is under way. Most of it goes again, as every row here is lost in turn.
    let full = world.dir(Ino::ROOT, "full");
    for i in 0..1_002 {
        world.create_as(full, &alloc::format!("{i}"), NewKind::Fifo, 0, cred).unwrap();
    }
    world.run(Command::SetQuota { dir: full, bytes: Some(1 << 20), inodes: Some(7) });
    for i in 0..1_000 {
        let name = alloc::format!("{i}").into_bytes();
        world.run(Command::Unlink { parent: full, name, pinned: false, cred });
    }
    while world.reclaim(1_000) > 0 {}
    let big = world.file("big");
    let ranges: Vec<(u64, u32)> = (0..300).map(|i| (i * 4096, 4096)).collect();
    world.write(big, &ranges[..4]);
    world.write(big, &ranges[..1]);
    let cut = world.file("cut");
    world.write(cut, &ranges);
    let set = crate::SetAttr { size: Some(10), ..Default::default() };
    world.run(Command::SetAttr { ino: cut, set, kill_priv: false, applied: None, cred });
    for (name, pinned) in [("open", true), ("gone", false)] {
        world.file(name);
        world.run(Command::Unlink { parent: Ino::ROOT, name: name.into(), pinned, cred });
    }
    world.rows
}
