//! Names and attributes: what the system calls' pages promise.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use types::{Errno, Ino, Nanos, VolumeId};

use super::{ROOT, World, attr_of, done};
use crate::{
    Answer, Command, Content, Cred, FileKind, NewKind, Query, RenameMode, SetAttr, SetTime, XattrMode,
};

const USER: Cred = Cred { uid: 1000, gid: 100 };

fn chmod(world: &mut World, ino: Ino, mode: u32) {
    let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
    done(world.run(Command::SetAttr { ino, set, kill_priv: false, applied: None, cred: ROOT })).unwrap();
}

fn rename(world: &mut World, from: (Ino, &str), to: (Ino, &str), mode: RenameMode) -> Result<(), Errno> {
    done(world.run(Command::Rename {
        parent: from.0,
        name: from.1.into(),
        new_parent: to.0,
        new_name: to.1.into(),
        mode,
        pinned: false,
        cred: ROOT,
    }))
}

#[test]
fn names_that_nobody_can_have() {
    let mut world = World::new();
    let long = "x".repeat(256);
    for (name, errno) in [
        ("", Errno::EINVAL),
        (".", Errno::EINVAL),
        ("..", Errno::EINVAL),
        ("a/b", Errno::EINVAL),
        ("a\0", Errno::EINVAL),
        (long.as_str(), Errno::ENAMETOOLONG),
    ] {
        let got = world.create_as(Ino::ROOT, name, NewKind::File, 0o644, ROOT);
        assert_eq!(got.map(|_| ()), Err(errno), "{name:?}");
        assert_eq!(rename(&mut world, (Ino::ROOT, name), (Ino::ROOT, "a"), RenameMode::Replace), Err(errno));
        assert_eq!(world.lookup(Ino::ROOT, name), Err(errno));
    }
    assert!(world.create_as(Ino::ROOT, &long[1..], NewKind::File, 0o644, ROOT).is_ok());
    for (path, errno) in
        [(vec![], Errno::EINVAL), (vec![b'a'; 4096], Errno::ENAMETOOLONG), (vec![0], Errno::EINVAL)]
    {
        let got = world.create_as(Ino::ROOT, "link", NewKind::Symlink(path), 0, ROOT);
        assert_eq!(got.map(|_| ()), Err(errno));
    }
    assert_eq!(world.lookup(Ino::ROOT, "link"), Err(Errno::ENOENT));
}

#[test]
fn a_directory_does_not_go_into_itself() {
    let mut world = World::new();
    let a = world.dir(Ino::ROOT, "a");
    let b = world.dir(a, "b");
    let c = world.dir(b, "c");
    world.file("f");
    for mode in [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Whiteout] {
        assert_eq!(rename(&mut world, (Ino::ROOT, "a"), (a, "x"), mode), Err(Errno::EINVAL));
        assert_eq!(rename(&mut world, (Ino::ROOT, "a"), (c, "x"), mode), Err(Errno::EINVAL));
    }
    assert_eq!(rename(&mut world, (b, "c"), (Ino::ROOT, "a"), RenameMode::Exchange), Err(Errno::EINVAL));
    assert_eq!(rename(&mut world, (Ino::ROOT, "a"), (b, "c"), RenameMode::Exchange), Err(Errno::EINVAL));
    assert_eq!(rename(&mut world, (b, "c"), (Ino::ROOT, "a"), RenameMode::Replace), Err(Errno::ENOTEMPTY));
    assert_eq!(rename(&mut world, (Ino::ROOT, "f"), (a, "b"), RenameMode::Replace), Err(Errno::EISDIR));
    assert_eq!(rename(&mut world, (a, "b"), (Ino::ROOT, "f"), RenameMode::Replace), Err(Errno::ENOTDIR));
    rename(&mut world, (b, "c"), (Ino::ROOT, "f"), RenameMode::Exchange).unwrap();
    let nlink = |world: &World, ino| world.attr(ino).unwrap().nlink;
    assert_eq!((nlink(&world, Ino::ROOT), nlink(&world, b)), (4, 2));
    let parent = Query::Parent { volume: VolumeId(1), ino: c };
    assert_eq!(world.ask(parent), Answer::Parent(Ino::ROOT));
    world.assert_sound();
}

#[test]
fn sticky_and_set_group_id_directories() {
    let mut world = World::new();
    let tmp = world.dir(Ino::ROOT, "tmp");
    chmod(&mut world, tmp, 0o1777);
    world.create_as(tmp, "theirs", NewKind::File, 0o644, Cred { uid: 5, gid: 5 }).unwrap();
    world.create_as(tmp, "mine", NewKind::File, 0o644, USER).unwrap();
    let unlink = |name: &str, cred| Command::Unlink { parent: tmp, name: name.into(), pinned: false, cred };
    assert_eq!(done(world.run(unlink("theirs", USER))), Err(Errno::EPERM));
    assert_eq!(done(world.run(unlink("mine", USER))), Ok(()));
    assert_eq!(done(world.run(unlink("theirs", ROOT))), Ok(()));

    let set = SetAttr { mode: Some(0o2775), gid: Some(77), ..SetAttr::default() };
    let team = world.dir(Ino::ROOT, "team");
    done(world.run(Command::SetAttr { ino: team, set, kill_priv: false, applied: None, cred: ROOT }))
        .unwrap();
    let file = world.create_as(team, "f", NewKind::File, 0o666, USER).unwrap();
    assert_eq!((file.gid, file.mode), (77, 0o644));
    let dir = world.create_as(team, "d", NewKind::Directory, 0o777, USER).unwrap();
    assert_eq!((dir.gid, dir.mode), (77, 0o2755));
}

