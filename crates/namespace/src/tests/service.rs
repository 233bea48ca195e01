//! Slots, sessions, nodes, volumes, garbage.

use alloc::vec;
use alloc::vec::Vec;
use types::{Epoch, Errno, ExtentId, Ino, Nanos, SessionId, VolumeId};

use super::{ROOT, World, done};
use crate::{Answer, Command, Content, Envelope, Query, Reply, SlotRef};

fn mkdir(name: &[u8]) -> Command {
    Command::Create {
        parent: Ino::ROOT,
        name: name.to_vec(),
        kind: crate::NewKind::Directory,
        mode: 0o755,
        umask: 0,
        cred: ROOT,
    }
}

fn send(world: &mut World, slot: SlotRef, command: Command) -> Reply {
    world.entry(vec![Envelope { slot: Some(slot), command }]).remove(0)
}

#[test]
fn a_slot_executes_once() {
    let mut world = World::new();
    let at = |seq| move |world: &World| world.slot(3, seq);
    let first = at(1)(&world);
    let made = send(&mut world, first, mkdir(b"a"));
    assert!(matches!(made, Reply::Attr(_)));
    assert_eq!(send(&mut world, first, mkdir(b"a")), made, "a repeat is answered");
    assert_eq!(send(&mut world, first, mkdir(b"b")), Reply::SlotMisuse, "another command of the same number");
    let third = at(3)(&world);
    assert_eq!(send(&mut world, third, mkdir(b"b")), Reply::SlotMisuse, "a number is left out");
    let second = at(2)(&world);
    let failed = Reply::Failed(Errno::EEXIST);
    assert_eq!(send(&mut world, second, mkdir(b"a")), failed);
    let rmdir = Command::Rmdir { parent: Ino::ROOT, name: b"a".to_vec(), pinned: false, cred: ROOT };
    assert_eq!(done(world.run(rmdir)), Ok(()));
    assert_eq!(send(&mut world, second, mkdir(b"a")), failed, "errors are remembered too");
    assert_eq!(send(&mut world, first, mkdir(b"a")), Reply::ReplyGone);
    assert_eq!(world.lookup(Ino::ROOT, "a"), Err(Errno::ENOENT));
    let zero = world.slot(9, 0);
    assert_eq!(send(&mut world, zero, mkdir(b"z")), Reply::SlotMisuse, "the first is 1");
    world.assert_sound();
}

#[test]
fn only_the_open_session_with_its_epoch_is_heard() {
    let mut world = World::new();
    let good = world.slot(0, 1);
    let strangers = [
        SlotRef { epoch: Epoch(good.epoch.0 + 1), ..good },
        SlotRef { epoch: Epoch(0), ..good },
        SlotRef { session: SessionId(good.session.0 + 1), ..good },
        SlotRef { session: SessionId(u64::MAX), ..good },
        SlotRef { volume: VolumeId(0), ..good },
        SlotRef { volume: VolumeId(99), ..good },
    ];
    for slot in strangers {
        assert_eq!(send(&mut world, slot, mkdir(b"a")), Reply::Fenced, "{slot:?}");
    }
    let close = Command::CloseSession { volume: VolumeId(1), session: good.session };
    assert_eq!(world.service(close.clone()), Reply::Done);
    assert_eq!(world.service(close), Reply::Done);
    assert_eq!(send(&mut world, good, mkdir(b"a")), Reply::Fenced);
    let without = world.service(mkdir(b"a"));
    assert_eq!(without, Reply::Failed(Errno::EINVAL), "a mount's command needs a slot");
    while world.reclaim(1) > 0 {}
    world.assert_sound();
}

