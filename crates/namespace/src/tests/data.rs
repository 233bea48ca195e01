//! Files' bytes: limits, cuts, space.

use alloc::vec;
use alloc::vec::Vec;
use types::{Errno, Ino, VolumeId};

use super::{ROOT, World, done};
use crate::{Answer, Command, Content, FallocateMode, Query, Reply, Segment, SetAttr};

fn truncate(world: &mut World, ino: Ino, size: u64) -> Result<(), Errno> {
    let set = SetAttr { size: Some(size), ..SetAttr::default() };
    done(world.run(Command::SetAttr { ino, set, kill_priv: false, applied: None, cred: ROOT }))
}

fn fallocate(world: &mut World, ino: Ino, mode: FallocateMode, offset: u64, len: u64) -> Result<(), Errno> {
    done(world.run(Command::Fallocate { ino, mode, offset, len, kill_priv: false }))
}

#[test]
fn a_long_tail_is_cut_at_once_and_reclaimed_later() {
    let mut world = World::new();
    let ino = world.file("f");
    let ranges: Vec<(u64, u32)> = (0..1000).map(|i| (i * 4096, 4096)).collect();
    done(world.write(ino, &ranges)).unwrap();
    let old = world.bytes(ino);
    truncate(&mut world, ino, 6000).unwrap();
    assert_eq!(world.segments(ino), 2);
    assert!(world.used() > 900 * 4096, "the rows are still there");
    assert_eq!(world.dead(), []);
    world.assert_sound();

    // Over the old tail: zeros, then what is written now, and zeros again behind a second cut.
    truncate(&mut world, ino, 1000 * 4096).unwrap();
    let mut want = old[..6000].to_vec();
    want.resize(1000 * 4096, 0);
    assert!(world.bytes(ino) == want);
    let ranges: Vec<(u64, u32)> = (0..400).map(|i| (8000 + i * 100, 50)).collect();
    done(world.write(ino, &ranges)).unwrap();
    world.assert_sound();
    truncate(&mut world, ino, 20_000).unwrap();
    truncate(&mut world, ino, 1000 * 4096).unwrap();
    let bytes = world.bytes(ino);
    assert!(bytes[..6000] == old[..6000] && bytes[8000] != 0);
    assert!(bytes[20_000..].iter().all(|byte| *byte == 0));
    world.assert_sound();

    let mut rounds = 0;
    while world.reclaim(100) > 0 {
        rounds += 1;
        assert!(world.bytes(ino) == bytes, "reclaim changes no byte");
    }
    assert!(rounds > 5);
    world.assert_sound();
    assert!(world.used() < 200 * 4096 && !world.dead().is_empty());
}

#[test]
fn cuts_beyond_what_a_tail_remembers_are_made_at_once() {
    let mut world = World::new();
    let ino = world.file("f");
    for round in 0..12u64 {
        // Each behind the one before, so that no cut covers another.
        let base = round * 100_000;
        let ranges: Vec<(u64, u32)> = (0..300).map(|i| (base + i * 300, 100)).collect();
        done(world.write(ino, &ranges)).unwrap();
        truncate(&mut world, ino, base + 900).unwrap();
        world.assert_sound();
    }
    assert_eq!(world.segments(ino), 12 * 3);
    let bytes = world.bytes(ino);
    while world.reclaim(1000) > 0 {}
    assert!(world.bytes(ino) == bytes);
    world.assert_sound();
}

#[test]
fn inline_bytes_stay_until_segments_hold_them() {
    let mut world = World::new();
    let ino = world.file("f");
    done(world.commit(ino, Content::Inline(vec![7; 100]), 100)).unwrap();
    truncate(&mut world, ino, 5000).unwrap();
    let map = Query::Map { volume: VolumeId(1), ino, start: 4096, end: 5000, max: 10 };
    let Answer::Map { prefix, segments, .. } = world.ask(map) else { panic!() };
    assert_eq!((prefix, segments.len()), (vec![7; 100], 0));
    done(world.write(ino, &[(1 << 20, 10)])).unwrap();
    assert_eq!(world.bytes(ino)[..101], [[7; 100].as_slice(), &[0]].concat());
    assert_eq!(world.write(ino, &[(50, 100)]), Reply::Failed(Errno::EINVAL), "50 bytes would be lost");
    assert_eq!(world.write(ino, &[(0, 99)]), Reply::Failed(Errno::EINVAL));
    done(world.write(ino, &[(0, 60), (60, 40)])).unwrap();
    assert_eq!(world.segments(ino), 3);
    world.assert_sound();
}