#[test]
fn privileges_go_when_others_write() {
    for (mode, left) in [(0o6755, 0o755), (0o6745, 0o2745), (0o4711, 0o711), (0o755, 0o755)] {
        let mut world = World::new();
        let ino = world.file("f");
        chmod(&mut world, ino, mode);
        let name = b"security.capability".to_vec();
        let set =
            Command::SetXattr { ino, name: name.clone(), value: vec![1], mode: XattrMode::Set, cred: ROOT };
        done(world.run(set)).unwrap();
        let (grant, applied) = world.grant(ino);
        let content = Content::Inline(vec![1]);
        let mtime = Some(Nanos(0));
        let commit = crate::Commit { ino, grant, applied, content, size: 1, mtime, kill_priv: true };
        assert_eq!(attr_of(world.run(Command::Commit(commit))).unwrap().mode, left);
        let get = Query::GetXattr { volume: VolumeId(1), ino, name };
        assert_eq!(world.ask(get), Answer::Failed(Errno::ENODATA));
        world.assert_sound();
    }
}

#[test]
fn times_of_writes_are_between_the_old_and_now() {
    let mut world = World::new();
    let ino = world.file("f");
    let born = world.attr(ino).unwrap().mtime;
    let write = |world: &mut World, mtime: Option<i64>| {
        let (grant, applied) = world.grant(ino);
        let content = Content::Inline(vec![1]);
        let mtime = mtime.map(Nanos);
        let commit = crate::Commit { ino, grant, applied, content, size: 1, mtime, kill_priv: false };
        attr_of(world.run(Command::Commit(commit))).unwrap().mtime
    };
    assert_eq!(write(&mut world, Some(0)), born);
    assert_eq!(write(&mut world, Some(born.0 + 10)), Nanos(born.0 + 10));
    assert_eq!(write(&mut world, Some(i64::MAX)), world.time);
    let set = SetAttr { mtime: Some(SetTime::To(Nanos(i64::MAX))), ..SetAttr::default() };
    done(world.run(Command::SetAttr { ino, set, kill_priv: false, applied: None, cred: ROOT })).unwrap();
    assert_eq!(write(&mut world, None), Nanos(i64::MAX), "it was set after it was written");
    assert_eq!(write(&mut world, Some(3)), world.time, "a file from the future is written now");
}

#[test]
fn relatime() {
    let mut world = World::new();
    let ino = world.file("f");
    let touch = |world: &mut World, at| attr_of(world.run(Command::Touch { ino, at })).unwrap();
    let first = touch(&mut world, Nanos(i64::MAX));
    assert_eq!(first.atime, world.time, "nobody reads in the future");
    assert_eq!(touch(&mut world, Nanos(i64::MAX)), first, "it is newer than the data");
    let read = Nanos(first.atime.0 + 24 * 3600 * 1_000_000_000);
    world.time.0 = read.0 + 77;
    let day = touch(&mut world, read);
    assert_eq!((day.atime, day.ctime, day.change), (read, first.ctime, first.change));
    assert_eq!(touch(&mut world, first.atime), day, "it never goes back");
}

#[test]
fn extended_attributes_are_bounded() {
    let mut world = World::new();
    let ino = world.file("f");
    let set = |world: &mut World, name: &[u8], len| {
        let value = vec![0; len];
        done(world.run(Command::SetXattr {
            ino,
            name: name.to_vec(),
            value,
            mode: XattrMode::Set,
            cred: ROOT,
        }))
    };
    let long = [b"user.".as_slice(), &[b'a'; 251]].concat();
    assert_eq!(set(&mut world, b"user.", 1), Err(Errno::EINVAL));
    assert_eq!(set(&mut world, b"system.posix_acl_access", 1), Err(Errno::EINVAL), "not a list");
    assert_eq!(set(&mut world, b"system.posix_acl_access", 4097), Err(Errno::E2BIG));
    assert_eq!(set(&mut world, b"system.other", 1), Err(Errno::EOPNOTSUPP));
    assert_eq!(set(&mut world, &long, 1), Err(Errno::ERANGE));
    assert_eq!(set(&mut world, &long[..255], 1), Ok(()));
    assert_eq!(set(&mut world, b"user.a", 65_537), Err(Errno::E2BIG));
    for i in 0..15 {
        assert_eq!(set(&mut world, format!("user.{i}").as_bytes(), 65_536), Ok(()));
    }
    assert_eq!(set(&mut world, b"user.15", 65_536), Err(Errno::ENOSPC));
    world.assert_sound();
}

