//! Names and attributes: each argument of the system call arrives, each part of the answer comes back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

use fuse::Channel;
use namespace::{Cred, FallocateMode, NewKind, SetAttr, SetTime, XattrMode};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
    XattrFlags, fallocate, mknodat, renameat_with, utimensat,
};
use types::Nanos;
use vfs::Op;

use crate::{fixture, over_both};

fn a_new_name_comes_with_mode_umask_and_owner(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let script = "umask 027; mkdir -m 2775 a; mkdir d; : > f";
    let done =
        Command::new("sh").args(["-ec", script]).current_dir(&mount.dir).uid(65534).gid(65533).status();
    assert!(done.expect("sh").success());
    let created = mount.memory.asked(|op, ctx| match op {
        Op::Create { name, kind, mode, umask, open, .. } => {
            Some((name.clone(), kind.clone(), *mode, *umask, open.is_some(), ctx.cred))
        }
        _ => None,
    });
    let cred = Cred { uid: 65534, gid: 65533 };
    // The umask is handed on unapplied (DONT_MASK); mkdir -m sets its own to 0 and changes the mode afterwards.
    assert_eq!(created[1], (b"d".to_vec(), NewKind::Directory, 0o777, 0o027, false, cred));
    assert_eq!(created[2], (b"f".to_vec(), NewKind::File, 0o666, 0o027, true, cred));
    assert_eq!(fs::metadata(mount.path("d")).expect("stat").mode() & 0o7777, 0o750);
    let requests: BTreeSet<u64> = mount.memory.asked(|_, ctx| Some(ctx.unique)).into_iter().collect();
    assert!(requests.iter().all(|unique| unique >> 63 == 0));
    let pids = mount.memory.asked(|op, ctx| matches!(op, Op::Create { .. }).then_some(ctx.pid));
    assert!(pids.iter().all(|pid| *pid != 0), "{pids:?}");
}

fn nodes_of_every_kind_keep_their_type_and_number(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let number = rustix::fs::makedev(259, 70_000);
    for (name, kind, rdev) in [
        ("c", FileType::CharacterDevice, number),
        ("b", FileType::BlockDevice, number),
        ("p", FileType::Fifo, 0),
        ("s", FileType::Socket, 0),
        ("r", FileType::RegularFile, 0),
    ] {
        mknodat(CWD, mount.path(name), kind, Mode::from_raw_mode(0o640), rdev).expect(name);
    }
    // linux/kdev_t.h new_encode_dev: minor 8 low bits, major, the minor's other bits
    let encoded = 70_000 & 0xff | 259 << 8 | (70_000 & !0xff) << 12;
    let kinds = mount.memory.asked(|op, _| match op {
        Op::Create { kind, .. } => Some(kind.clone()),
        _ => None,
    });
    let expected = [
        NewKind::CharDevice(encoded),
        NewKind::BlockDevice(encoded),
        NewKind::Fifo,
        NewKind::Socket,
        NewKind::File,
    ];
    assert_eq!(kinds, expected);
    let stat = |name| fs::symlink_metadata(mount.path(name)).expect(name);
    assert_eq!((stat("c").rdev(), stat("b").rdev()), (number, number));
    assert!(stat("c").file_type().is_char_device() && stat("p").file_type().is_fifo());
    assert!(stat("s").file_type().is_socket() && stat("r").is_file());
}

fn links_lead_where_they_say(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    symlink("to/nowhere", mount.path("l")).expect("symlink");
    assert_eq!(fs::read_link(mount.path("l")).expect("readlink").to_str(), Some("to/nowhere"));
    File::create(mount.path("f")).expect("create");
    fs::hard_link(mount.path("f"), mount.path("g")).expect("link");
    let (f, g) = (fs::metadata(mount.path("f")).expect("stat"), fs::metadata(mount.path("g")).expect("stat"));
    assert_eq!((f.ino(), g.nlink()), (g.ino(), 2));
}

fn a_rename_says_how(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let rename = |flags| renameat_with(CWD, mount.path("a"), CWD, mount.path("b"), flags);
    File::create(mount.path("a")).expect("create");
    rename(RenameFlags::empty()).expect("rename");
    assert!(mount.path("b").exists() && !mount.path("a").exists());
    File::create(mount.path("a")).expect("create");
    assert_eq!(rename(RenameFlags::EXCHANGE), Err(rustix::io::Errno::XDEV));
    assert_eq!(rename(RenameFlags::WHITEOUT), Err(rustix::io::Errno::XDEV));
    fs::remove_file(mount.path("b")).expect("unlink");
    rename(RenameFlags::NOREPLACE).expect("rename");
    let flags = mount.memory.asked(|op, _| match op {
        Op::Rename { flags, .. } => Some((flags.no_replace, flags.exchange, flags.whiteout)),
        _ => None,
    });
    let expected = [(false, false, false), (false, true, false), (false, false, true), (true, false, false)];
    assert_eq!(flags, expected);
}

