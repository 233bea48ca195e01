//! After a restore nothing comes again, and what the backup does not know stays for a while.

use alloc::vec;
use alloc::vec::Vec;
use types::{Epoch, Errno, ExtentId, Ino, Nanos, SessionId, VolumeId};

use super::{World, done};
use crate::{Answer, Command, GroupRow, Query, Reply};

const VOLUME: VolumeId = VolumeId(1);

fn garbage(world: &World, ids: &[ExtentId]) -> Vec<ExtentId> {
    match world.ask(Query::Garbage { ids: ids.to_vec() }) {
        Answer::Garbage(ids) => ids,
        other => panic!("{other:?}"),
    }
}

fn groups(world: &World) -> Vec<GroupRow> {
    match world.ask(Query::Groups) {
        Answer::Groups(groups) => groups,
        other => panic!("{other:?}"),
    }
}

/// A world that was backed up, went on for a while, and was restored; with what it had given out until then.
fn history(keep_until: Nanos) -> (World, World) {
    let mut world = World::new();
    let old = world.file("old");
    done(world.write(old, &[(0, 8192)])).unwrap();
    let backup = world.rows.clone();
    done(world.write(old, &[(0, 8192)])).unwrap();
    for _ in 0..3 {
        let session = world.session.session;
        assert_eq!(world.service(Command::CloseSession { volume: VOLUME, session }), Reply::Done);
        world.open(1);
        let new = world.file(&alloc::format!("new {session}"));
        done(world.write(new, &[(0, 8192)])).unwrap();
    }
    let mut restored = World::new();
    restored.time = world.time;
    restored.rows = backup;
    let sessions = vec![(VOLUME, SessionId(2)), (VOLUME, world.session.session), (VolumeId(7), SessionId(3))];
    let command = Command::Restored { epoch: Epoch(40), sessions, keep_until };
    assert_eq!(restored.service(command), Reply::Done);
    (world, restored)
}

#[test]
fn no_number_that_was_used_after_the_backup_comes_again() {
    let (lost, mut world) = history(Nanos(0));
    let old = world.lookup(Ino::ROOT, "old").unwrap().ino;
    let touch = Command::Touch { ino: old, at: Nanos(0) };
    assert_eq!(world.run(touch), Reply::Fenced, "the session of the backup is over");
    world.open(1);
    assert!(world.session.session > lost.session.session && world.session.epoch > lost.session.epoch);
    let new = world.file("new");
    let newest = lost.lookup(Ino::ROOT, "new 3").unwrap();
    assert!(new > newest.ino);
    done(world.write(new, &[(0, 10)])).unwrap();
    assert!(world.attr(new).unwrap().grant > newest.grant);
    assert!(groups(&world).iter().all(|group| group.epoch > Epoch(40)));
    assert_eq!(world.service(Command::AddDisk { disk: [2; 16], bytes: 9 }), Reply::Done);
    assert_eq!(
        world.service(Command::AddGroup { disks: vec![[2; 16]] }),
        Reply::Group(types::GroupId(2)),
        "groups are numbered without gaps"
    );
    assert!(groups(&world)[1].epoch > Epoch(40), "stores may know an epoch of another group of that id");
    let create = Command::CreateVolume {
        name: b"second".to_vec(),
        limit: 1,
        hash_key: [0; 16],
        mode: 0o755,
        cred: super::ROOT,
    };
    assert!(matches!(world.service(create), Reply::Volume(volume) if volume > VolumeId(7)));
    while world.reclaim(1_000) > 0 {}
    world.assert_sound();
}