#[test]
fn a_refused_command_leaves_nothing_to_the_next_of_its_entry() {
    let mut world = World::new();
    let set_limit = Command::SetLimit { volume: VolumeId(1), limit: 0 };
    assert_eq!(world.service(set_limit), Reply::Done);
    let ino = world.file("f");
    let fallocate = Command::Fallocate {
        ino,
        mode: crate::FallocateMode::Allocate,
        offset: 0,
        len: 4096,
        kill_priv: false,
    };
    let envelope = |world: &mut World, command| {
        world.seq += 1;
        Envelope { slot: Some(world.slot(0, world.seq)), command }
    };
    let commands = vec![
        envelope(&mut world, mkdir(b"a")),
        envelope(&mut world, fallocate),
        envelope(&mut world, mkdir(b"a")),
        envelope(&mut world, mkdir(b"b")),
    ];
    let replies = world.entry(commands);
    assert!(matches!(replies[0], Reply::Attr(_)));
    assert_eq!(replies[1], Reply::Failed(Errno::ENOSPC));
    assert_eq!(replies[2], Reply::Failed(Errno::EEXIST), "it sees what the first did");
    assert!(matches!(replies[3], Reply::Attr(_)));
    let attr = world.attr(ino).unwrap();
    assert_eq!((attr.size, attr.allocated, world.used()), (0, 0, 0));
    world.assert_sound();
}

#[test]
fn time_never_runs_back() {
    let mut world = World::new();
    let ino = world.file("f");
    let before = world.attr(ino).unwrap().ctime;
    world.time = Nanos(5);
    let chmod = Command::SetXattr {
        ino,
        name: b"user.a".to_vec(),
        value: vec![],
        mode: crate::XattrMode::Set,
        cred: ROOT,
    };
    done(world.run(chmod)).unwrap();
    assert_eq!(world.attr(ino).unwrap().ctime, Nanos(before.0 + 1));
}

#[test]
fn a_later_start_of_a_node_ends_its_sessions() {
    let mut world = World::new();
    let open = |incarnation| Command::OpenSession { volume: VolumeId(1), node: 7, incarnation };
    assert_eq!(world.service(open(1)), Reply::Failed(Errno::EBUSY));
    assert_eq!(world.service(open(2)), Reply::Failed(Errno::ESTALE), "not registered yet");
    let ino = world.file("f");
    world.grant(ino);
    let unlink = Command::Unlink { parent: Ino::ROOT, name: b"f".to_vec(), pinned: true, cred: ROOT };
    done(world.run(unlink)).unwrap();
    assert!(world.attr(ino).is_ok(), "it is open");
    let old = world.slot(0, world.seq + 1);

    let register = |incarnation| Command::RegisterNode { node: 7, incarnation };
    assert_eq!(world.service(register(1)), Reply::Done);
    assert_eq!(done(world.service(open(1))), Err(Errno::EBUSY), "the same start again ends nothing");
    assert_eq!(world.service(register(2)), Reply::Done);
    assert_eq!(world.service(register(1)), Reply::Failed(Errno::ESTALE));
    assert_eq!(world.service(open(1)), Reply::Failed(Errno::ESTALE));
    assert_eq!(send(&mut world, old, mkdir(b"a")), Reply::Fenced);
    let ids = (world.session.session, world.session.epoch);
    world.open(2);
    assert!((world.session.session, world.session.epoch) > ids, "neither is used again");
    world.assert_sound();
    while world.reclaim(1) > 0 {
        world.assert_sound();
    }
    assert_eq!(world.attr(ino), Err(Errno::ESTALE), "nobody has it open any more");
    let sessions = Answer::Sessions(vec![world.session]);
    assert_eq!(world.ask(Query::Sessions { volume: VolumeId(1) }), sessions);
}