fn times_are_set_omitted_or_now(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    File::create(mount.path("f")).expect("create");
    let set = |atime: (i64, i64), mtime: (i64, i64)| {
        let time = |(tv_sec, tv_nsec): (i64, i64)| Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
        utimensat(CWD, mount.path("f"), &times, AtFlags::empty()).expect("utimensat");
    };
    set((0, UTIME_OMIT), (-2, 500_000_001));
    set((1_700_000_000, 999_999_999), (0, UTIME_NOW));
    let times = mount.memory.asked(|op, _| match op {
        Op::SetAttr { set, .. } => Some((set.atime, set.mtime)),
        _ => None,
    });
    let first = (None, Some(SetTime::To(Nanos::from_parts(-2, 500_000_001))));
    let second = (Some(SetTime::To(Nanos::from_parts(1_700_000_000, 999_999_999))), Some(SetTime::Now));
    assert_eq!(times, [first, second]);
    let stat = fs::metadata(mount.path("f")).expect("stat");
    assert_eq!((stat.atime(), stat.atime_nsec()), (1_700_000_000, 999_999_999));
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (-2, 500_000_001));
}

fn mode_owner_and_size_are_set_and_who_may_not_keep_set_id_bits_is_flagged(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    File::create(mount.path("f")).expect("create");
    fs::set_permissions(mount.path("f"), PermissionsExt::from_mode(0o6777)).expect("chmod");
    std::os::unix::fs::chown(mount.path("f"), Some(5), Some(6)).expect("chown");
    fs::set_permissions(mount.path("f"), PermissionsExt::from_mode(0o6777)).expect("chmod");
    File::options().write(true).truncate(true).open(mount.path("f")).expect("open with O_TRUNC");
    let script = "echo x >> f; truncate -s 3 f";
    let done =
        Command::new("sh").args(["-ec", script]).current_dir(&mount.dir).uid(65534).gid(65533).status();
    assert!(done.expect("sh").success());
    let sets = mount.memory.asked(|op, _| match op {
        Op::SetAttr { set, kill_priv, .. } => Some((*set, *kill_priv)),
        _ => None,
    });
    let mode = SetAttr { mode: Some(0o6777), ..SetAttr::default() };
    let owner = SetAttr { uid: Some(5), gid: Some(6), ..SetAttr::default() };
    assert_eq!(sets[..3], [(mode, false), (owner, true), (mode, false)]);
    assert_eq!((sets[3].0.size, sets[3].1), (Some(0), false), "O_TRUNC comes as a truncate of its own");
    assert_eq!(sets[4], (SetAttr::default(), true), "the kernel drops set-id bits before the write");
    assert_eq!((sets[5].0.size, sets[5].1), (Some(3), true));
    let opens = mount.memory.asked(|op, _| match op {
        Op::Open { flags, .. } => Some((flags.truncate, flags.append, flags.read, flags.write)),
        _ => None,
    });
    assert_eq!(opens, [(false, false, false, true), (false, true, false, true), (false, false, false, true)]);
    let kills = mount.memory.asked(|op, _| match op {
        Op::Write { kill_priv, .. } => Some(*kill_priv),
        _ => None,
    });
    assert_eq!(kills, [true]);
}

fn each_kind_of_fallocate_is_told_apart(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let file = File::create(mount.path("f")).expect("create");
    let run = |flags, at, len| fallocate(&file, flags, at, len);
    run(FallocateFlags::empty(), 0, 10_000).expect("allocate");
    run(FallocateFlags::KEEP_SIZE, 0, 20_000).expect("allocate beyond the end");
    run(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 5, 6).expect("punch");
    run(FallocateFlags::ZERO_RANGE, 7, 30_000).expect("zero");
    run(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 8, 40_000).expect("zero beyond the end");
    for refused in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(run(refused, 0, 4096), Err(rustix::io::Errno::OPNOTSUPP));
    }
    let modes = mount.memory.asked(|op, _| match op {
        Op::Fallocate { mode, offset, len, .. } => Some((*mode, *offset, *len)),
        _ => None,
    });
    let expected = [
        (FallocateMode::Allocate, 0, 10_000),
        (FallocateMode::AllocateKeepSize, 0, 20_000),
        (FallocateMode::PunchHole, 5, 6),
        (FallocateMode::Zero, 7, 30_000),
        (FallocateMode::ZeroKeepSize, 8, 40_000),
    ];
    assert_eq!(modes, expected);
    assert_eq!(file.metadata().expect("stat").len(), 30_007);
}

