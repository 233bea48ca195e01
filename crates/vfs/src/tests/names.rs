//! Names, references and pins.

use std::time::Duration;

use namespace::{Answer, NewKind, SetAttr, XattrMode};
use types::{Errno, Ino};

use super::bench::{Bench, READ_WRITE};
use crate::{Handle, Listed, Op, OpenFlags, Outcome, RenameFlags};

fn rename(from: &str, to: &str, flags: RenameFlags) -> Op {
    Op::Rename { parent: Ino::ROOT, name: from.into(), new_parent: Ino::ROOT, new_name: to.into(), flags }
}

#[tokio::test]
async fn what_was_created_is_found_and_forgotten() {
    let bench = Bench::new().await;
    let dir = bench.make(Ino::ROOT, "dir", NewKind::Directory).await;
    let (ino, handle) = bench.create("file").await;
    assert_eq!(bench.lookup(Ino::ROOT, "file").await.map(|attr| attr.ino), Some(ino));
    assert_eq!(bench.nodes(), 2);
    bench.release(ino, handle).await;
    bench.forget(ino, 1).await;
    assert_eq!(bench.nodes(), 2, "one reference is left");
    bench.forget(ino, 1).await;
    bench.forget(dir, 1).await;
    assert_eq!(bench.nodes(), 0);
}

#[tokio::test]
async fn a_forgotten_file_is_remembered_until_its_data_is_flushed() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 0, b"hello").await.expect("write");
    bench.release(ino, handle).await;
    bench.forget(ino, 1).await;
    assert_eq!(bench.nodes(), 1);
    assert_eq!(bench.attr(ino).await.size, 5);
    bench.vfs.flush_everything().await.expect("flush");
    assert_eq!(bench.nodes(), 0);
    assert_eq!(bench.attr(ino).await.size, 5);
}

#[tokio::test]
async fn an_absent_name_may_be_remembered() {
    let bench = Bench::new().await;
    let lookup = |name: &[u8]| Op::Lookup { parent: Ino::ROOT, name: name.to_vec() };
    let absent = bench.run(lookup(b"nothing")).await;
    assert!(matches!(absent, Ok(Outcome::NoEntry { ttl }) if ttl > Duration::ZERO), "{absent:?}");
    assert_eq!(bench.run(lookup(&[b'x'; 256])).await, Err(Errno::ENAMETOOLONG));
    let dot = bench.run(lookup(b"..")).await;
    assert!(matches!(dot, Ok(Outcome::Entry { attr, .. }) if attr.ino == Ino::ROOT), "{dot:?}");
}