#[test]
fn what_a_commit_may_not_do() {
    let mut world = World::new();
    let ino = world.file("f");
    done(world.write(ino, &[(0, 8192)])).unwrap();
    let known = world.new_extent(0).id;
    let first = types::ExtentId { counter: known.counter - 1, ..known };
    let segment = |start, len, offset| Segment { start, len, extent: first, offset };
    let one = |segment| Content::Segments { extents: vec![], segments: vec![segment] };
    let extent = world.new_extent(100);
    let of_new = Segment { start: 0, len: 100, extent: extent.id, offset: 0 };
    let new = |extent, segments| Content::Segments { extents: vec![extent], segments };
    let bad = [
        (one(segment(0, 0, 0)), 8192),
        (one(segment(0, 4096, 4097)), 8192),
        (one(segment(0, 4096, u32::MAX)), 8192),
        (one(segment(8000, 4096, 0)), 8192),
        (one(segment(u64::MAX, 1, 0)), 8192),
        (one(segment(0, 4096, 0)), 8191),
        (Content::Segments { extents: vec![], segments: vec![segment(10, 10, 0), segment(15, 10, 0)] }, 8192),
        (Content::Inline(vec![0; 4097]), 8192),
        (Content::Inline(vec![0; 10]), 8192),
        (new(extent.clone(), vec![]), 8192),
        (new(crate::NewExtent { group: types::GroupId(9), ..extent.clone() }, vec![of_new]), 8192),
        (new(crate::NewExtent { plain_len: 99, ..extent.clone() }, vec![of_new]), 8192),
        (new(crate::NewExtent { plain_len: 2 << 20, ..extent.clone() }, vec![of_new]), 8192),
        (new(crate::NewExtent { id: first, ..extent.clone() }, vec![segment(0, 1, 0)]), 8192),
        (Content::Segments { extents: vec![extent.clone(), extent.clone()], segments: vec![of_new] }, 8192),
        (Content::Segments { extents: vec![], segments: vec![of_new] }, 8192),
    ];
    let before = world.bytes(ino);
    for (content, size) in bad {
        let reply = world.commit(ino, content.clone(), size);
        assert_eq!(reply, Reply::Failed(Errno::EINVAL), "{content:?}");
    }
    assert!(world.bytes(ino) == before);
    let too_far = world.commit(ino, one(segment(0, 1, 0)), 1 << 63);
    assert_eq!(too_far, Reply::Failed(Errno::EFBIG));

    // An extent that died is dead for good.
    done(world.write(ino, &[(0, 8192)])).unwrap();
    assert_eq!(world.dead(), [first]);
    assert_eq!(world.commit(ino, one(segment(0, 10, 0)), 8192), Reply::Failed(Errno::ESTALE));
    let Answer::Extents(alive) = world.ask(Query::ExtentRows { ids: vec![first] }) else { panic!() };
    assert_eq!(alive, []);
    assert_eq!(world.service(Command::DropExtents { ids: vec![first] }), Reply::Done);
    world.assert_sound();
}

#[test]
fn extents_are_shared_and_outlive_each_other() {
    let mut world = World::new();
    let (a, b) = (world.file("a"), world.file("b"));
    done(world.write(a, &[(0, 8192)])).unwrap();
    let Answer::Map { segments, .. } =
        world.ask(Query::Map { volume: VolumeId(1), ino: a, start: 0, end: 1, max: 1 })
    else {
        panic!()
    };
    let extent = segments[0].data.unwrap().0.id;
    let shared = vec![
        Segment { start: 0, len: 100, extent, offset: 50 },
        Segment { start: 100, len: 8192, extent, offset: 0 },
    ];
    done(world.commit(b, Content::Segments { extents: vec![], segments: shared }, 8292)).unwrap();
    truncate(&mut world, a, 0).unwrap();
    assert_eq!(world.dead(), []);
    world.assert_sound();
    assert_eq!(world.service(Command::DropExtents { ids: vec![extent] }), Reply::Done);
    assert_eq!(world.bytes(b).len(), 8292, "what is alive is not dropped");
    truncate(&mut world, b, 0).unwrap();
    assert_eq!(world.dead(), [extent]);
}

#[test]
fn space_is_limited_and_one_row_however_long() {
    let mut world = World::new();
    let ino = world.file("f");
    fallocate(&mut world, ino, FallocateMode::AllocateKeepSize, 1 << 20, 1 << 39).unwrap();
    assert_eq!((world.attr(ino).unwrap().size, world.used()), (0, 1 << 39));
    let rows = world.rows.0.len();
    assert_eq!(fallocate(&mut world, ino, FallocateMode::Allocate, 0, 1 << 41), Err(Errno::ENOSPC));
    assert_eq!(fallocate(&mut world, ino, FallocateMode::Allocate, 0, 0), Err(Errno::EINVAL));
    assert_eq!(fallocate(&mut world, ino, FallocateMode::Allocate, 1 << 62, 1 << 62), Err(Errno::EFBIG));
    assert_eq!(fallocate(&mut world, ino, FallocateMode::Allocate, u64::MAX, 2), Err(Errno::EFBIG));
    assert_eq!(fallocate(&mut world, Ino::ROOT, FallocateMode::Allocate, 0, 1), Err(Errno::EISDIR));
    assert_eq!((world.rows.0.len(), world.used()), (rows, 1 << 39));
    // A write in the middle splits it, and needs no more space.
    let limit = world.used();
    assert_eq!(world.service(Command::SetLimit { volume: VolumeId(1), limit }), Reply::Done);
    done(world.write(ino, &[(1 << 30, 4096)])).unwrap();
    assert_eq!(world.segments(ino), 3);
    let more = fallocate(&mut world, ino, FallocateMode::Allocate, 0, 1);
    assert_eq!(more, Err(Errno::ENOSPC));
    // What was accepted before the limit came down is not lost to it.
    done(world.write(ino, &[(0, 1)])).unwrap();
    assert_eq!(world.used(), limit + types::BLOCK);
    fallocate(&mut world, ino, FallocateMode::PunchHole, 1 << 21, 1 << 38).unwrap();
    done(world.write(ino, &[(0, 1)])).unwrap();
    assert_eq!(truncate(&mut world, ino, 1 << 63), Err(Errno::EFBIG));
    truncate(&mut world, ino, i64::MAX as u64).unwrap();
    world.assert_sound();
}