fn extended_attributes_are_set_read_listed_and_removed(channel: Channel) {
    use rustix::fs::{getxattr, getxattr_query, listxattr, removexattr, setxattr};
    use rustix::io::Errno;
    let Some(mount) = fixture(channel) else { return };
    let path = mount.path("f");
    File::create(&path).expect("create");
    let value = vec![7; 5000];
    setxattr(&path, "user.a", &value, XattrFlags::CREATE).expect("set");
    assert_eq!(setxattr(&path, "user.a", b"", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(setxattr(&path, "user.b", b"", XattrFlags::REPLACE), Err(Errno::NODATA));
    setxattr(&path, "trusted.b", b"2", XattrFlags::empty()).expect("set");
    let mut buffer = vec![0; 65_536];
    assert_eq!(getxattr_query(&path, "user.a"), Ok(5000));
    assert_eq!(getxattr(&path, "user.a", &mut buffer[..4999]), Err(Errno::RANGE));
    let len = getxattr(&path, "user.a", &mut buffer[..]).expect("get");
    assert_eq!(buffer[..len], value);
    let len = listxattr(&path, &mut buffer[..]).expect("list");
    assert_eq!(&buffer[..len], b"trusted.b\0user.a\0");
    removexattr(&path, "user.a").expect("remove");
    assert_eq!(getxattr(&path, "user.a", &mut buffer[..]), Err(Errno::NODATA));
    for acl in ["system.posix_acl_access", "system.posix_acl_default"] {
        assert_eq!(getxattr(&path, acl, &mut buffer[..]), Err(Errno::NODATA), "{acl}");
    }
    let modes = mount.memory.asked(|op, _| match op {
        Op::SetXattr { mode, .. } => Some(*mode),
        _ => None,
    });
    assert_eq!(modes, [XattrMode::Create, XattrMode::Create, XattrMode::Replace, XattrMode::Set]);
}

fn five_thousand_names_are_listed_once_each_and_no_reference_is_lost(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let names: BTreeSet<String> = (0..5000).map(|n| format!("{n:0>width$}", width = 4 + n % 200)).collect();
    {
        let mut tree = mount.memory.tree();
        for name in &names {
            tree.put(name.as_bytes(), b"");
        }
    }
    let mut listed = BTreeSet::new();
    for entry in fs::read_dir(&mount.dir).expect("readdir") {
        let entry = entry.expect("an entry");
        assert!(entry.file_type().expect("its type").is_file());
        entry.metadata().expect("its attributes"); // so that the kernel keeps asking for them
        assert!(listed.insert(entry.file_name().into_string().expect("text")), "told twice: {entry:?}");
    }
    assert_eq!(listed, names);
    // What was answered with attributes but not told to the kernel must have been forgotten.
    let asked = mount.memory.asked(|op, _| match op {
        Op::ReadDir { after, max, plus, .. } => Some((*after, u64::from(*max), *plus)),
        _ => None,
    });
    let untold = |(this, next): (&(u64, u64, bool), &(u64, u64, bool))| {
        let answered = this.1.min(5002 - this.0);
        if this.2 { answered - (next.0 - this.0) } else { 0 }
    };
    let expected: u64 = asked.iter().zip(&asked[1..]).map(untold).sum();
    assert!(expected > 0, "every answer fitted: the test tests nothing");
    let forgotten = mount.memory.asked(|op, ctx| match op {
        Op::Forget { count, .. } if ctx.unique == 0 => Some(*count),
        _ => None,
    });
    assert_eq!(forgotten.iter().sum::<u64>(), expected);
}

fn free_space_is_told(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let space = rustix::fs::statvfs(&mount.dir).expect("statvfs");
    assert_eq!((space.f_blocks, space.f_bfree, space.f_bavail, space.f_frsize), (1000, 600, 600, 4096));
    assert_eq!((space.f_files, space.f_ffree, space.f_namemax), (50, 40, 255));
}

fn an_absent_name_is_remembered_until_it_is_made(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    for _ in 0..3 {
        let absent = fs::metadata(mount.path("f")).expect_err("nothing there");
        assert_eq!(absent.raw_os_error(), Some(libc::ENOENT));
    }
    let lookups = mount.memory.asked(|op, _| matches!(op, Op::Lookup { .. }).then_some(()));
    assert_eq!(lookups.len(), 1);
    File::create(mount.path("f")).expect("create");
    fs::metadata(mount.path("f")).expect("there now");
}

over_both! {
    a_new_name_comes_with_mode_umask_and_owner,
    nodes_of_every_kind_keep_their_type_and_number,
    links_lead_where_they_say,
    a_rename_says_how,
    times_are_set_omitted_or_now,
    mode_owner_and_size_are_set_and_who_may_not_keep_set_id_bits_is_flagged,
    each_kind_of_fallocate_is_told_apart,
    extended_attributes_are_set_read_listed_and_removed,
    five_thousand_names_are_listed_once_each_and_no_reference_is_lost,
    free_space_is_told,
    an_absent_name_is_remembered_until_it_is_made,
}
