//! Bytes move to other extents, and nothing written meanwhile is lost.

use alloc::vec;
use alloc::vec::Vec;
use types::{Errno, ExtentId, Ino, VolumeId};

use super::{ROOT, World, done};
use crate::{Answer, Command, FallocateMode, NewExtent, Query, Reply, Scattered, Segment, SetAttr};

const MIB: u64 = 1 << 20;

impl World {
    /// The rows of extents of a file, as a compactor reads them.
    pub(super) fn rows_of(&self, ino: Ino) -> Vec<Segment> {
        let whole = Query::Map { volume: VolumeId(1), ino, start: 0, end: u64::MAX, max: 1 << 20 };
        let Answer::Map { segments, .. } = self.ask(whole) else { return Vec::new() };
        let segment = |segment: crate::MapSegment| {
            let (extent, offset) = segment.data?;
            Some(Segment { start: segment.start, len: segment.len as u32, extent: extent.id, offset })
        };
        segments.into_iter().filter_map(segment).collect()
    }

    /// One new extent in the place of these rows, which have no gap.
    fn joined(&mut self, from: &[Segment]) -> (NewExtent, Segment) {
        let len = from.iter().map(|segment| segment.len).sum();
        let extent = self.new_extent(len);
        (extent.clone(), Segment { start: from[0].start, len, extent: extent.id, offset: 0 })
    }

    fn rewrite(&mut self, ino: Ino, from: &[Segment], (extent, to): (NewExtent, Segment)) -> Reply {
        self.run(Command::Rewrite { ino, from: from.to_vec(), extents: vec![extent], to: vec![to] })
    }

    fn scattered(&self, from: (Ino, u64), look: u32) -> (Vec<Scattered>, Option<(Ino, u64)>) {
        match self.ask(Query::Scattered { volume: VolumeId(1), ino: from.0, start: from.1, look }) {
            Answer::Scattered { windows, next } => (windows, next),
            other => panic!("{other:?}"),
        }
    }
}

fn pages(count: u64) -> Vec<(u64, u32)> {
    (0..count).map(|i| (i * 4096, 4096)).collect()
}

#[test]
fn many_rows_become_one_and_their_extents_die() {
    let mut world = World::new();
    let ino = world.file("f");
    done(world.write(ino, &pages(256))).unwrap();
    let (before, used) = (world.attr(ino).unwrap(), world.used());
    let from = world.rows_of(ino);
    let joined = world.joined(&from);
    let (new, to) = joined.clone();
    let Reply::Attr(attr) = world.rewrite(ino, &from, joined) else { panic!() };
    assert_eq!(attr, before, "no attribute tells of it");
    assert_eq!(world.rows_of(ino), [to]);
    assert_eq!(world.used(), used);
    let mut old: Vec<ExtentId> = from.iter().map(|segment| segment.extent).collect();
    old.sort_unstable();
    assert_eq!(world.dead(), old);
    world.assert_sound();

    // The second of two that read the same rows loses, and its extent was never named.
    let late = world.joined(&from);
    assert_eq!(world.rewrite(ino, &from, late.clone()), Reply::Failed(Errno::EAGAIN));
    let Answer::Extents(alive) = world.ask(Query::ExtentRows { ids: vec![late.0.id, new.id] }) else {
        panic!()
    };
    assert_eq!(alive.iter().map(|row| row.id).collect::<Vec<_>>(), [new.id]);
    world.assert_sound();
}

#[test]
fn whatever_changed_a_row_meanwhile_stays() {
    type Change = fn(&mut World, Ino) -> Reply;
    let set_size = |world: &mut World, ino, size| {
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        world.run(Command::SetAttr { ino, set, kill_priv: false, applied: None, cred: ROOT })
    };
    fn allocate(world: &mut World, ino: Ino, mode: FallocateMode) -> Reply {
        world.run(Command::Fallocate { ino, mode, offset: 5000, len: 10, kill_priv: false })
    }
    let changes: [Change; 5] = [
        |world, ino| world.write(ino, &[(4096, 4096)]),
        |world, ino| world.write(ino, &[(5000, 1)]),
        |world, ino| allocate(world, ino, FallocateMode::PunchHole),
        |world, ino| allocate(world, ino, FallocateMode::Zero),
        |world, ino| world.write(ino, &[(0, 4 * 4096)]),
    ];
    for change in changes {
        let mut world = World::new();
        let ino = world.file("f");
        done(world.write(ino, &pages(4))).unwrap();
        let from = world.rows_of(ino);
        let joined = world.joined(&from);
        done(change(&mut world, ino)).unwrap();
        let (rows, used) = (world.rows_of(ino), world.used());
        assert_eq!(world.rewrite(ino, &from, joined), Reply::Failed(Errno::EAGAIN));
        assert_eq!((world.rows_of(ino), world.used()), (rows, used));
        world.assert_sound();
    }
    // Rows that a truncate cut off are there until reclaim takes them, and they are not what was read.
    let mut world = World::new();
    let ino = world.file("f");
    done(world.write(ino, &pages(1000))).unwrap();
    let from = world.rows_of(ino).split_off(900);
    let joined = world.joined(&from);
    done(set_size(&mut world, ino, 4096)).unwrap();
    done(set_size(&mut world, ino, 1000 * 4096)).unwrap();
    assert_eq!(world.rewrite(ino, &from, joined), Reply::Failed(Errno::EAGAIN));
    assert!(world.bytes(ino)[4096..].iter().all(|byte| *byte == 0));
    world.assert_sound();
}