#[tokio::test]
async fn errors_of_names() {
    let bench = Bench::new().await;
    let (file, handle) = bench.create("file").await;
    let dir = bench.make(Ino::ROOT, "dir", NewKind::Directory).await;
    bench.make(dir, "inside", NewKind::Fifo).await;
    let none = RenameFlags::default();
    let name = |name: &str| name.as_bytes().to_vec();
    let create = |name: &[u8], kind| Op::Create {
        parent: Ino::ROOT,
        name: name.to_vec(),
        kind,
        mode: 0o600,
        umask: 0,
        open: None,
    };
    let long = "x".repeat(256);
    let cases = [
        (create(b"file", NewKind::File), Errno::EEXIST),
        (create(long.as_bytes(), NewKind::File), Errno::ENAMETOOLONG),
        (create(b"..", NewKind::Directory), Errno::EINVAL),
        (create(b"a/b", NewKind::File), Errno::EINVAL),
        (create(b"", NewKind::File), Errno::ENOENT),
        (Op::Unlink { parent: Ino::ROOT, name: name("nothing") }, Errno::ENOENT),
        (Op::Unlink { parent: Ino::ROOT, name: name("dir") }, Errno::EISDIR),
        (Op::Unlink { parent: file, name: name("x") }, Errno::ENOTDIR),
        (Op::Rmdir { parent: Ino::ROOT, name: name("file") }, Errno::ENOTDIR),
        (Op::Rmdir { parent: Ino::ROOT, name: name("dir") }, Errno::ENOTEMPTY),
        (Op::Rmdir { parent: Ino::ROOT, name: name(".") }, Errno::EINVAL),
        (Op::Rmdir { parent: Ino::ROOT, name: name("..") }, Errno::ENOTEMPTY),
        (rename("nothing", "x", none), Errno::ENOENT),
        (rename("file", "dir", none), Errno::EISDIR),
        (rename("dir", "file", none), Errno::ENOTDIR),
        (rename("file", ".", none), Errno::EBUSY),
        (rename("file", "dir", RenameFlags { no_replace: true, ..none }), Errno::EEXIST),
        (rename("file", "dir", RenameFlags { exchange: true, whiteout: true, ..none }), Errno::EINVAL),
        (rename("file", "nothing", RenameFlags { exchange: true, ..none }), Errno::ENOENT),
        (Op::Link { ino: dir, parent: Ino::ROOT, name: name("x") }, Errno::EPERM),
        (Op::Link { ino: file, parent: Ino::ROOT, name: name("dir") }, Errno::EEXIST),
        (Op::ReadLink { ino: file }, Errno::EINVAL),
        (Op::OpenDir { ino: file }, Errno::ENOTDIR),
        (Op::Open { ino: dir, flags: READ_WRITE }, Errno::EISDIR),
        (Op::Open { ino: Ino(999), flags: READ_WRITE }, Errno::ESTALE),
        (Op::GetAttr { ino: Ino(999) }, Errno::ESTALE),
    ];
    for (op, errno) in cases {
        assert_eq!(bench.run(op.clone()).await, Err(errno), "{op:?}");
    }
    bench.release(file, handle).await;
    assert_eq!(bench.nodes(), 3, "what failed is not remembered");
}

#[tokio::test]
async fn an_open_file_outlives_its_name() {
    let mut bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    let second = bench.open(ino).await;
    bench.write(ino, handle, 0, b"before").await.expect("write");
    bench.unlink(Ino::ROOT, "file").await.expect("unlink");
    assert_eq!(bench.lookup(Ino::ROOT, "file").await, None);
    bench.write(ino, handle, 6, &[7; 9000]).await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
    bench.write(ino, handle, 0, b"B").await.expect("write");
    assert_eq!(bench.read(ino, second, 0, 8).await.expect("read"), b"Before\x07\x07");
    assert_eq!(bench.attr(ino).await.nlink, 0);
    let reopened = bench.open(ino).await;
    for handle in [handle, second] {
        bench.release(ino, handle).await;
    }
    assert_eq!(bench.service.calls("Unpin"), 0, "it is still open");
    assert!(matches!(bench.row(ino).await, Answer::Attr(_)));
    bench.release(ino, reopened).await;
    assert_eq!(bench.row(ino).await, Answer::Failed(Errno::ESTALE));
    assert_eq!(bench.service.calls("Unpin"), 1);
    assert_eq!(bench.arena.record_count(), 0, "nobody's data");

    // The kernel still refers to it.
    let attr = bench.attr(ino).await;
    assert_eq!((attr.nlink, attr.size), (0, 9006));
    assert_eq!(bench.run(Op::Open { ino, flags: READ_WRITE }).await, Err(Errno::ESTALE));
    bench.forget(ino, 1).await;
    assert_eq!(bench.run(Op::GetAttr { ino }).await, Err(Errno::ESTALE));
    assert_eq!(bench.nodes(), 0);
    bench.power_cut().await;
    assert_eq!(bench.lookup(Ino::ROOT, "file").await, None);
}

#[tokio::test]
async fn a_closed_file_goes_with_its_last_name_and_its_data() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 0, b"data").await.expect("write");
    bench.release(ino, handle).await;
    bench.run(Op::Link { ino, parent: Ino::ROOT, name: b"other".to_vec() }).await.expect("link");
    bench.unlink(Ino::ROOT, "file").await.expect("unlink");
    assert_eq!(bench.attr(ino).await.nlink, 1);
    assert_eq!(bench.arena.record_count(), 1);
    bench.unlink(Ino::ROOT, "other").await.expect("unlink");
    assert_eq!(bench.arena.record_count(), 0);
    assert_eq!(bench.row(ino).await, Answer::Failed(Errno::ESTALE));
    assert_eq!((bench.attr(ino).await.nlink, bench.attr(ino).await.size), (0, 4));
    assert_eq!(bench.service.calls("Commit") + bench.service.calls("Unpin"), 0);
}