#[test]
fn a_unit_is_paid_for_once_where_data_ends_and_space_is_set_aside() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, &[(0, 10_000), (20_480, 100)]);
    fallocate(&mut world, ino, FallocateMode::Allocate, 0, 32_768).unwrap();
    assert_eq!(world.used(), 32_768);
    world.assert_sound();
}

#[test]
fn a_small_file_keeps_the_space_set_aside_behind_it() {
    let mut world = World::new();
    let ino = world.file("f");
    fallocate(&mut world, ino, FallocateMode::AllocateKeepSize, 0, 1 << 20).unwrap();
    done(world.commit(ino, Content::Inline(vec![1; 10]), 10)).unwrap();
    assert_eq!(world.used(), 1 << 20);
    assert_eq!(world.bytes(ino), [1; 10]);
    world.assert_sound();
}

fn copy(world: &mut World, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<u64, Errno> {
    let (from, from_offset) = from;
    let (to, to_offset) = to;
    match world.run(Command::CopyRange { from, from_offset, to, to_offset, len, kill_priv: false }) {
        Reply::Copied { bytes, .. } => Ok(bytes),
        Reply::Failed(errno) => Err(errno),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_copied_range_names_the_extents_of_its_source() {
    let mut world = World::new();
    let (from, to) = (world.file("from"), world.file("to"));
    world.write(from, &[(0, 1 << 20), (2 << 20, 1 << 20)]);
    fallocate(&mut world, from, FallocateMode::Allocate, 1 << 20, 4096).unwrap();
    assert_eq!(copy(&mut world, (from, 100), (to, 5), u64::MAX >> 1), Ok((3 << 20) - 100), "to the end");
    assert!(world.bytes(to)[5..] == world.bytes(from)[100..]);
    assert_eq!(world.segments(to), 2, "neither the hole nor what is only set aside has a row");
    assert_eq!(copy(&mut world, (from, 3 << 20), (to, 0), 1), Ok(0), "nothing is behind the end");
    let expected = world.bytes(to);
    truncate(&mut world, from, 0).unwrap();
    assert!(world.bytes(to) == expected, "the extents outlive their first file");
    assert_eq!(world.dead(), []);
    truncate(&mut world, to, 0).unwrap();
    assert_eq!(world.dead().len(), 2);
    world.assert_sound();
}

#[test]
fn a_copy_takes_space_and_has_its_limits() {
    let mut world = World::new();
    let (from, to) = (world.file("from"), world.file("to"));
    world.write(from, &[(0, 1 << 20)]);
    assert_eq!(copy(&mut world, (from, 0), (from, 4096), 8192), Err(Errno::EINVAL), "over itself");
    assert_eq!(copy(&mut world, (from, 0), (from, 1 << 20), 1 << 20), Ok(1 << 20), "behind itself");
    assert_eq!(world.used(), 2 << 20);
    assert_eq!(copy(&mut world, (from, 0), (to, i64::MAX as u64 - 9), 10), Err(Errno::EFBIG));
    assert_eq!(copy(&mut world, (from, 0), (Ino::ROOT, 0), 10), Err(Errno::EISDIR));
    world.service(Command::SetLimit { volume: VolumeId(1), limit: (2 << 20) + 4096 });
    assert_eq!(copy(&mut world, (from, 0), (to, 0), 8192), Err(Errno::ENOSPC));
    assert_eq!(copy(&mut world, (from, 0), (to, 0), 4096), Ok(4096));
    world.service(Command::SetLimit { volume: VolumeId(1), limit: 4 << 20 });
    let small = world.file("small");
    world.commit(small, Content::Inline(vec![1; 100]), 100);
    assert_eq!(copy(&mut world, (small, 0), (to, 0), 100), Ok(0), "no extent holds these bytes");
    assert_eq!(copy(&mut world, (from, 0), (small, 50), 4096), Ok(0), "half a row is not replaced");
    assert_eq!(copy(&mut world, (from, 0), (small, 0), 4096), Ok(4096), "a whole one is");
    world.assert_sound();
}