#[test]
fn equal_hashes_have_256_places() {
    let mut world = World::new();
    world.set_hash_bits(1);
    for i in 0..256 {
        world.file(&format!("f{i}"));
    }
    let got = world.create_as(Ino::ROOT, "more", NewKind::File, 0o644, ROOT);
    assert_eq!(got.map(|_| ()), Err(Errno::ENOSPC));
    let unlink = Command::Unlink { parent: Ino::ROOT, name: b"f77".to_vec(), pinned: false, cred: ROOT };
    done(world.run(unlink)).unwrap();
    world.file("more");
    for i in (0..256).filter(|i| *i != 77) {
        assert!(world.lookup(Ino::ROOT, &format!("f{i}")).is_ok());
    }
    world.assert_sound();
}

#[test]
fn untouched_names_are_read_exactly_once_whatever_changes_around_them() {
    let mut world = World::new();
    let dir = world.dir(Ino::ROOT, "d");
    for i in 0..1500 {
        world.create_as(dir, &format!("stay{i}"), NewKind::File, 0o644, ROOT).unwrap();
        world.create_as(dir, &format!("go{i}"), NewKind::File, 0o644, ROOT).unwrap();
    }
    let (mut after, mut round) = (2, 0);
    let mut seen: Vec<String> = Vec::new();
    loop {
        let list = Query::ReadDir { volume: VolumeId(1), ino: dir, after, max: 100, attrs: false };
        let Answer::Entries(entries) = world.ask(list) else { panic!() };
        let Some(last) = entries.last() else { break };
        after = last.cookie;
        seen.extend(entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()));
        for i in round * 40..round * 40 + 40 {
            let (go, new) = (format!("go{i}"), format!("new{i}"));
            let _ = rename(&mut world, (dir, &go), (dir, &new), RenameMode::Replace);
            let _ = world.create_as(dir, &format!("fresh{i}"), NewKind::Fifo, 0, ROOT);
        }
        round += 1;
    }
    seen.retain(|name| name.starts_with("stay"));
    seen.sort();
    assert_eq!(seen.len(), 1500);
    seen.dedup();
    assert_eq!(seen.len(), 1500);
    world.assert_sound();
}

#[test]
fn a_removed_directory_takes_no_names() {
    let mut world = World::new();
    let dir = world.dir(Ino::ROOT, "d");
    let file = world.file("f");
    let rmdir = Command::Rmdir { parent: Ino::ROOT, name: b"d".to_vec(), pinned: true, cred: ROOT };
    done(world.run(rmdir)).unwrap();
    assert_eq!(world.attr(dir).unwrap().nlink, 0);
    let got = world.create_as(dir, "x", NewKind::File, 0o644, ROOT);
    assert_eq!(got.map(|_| ()), Err(Errno::ENOENT));
    let link = Command::Link { ino: file, parent: dir, name: b"x".to_vec() };
    assert_eq!(done(world.run(link)), Err(Errno::ENOENT));
    assert_eq!(rename(&mut world, (Ino::ROOT, "f"), (dir, "x"), RenameMode::Replace), Err(Errno::ENOENT));
    done(world.run(Command::Unpin { ino: dir })).unwrap();
    assert_eq!(world.attr(dir), Err(Errno::ESTALE));
    world.reclaim(10);
    world.assert_sound();
}

#[test]
fn links_have_a_bound() {
    let mut world = World::new();
    let ino = world.file("f");
    let key = crate::keys::inode(VolumeId(1), ino);
    let row = crate::row::get::<crate::row::inode::Inode>(&world.rows, &key).unwrap().unwrap();
    let row = crate::row::inode::Inode { nlink: i32::MAX as u32, ..row };
    world.rows.0.insert(key, crate::row::value(&row));
    let link = Command::Link { ino, parent: Ino::ROOT, name: b"x".to_vec() };
    assert_eq!(done(world.run(link)), Err(Errno::EMLINK));
    assert_eq!(world.lookup(Ino::ROOT, "x"), Err(Errno::ENOENT));
}

#[test]
fn a_whiteout_takes_the_old_name() {
    let mut world = World::new();
    let ino = world.file("f");
    rename(&mut world, (Ino::ROOT, "f"), (Ino::ROOT, "g"), RenameMode::Whiteout).unwrap();
    let whiteout = world.lookup(Ino::ROOT, "f").unwrap();
    assert_eq!((whiteout.kind, whiteout.rdev, whiteout.mode), (FileKind::CharDevice, 0, 0));
    assert_eq!(world.lookup(Ino::ROOT, "g").unwrap().ino, ino);
    let mode = RenameMode::NoReplaceWhiteout;
    assert_eq!(rename(&mut world, (Ino::ROOT, "g"), (Ino::ROOT, "f"), mode), Err(Errno::EEXIST));
    world.assert_sound();
}