#[test]
fn what_the_backup_does_not_know_is_kept_until_its_time_has_passed() {
    let ids = |session: u64, counters: core::ops::RangeInclusive<u64>, volume| -> Vec<ExtentId> {
        counters.map(|counter| ExtentId { volume, session: SessionId(session), counter }).collect()
    };
    let unknown =
        [ids(1, 1..=3, VOLUME), ids(2, 1..=2, VOLUME), ids(4, 1..=1, VOLUME), ids(3, 1..=1, VolumeId(7))]
            .concat();
    let (_, mut world) = history(Nanos(i64::MAX));
    assert_eq!(garbage(&world, &unknown), []);
    // What is written from now on is not held.
    world.open(1);
    let later = ids(world.session.session.0, 1..=1, VOLUME);
    let session = world.session.session;
    assert_eq!(world.service(Command::CloseSession { volume: VOLUME, session }), Reply::Done);
    assert_eq!(garbage(&world, &later), later);

    let (lost, mut world) = history(Nanos(0));
    let (named, free) = unknown.split_at(1);
    assert_eq!(garbage(&world, named), [], "the backup names it");
    assert_eq!(garbage(&world, free), free);
    assert_eq!(garbage(&world, &ids(3, 1..=1, VolumeId(900))), [], "hands off what was never given out");
    // The time of entries decides, so every voter answers the same.
    let until = Nanos(lost.time.0 + 3_000);
    let restore = Command::Restored { epoch: Epoch(1), sessions: Vec::new(), keep_until: until };
    assert_eq!(world.service(restore), Reply::Done);
    assert_eq!(garbage(&world, free), []);
    for _ in 0..3 {
        world.service(Command::Reclaim { volume: VOLUME, steps: 1 });
    }
    assert_eq!(garbage(&world, free), free);
}

#[test]
fn numbers_that_would_run_out_refuse_the_restore() {
    let mut world = World::new();
    let before = world.rows.clone();
    for (epoch, session) in [(u32::MAX, 1), (1, (1 << 48) - 1)] {
        let sessions = vec![(VOLUME, SessionId(session))];
        let command = Command::Restored { epoch: Epoch(epoch), sessions, keep_until: Nanos(0) };
        assert_eq!(world.service(command), Reply::Failed(Errno::ENOSPC));
    }
    let clock = crate::keys::clock();
    let rows = |world: &crate::MemoryRows| {
        world
            .0
            .iter()
            .filter(|(key, _)| **key != clock)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&world.rows), rows(&before));
}

#[test]
fn every_part_of_a_file_is_visited_with_its_extent() {
    let mut world = World::new();
    let (one, two) = (world.file("one"), world.file("two"));
    done(world.write(two, &[(0, 8192), (1 << 20, 100)])).unwrap();
    done(world.write(one, &[(0, 5000)])).unwrap();
    let mut found = Vec::new();
    crate::maps(&world.rows, VOLUME, &mut |ino, extent, len| {
        found.push((ino, extent.counter, len));
        true
    })
    .unwrap();
    assert_eq!(found, [(one, 3, 5000), (two, 1, 8192), (two, 2, 100)]);
    let path = |ino| world.ask(Query::Path { volume: VOLUME, ino });
    assert_eq!(path(two), Answer::Bytes(b"/two".into()));
    let dir = world.dir(Ino::ROOT, "dir");
    let link = Command::Link { ino: two, parent: dir, name: b"again".to_vec() };
    done(world.run(link)).unwrap();
    let Answer::Bytes(name) = world.ask(Query::Path { volume: VOLUME, ino: two }) else { panic!("no name") };
    assert!(name == b"/two" || name == b"/dir/again");
    let unlink = |name: &[u8]| Command::Unlink {
        parent: Ino::ROOT,
        name: name.into(),
        pinned: true,
        cred: super::ROOT,
    };
    done(world.run(unlink(b"two"))).unwrap();
    assert_eq!(world.ask(Query::Path { volume: VOLUME, ino: two }), Answer::Bytes(b"/dir/again".into()));
    done(world.run(unlink(b"one"))).unwrap();
    assert_eq!(world.ask(Query::Path { volume: VOLUME, ino: one }), Answer::Failed(Errno::ENOENT));
}