#[test]
fn a_write_beside_the_rows_spoils_nothing() {
    let mut world = World::new();
    let ino = world.file("f");
    done(world.write(ino, &pages(8))).unwrap();
    let from = world.rows_of(ino).split_off(4);
    let joined = world.joined(&from);
    done(world.write(ino, &[(0, 4096)])).unwrap();
    done(world.rewrite(ino, &from, joined)).unwrap();
    assert_eq!(world.rows_of(ino).len(), 5);
    world.assert_sound();
}

#[test]
fn what_a_rewrite_may_not_do() {
    let mut world = World::new();
    let ino = world.file("f");
    done(world.write(ino, &pages(4))).unwrap();
    let from = world.rows_of(ino);
    let (new, to) = world.joined(&from);
    let one = |from: &[Segment], extents: &[NewExtent], to: &[Segment]| Command::Rewrite {
        ino,
        from: from.to_vec(),
        extents: extents.to_vec(),
        to: to.to_vec(),
    };
    let news = [new.clone()];
    let gap = [from[0], from[2]];
    let swapped = [from[1], from[0]];
    let bad = [
        one(&[], &[], &[]),
        one(&from, &[], &[]),
        one(&from, &news, &[Segment { len: to.len - 1, ..to }]),
        one(&from, &news, &[Segment { start: 1, len: to.len - 1, ..to }]),
        one(&from[1..], &news, &[to]),
        one(&gap, &news, &[to]),
        one(&swapped, &news, &[to]),
        one(&from, &[], &[to]),
        one(&from, &[new.clone(), new.clone()], &[to]),
        one(&from, &news, &from),
        one(&from, &[NewExtent { plain_len: 4096, ..new.clone() }], &[to]),
    ];
    for command in bad {
        assert_eq!(world.run(command.clone()), Reply::Failed(Errno::EINVAL), "{command:?}");
    }
    let dir = world.dir(Ino::ROOT, "d");
    let command = Command::Rewrite { ino: dir, from: from.clone(), extents: news.to_vec(), to: vec![to] };
    assert_eq!(world.run(command), Reply::Failed(Errno::EINVAL));
    assert_eq!(world.rows_of(ino), from);
    world.assert_sound();
    done(world.rewrite(ino, &from, (new, to))).unwrap();
}

#[test]
fn windows_tell_what_compaction_would_give_back() {
    let mut world = World::new();
    let (a, b) = (world.file("a"), world.file("b"));
    done(world.write(a, &[(0, MIB as u32), (MIB, MIB as u32)])).unwrap();
    let (windows, next) = world.scattered((Ino(0), 0), 100);
    assert_eq!((windows.len(), next), (2, None));
    assert!(windows.iter().all(|window| (window.needless_rows, window.waste) == (0, 0)));

    // 64 pages over the first extent: each leaves a dead page in it, and has a header of its own.
    let over: Vec<(u64, u32)> = (0..64).map(|i| (i * 8192, 4096)).collect();
    done(world.write(a, &over)).unwrap();
    let (windows, next) = world.scattered((a, 0), 100);
    assert_eq!((windows[0].end, next), (100 * 4096, Some((a, 99 * 4096 + 1))), "in parts");
    let (windows, next) = world.scattered((a, 0), 1000);
    assert_eq!(next, None);
    let waste = 64 * 2 * 4096;
    let frees = MIB + 4096 + 64 * 2 * 4096;
    let want = Scattered { ino: a, start: 0, end: MIB, bytes: MIB, needless_rows: 127, waste, frees };
    assert_eq!(windows[0], want);
    assert_eq!((windows[1].start, windows[1].waste), (MIB, 0));

    // Rows that no extent could make fewer, and space set aside.
    let apart: Vec<(u64, u32)> = (0..10).map(|i| (3 * MIB + i * 8192, 4096)).collect();
    done(world.write(b, &apart)).unwrap();
    let mode = FallocateMode::AllocateKeepSize;
    done(world.run(Command::Fallocate { ino: b, mode, offset: 0, len: 2 * MIB, kill_priv: false })).unwrap();
    let (windows, _) = world.scattered((b, 0), 1000);
    assert_eq!(windows.len(), 1);
    assert_eq!((windows[0].needless_rows, windows[0].waste), (0, 9 * 4096));

    // A walk in small steps meets each row once.
    let (mut from, mut bytes) = (Some((Ino(0), 0)), 0);
    while let Some(at) = from {
        let (windows, next) = world.scattered(at, 7);
        bytes += windows.iter().map(|window| window.bytes).sum::<u64>();
        assert!(next.is_none_or(|next| next > at));
        from = next;
    }
    assert_eq!(bytes, 2 * MIB + 10 * 4096);

    // What is deleted has no windows, and what is cut off no bytes.
    let set = SetAttr { size: Some(4096), ..SetAttr::default() };
    done(world.run(Command::SetAttr { ino: a, set, kill_priv: false, applied: None, cred: ROOT })).unwrap();
    done(world.run(Command::Unlink { parent: Ino::ROOT, name: b"b".to_vec(), pinned: false, cred: ROOT }))
        .unwrap();
    let (windows, _) = world.scattered((Ino(0), 0), 10_000);
    assert_eq!(windows.iter().map(|window| window.bytes).sum::<u64>(), 4096);
}