#[tokio::test]
async fn a_file_that_was_looked_up_and_dropped_from_memory_outlives_its_name_until_it_is_forgotten() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.release(ino, handle).await;
    for at in 0..20_000 {
        bench.make(Ino::ROOT, &format!("other-{at}"), NewKind::File).await;
    }
    assert!(bench.nodes() < 17_000, "{}", bench.nodes());
    bench.unlink(Ino::ROOT, "file").await.expect("unlink");
    assert_eq!(bench.attr(ino).await.nlink, 0, "the kernel may still ask for it");
    let nodes = bench.nodes();
    bench.forget(ino, 1).await;
    assert_eq!(bench.nodes(), nodes - 1);
}

#[tokio::test]
async fn a_replaced_file_stays_for_who_has_it_open() {
    let bench = Bench::new().await;
    let (old, old_handle) = bench.create("old").await;
    bench.write(old, old_handle, 0, b"old").await.expect("write");
    let (new, new_handle) = bench.create("new").await;
    bench.write(new, new_handle, 0, b"newer").await.expect("write");
    bench.run(rename("new", "old", RenameFlags::default())).await.expect("rename");
    assert!(
        matches!(bench.row(new).await, Answer::Attr(attr) if attr.size == 5),
        "flushed before it went over"
    );
    assert_eq!(bench.read(old, old_handle, 0, 9).await.expect("read"), b"old");
    assert_eq!(bench.attr(old).await.nlink, 0);
    bench.release(old, old_handle).await;
    assert_eq!(bench.row(old).await, Answer::Failed(Errno::ESTALE));
    let there = bench.lookup(Ino::ROOT, "old").await.map(|attr| (attr.ino, attr.size));
    assert_eq!(there, Some((new, 5)));
}

#[tokio::test]
async fn a_removed_directory_stays_for_who_has_it_open() {
    let bench = Bench::new().await;
    let dir = bench.make(Ino::ROOT, "dir", NewKind::Directory).await;
    let Ok(Outcome::Opened { handle, .. }) = bench.run(Op::OpenDir { ino: dir }).await else {
        panic!("opendir");
    };
    bench.run(Op::Rmdir { parent: Ino::ROOT, name: b"dir".to_vec() }).await.expect("rmdir");
    let list = bench.run(Op::ReadDir { ino: dir, handle, after: 0, max: 10, plus: false }).await;
    assert!(matches!(&list, Ok(Outcome::Entries(entries)) if entries.len() == 2), "{list:?}");
    assert_eq!(bench.attr(dir).await.nlink, 0);
    bench.run(Op::ReleaseDir { ino: dir, handle }).await.expect("closedir");
    assert_eq!(bench.row(dir).await, Answer::Failed(Errno::ESTALE));
    assert_eq!(bench.attr(dir).await.nlink, 0);
}

#[tokio::test]
async fn attributes_that_others_change_are_never_remembered_too_long() {
    let bench = Bench::new().await;
    let dir = bench.make(Ino::ROOT, "dir", NewKind::Directory).await;
    let file = bench.make(dir, "file", NewKind::File).await;
    let name = |name: &str| name.as_bytes().to_vec();
    let changes = [
        Op::Create {
            parent: dir,
            name: name("sub"),
            kind: NewKind::Directory,
            mode: 0o700,
            umask: 0,
            open: None,
        },
        Op::Link { ino: file, parent: dir, name: name("two") },
        Op::SetXattr { ino: file, name: name("user.a"), value: vec![1], mode: XattrMode::Set },
        Op::RemoveXattr { ino: file, name: name("user.a") },
        Op::Unlink { parent: dir, name: name("two") },
        Op::Rename {
            parent: dir,
            name: name("sub"),
            new_parent: Ino::ROOT,
            new_name: name("sub"),
            flags: RenameFlags::default(),
        },
        Op::Rmdir { parent: Ino::ROOT, name: name("sub") },
    ];
    for op in changes {
        bench.run(op.clone()).await.expect("a change");
        for ino in [Ino::ROOT, dir, file] {
            let shown = bench.attr(ino).await;
            assert_eq!(bench.row(ino).await, Answer::Attr(shown), "{ino} after {op:?}");
        }
    }
}