#[test]
fn volumes_and_groups() {
    let mut world = World::new();
    let create = |name: &[u8], limit| Command::CreateVolume {
        name: name.to_vec(),
        limit,
        hash_key: [1; 16],
        mode: 0o700,
        cred: ROOT,
    };
    assert_eq!(world.service(create(b"home", 5)), Reply::Volume(VolumeId(1)), "by name, and nothing changes");
    assert_eq!(world.service(create(b"other-2", 5)), Reply::Volume(VolumeId(2)));
    for name in [b"".as_slice(), b"Home", b"a b", b"a_b", &[b'a'; 64]] {
        assert_eq!(world.service(create(name, 5)), Reply::Failed(Errno::EINVAL));
    }
    let Answer::Volumes(volumes) = world.ask(Query::Volumes) else { panic!() };
    let names: Vec<(u32, &[u8], u64)> =
        volumes.iter().map(|v| (v.id.0, v.name.as_slice(), v.limit)).collect();
    assert_eq!(names, [(1, b"home".as_slice(), super::LIMIT), (2, b"other-2", 5)]);
    let missing = Answer::Failed(Errno::ENOENT);
    assert_eq!(world.ask(Query::VolumeByName { name: b"none".to_vec() }), missing);
    assert_eq!(world.ask(Query::Volume { volume: VolumeId(0) }), missing);

    world.assert_sound();
}

#[test]
fn garbage_is_what_no_session_can_commit_any_more() {
    let mut world = World::new();
    let session = world.session.session;
    let id = |session: SessionId, counter| ExtentId { volume: VolumeId(1), session, counter };
    let ino = world.file("f");
    done(world.write(ino, &[(0, 100)])).unwrap();
    let ids: Vec<ExtentId> = (1..=3).map(|counter| id(session, counter)).collect();
    let ask = |world: &World, ids: &[ExtentId]| match world.ask(Query::Garbage { ids: ids.to_vec() }) {
        Answer::Garbage(ids) => ids,
        other => panic!("{other:?}"),
    };
    assert_eq!(ask(&world, &ids), []);
    let settle = |settled| Command::Settle { volume: VolumeId(1), session, settled };
    assert_eq!(world.service(settle(3)), Reply::Done);
    assert_eq!(world.service(settle(2)), Reply::Done, "it never moves down");
    assert_eq!(ask(&world, &ids), [ids[1]], "the first has a row, the third may come");
    world.counter = 1;
    assert_eq!(world.write(ino, &[(0, 10)]), Reply::Failed(Errno::ESTALE), "it was given up");
    let unknown =
        [id(SessionId(0), 1), id(SessionId(session.0 + 1), 1), ExtentId { volume: VolumeId(9), ..ids[0] }];
    assert_eq!(ask(&world, &unknown), [], "hands off what was never given out");
    let close = Command::CloseSession { volume: VolumeId(1), session };
    assert_eq!(world.service(close), Reply::Done);
    assert_eq!(ask(&world, &ids), ids[1..]);
    assert_eq!(world.service(settle(9)), Reply::Fenced);
}

#[test]
fn an_older_writer_can_commit_no_more() {
    let mut world = World::new();
    let ino = world.file("f");
    let inline = |byte: u8| Content::Inline(vec![byte; 10]);
    let old = world.grant(ino);
    world.grants.clear();
    let new = world.grant(ino);
    assert!(new.0 > old.0);
    let mut commit = crate::Commit {
        ino,
        grant: old.0,
        applied: old.1,
        content: inline(1),
        size: 10,
        mtime: Some(Nanos(0)),
        kill_priv: false,
    };
    assert_eq!(world.run(Command::Commit(commit.clone())), Reply::Failed(Errno::ESTALE));
    commit.grant = new.0;
    let Reply::Attr(attr) = world.run(Command::Commit(commit.clone())) else { panic!() };
    assert_eq!((attr.grant, attr.applied, attr.size), (new.0, new.1, 10));
    commit.content = inline(2);
    assert_eq!(world.run(Command::Commit(commit)), Reply::Attr(attr), "it is in already");
    assert_eq!(world.bytes(ino), [1; 10]);
    // A new grant counts its records anew.
    world.grants.clear();
    let Reply::Attr(attr) = world.commit(ino, inline(3), 10) else { panic!() };
    assert_eq!(attr.applied, new.1);
    assert_eq!(world.bytes(ino), [3; 10]);
}