#[tokio::test]
async fn directories_are_read_in_pieces_and_count_references() {
    let bench = Bench::new().await;
    let dir = bench.make(Ino::ROOT, "dir", NewKind::Directory).await;
    for n in 0..100 {
        let ino = bench.make(dir, &format!("file-{n}"), NewKind::Fifo).await;
        bench.forget(ino, 1).await;
    }
    assert_eq!(bench.nodes(), 1);
    for (plus, max) in [(false, 1), (false, 7), (true, 7), (true, 500)] {
        let (mut after, mut names, mut inos) = (0, Vec::new(), Vec::new());
        loop {
            let op = Op::ReadDir { ino: dir, handle: crate::Handle(0), after, max, plus };
            let Ok(Outcome::Entries(entries)) = bench.run(op).await else { panic!("readdir") };
            let Some(last) = entries.last() else { break };
            after = last.entry.cookie;
            assert!(entries.len() <= max as usize);
            for Listed { entry, .. } in entries {
                assert_eq!(entry.attr.is_some(), plus && entry.cookie > 2);
                inos.extend(entry.attr.map(|attr| attr.ino));
                names.push((entry.name, entry.ino));
            }
        }
        assert_eq!(names[0], (b".".to_vec(), dir));
        assert_eq!(names[1], (b"..".to_vec(), Ino::ROOT));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 102);
        assert_eq!(bench.nodes(), 1 + inos.len() as u64);
        for ino in inos {
            bench.forget(ino, 1).await;
        }
        assert_eq!(bench.nodes(), 1);
    }
}

#[tokio::test]
async fn extended_attributes() {
    let bench = Bench::new().await;
    let ino = bench.make(Ino::ROOT, "file", NewKind::File).await;
    let set =
        |name: &[u8], len: usize, mode| Op::SetXattr { ino, name: name.to_vec(), value: vec![5; len], mode };
    let get = |name: &[u8]| Op::GetXattr { ino, name: name.to_vec() };
    let long = [&b"user."[..], &[b'x'; 251]].concat();
    let cases = [
        (set(b"user.a", 65_536, XattrMode::Create), Ok(Outcome::Done)),
        (set(b"user.a", 3, XattrMode::Create), Err(Errno::EEXIST)),
        (set(b"user.b", 3, XattrMode::Replace), Err(Errno::ENODATA)),
        (set(b"user.a", 65_537, XattrMode::Set), Err(Errno::E2BIG)),
        (set(b"user.a", 3, XattrMode::Replace), Ok(Outcome::Done)),
        (set(b"trusted.t", 0, XattrMode::Set), Ok(Outcome::Done)),
        (set(b"security.s", 1, XattrMode::Set), Ok(Outcome::Done)),
        (set(b"system.posix_acl_access", 1, XattrMode::Set), Err(Errno::EINVAL)),
        (set(b"system.other", 1, XattrMode::Set), Err(Errno::EOPNOTSUPP)),
        (set(b"other.x", 1, XattrMode::Set), Err(Errno::EOPNOTSUPP)),
        (set(b"user.", 1, XattrMode::Set), Err(Errno::EINVAL)),
        (set(&long, 1, XattrMode::Set), Err(Errno::ERANGE)),
        (get(b"user.a"), Ok(Outcome::Bytes(vec![5; 3]))),
        (get(b"user.b"), Err(Errno::ENODATA)),
        (get(b"system.posix_acl_default"), Err(Errno::ENODATA)),
        (Op::RemoveXattr { ino, name: b"user.b".to_vec() }, Err(Errno::ENODATA)),
    ];
    for (op, expected) in cases {
        assert_eq!(bench.run(op.clone()).await, expected, "{op:?}");
    }
    let names =
        |names: &[&str]| Ok(Outcome::Names(names.iter().map(|name| name.as_bytes().to_vec()).collect()));
    let list = Op::ListXattr { ino };
    assert_eq!(bench.run(list.clone()).await, names(&["security.s", "trusted.t", "user.a"]));
    assert_eq!(
        bench.run_as(list, 7).await,
        names(&["security.s", "user.a"]),
        "trusted ones are root's to see"
    );
}

#[tokio::test]
async fn an_access_control_list_moves_the_mode_that_is_shown() {
    let bench = Bench::new().await;
    let ino = bench.make(Ino::ROOT, "file", NewKind::File).await;
    let entry = |tag: u8, bits: u8, id: u32| [&[tag, 0, bits, 0][..], &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let list = [
        vec![2, 0, 0, 0],
        entry(1, 6, none),
        entry(2, 7, 1000),
        entry(4, 4, none),
        entry(16, 5, none),
        entry(32, 0, none),
    ]
    .concat();
    let name = b"system.posix_acl_access".to_vec();
    let set = Op::SetXattr { ino, name: name.clone(), value: list.clone(), mode: XattrMode::Set };
    assert_eq!(bench.run(set).await, Ok(Outcome::Done));
    assert_eq!(bench.attr(ino).await.mode, 0o650, "the group's bits are the mask");
    let chmod = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    assert_eq!(bench.set(ino, chmod).await.map(|attr| attr.mode), Ok(0o600));
    let mut masked = list;
    masked[4 + 3 * 8 + 2] = 0;
    let got = bench.run(Op::GetXattr { ino, name }).await;
    assert_eq!(got, Ok(Outcome::Bytes(masked)), "the user's entry stays behind the mask");
}

#[tokio::test]
async fn a_symbolic_link_is_read() {
    let bench = Bench::new().await;
    let link = bench.make(Ino::ROOT, "link", NewKind::Symlink(b"a/b".to_vec())).await;
    assert_eq!(bench.run(Op::ReadLink { ino: link }).await, Ok(Outcome::Bytes(b"a/b".to_vec())));
    let flags = OpenFlags { read: true, ..OpenFlags::default() };
    let handle = bench.open_as(link, flags).await;
    assert_eq!(bench.read(link, handle, 0, 1).await, Err(Errno::EINVAL));
    let set = SetAttr { uid: Some(5), ..SetAttr::default() };
    assert_eq!(bench.set(link, set).await.map(|attr| attr.uid), Ok(5));
}

/// Whether a name made before `sync` survives a power cut right after it.
async fn survives(sync: impl AsyncFn(&Bench, Ino, Handle)) -> bool {
    let mut bench = Bench::new().await;
    bench.make(Ino::ROOT, "before", NewKind::Directory).await;
    let (ino, handle) = bench.create("file").await;
    sync(&bench, ino, handle).await;
    bench.power_cut().await;
    let (before, file) = (bench.lookup(Ino::ROOT, "before").await, bench.lookup(Ino::ROOT, "file").await);
    assert!(before.is_some() || file.is_none(), "what came later cannot be there alone");
    file.is_some()
}

#[tokio::test]
async fn every_sync_keeps_all_names_before_it() {
    assert!(!survives(async |_, _, _| {}).await, "nothing waited for it, so this test shows nothing");
    assert!(survives(async |bench, ino, handle| bench.fsync(ino, handle).await.expect("fsync")).await);
    assert!(
        survives(async |bench, _, handle| {
            let ino = Ino::ROOT;
            bench.run(Op::FsyncDir { ino, handle, data_only: false }).await.map(drop).expect("fsync");
        })
        .await
    );
    assert!(
        survives(async |bench, ino, _| {
            let handle = bench.open_as(ino, OpenFlags { sync: true, ..READ_WRITE }).await;
            bench.write(ino, handle, 0, b"data").await.expect("write");
        })
        .await
    );
}
