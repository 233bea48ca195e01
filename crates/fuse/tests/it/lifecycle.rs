//! A mount begins, serves and ends.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fuse::{Channel, Config, Ended, Holder, MountError, OpKind, Session, UnmountError};
use rustix::mount::{MountFlags, UnmountFlags};
use vfs::Op;

use crate::memory::{Memory, SLOW};
use crate::{Fixture, able, fixture, folder, over_both, wait_until};

fn row(dir: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    table.lines().rfind(|line| line.split(' ').nth(4) == dir.to_str()).map(str::to_string)
}

fn end_of(mount: &Fixture) -> Ended {
    let ended = mount.session.ended();
    mount
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it ends") })
}

fn another(mount: &Fixture) -> Result<Session, MountError> {
    let config = Config { channel: mount.channel, ..Config::new(&mount.dir, "other") };
    Session::start(Memory::new(), &config, mount.runtime.handle().clone())
}

fn the_mount_table_shows_type_source_and_options(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let row = row(&mount.dir).expect("our row");
    assert!(row.contains(" - fuse.holdfast holdfast:tested "), "{row}");
    for option in ["allow_other", "default_permissions", "user_id=0", "rw"] {
        assert!(row.contains(option), "{option} in {row}");
    }
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(!row.contains(option), "{option} in {row}");
    }
}

fn a_mount_point_in_use_is_refused_by_name(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    match another(&mount) {
        Err(MountError::Busy { dir, what }) => {
            assert_eq!((dir, what.as_str()), (mount.dir.clone(), "holdfast:tested (fuse.holdfast)"));
        }
        other => panic!("mounted over a live mount: {:?}", other.err()),
    }
    assert!(fs::metadata(&mount.dir).is_ok(), "the first mount still works");
    let (_folder, dir) = folder();
    rustix::mount::mount("scratch", &dir, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
    let config = Config::new(&dir, "other");
    let refused = Session::start(Memory::new(), &config, mount.runtime.handle().clone());
    rustix::mount::unmount(&dir, UnmountFlags::empty()).expect("umount");
    assert!(matches!(refused.err(), Some(MountError::Busy { what, .. }) if what == "scratch (tmpfs)"));
}

fn dead_mounts_are_detached_first(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let (_folder, dir) = folder();
    for _ in 0..2 {
        // What a process leaves that dies with its mount: nobody has the device open.
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        use std::os::fd::AsRawFd;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).expect("text");
        rustix::mount::mount("holdfast:old", &dir, "fuse.holdfast", MountFlags::empty(), options.as_c_str())
            .expect("a mount");
    }
    let dead = fs::read_dir(&dir).expect_err("nobody serves it");
    assert_eq!(dead.raw_os_error(), Some(libc::ENOTCONN));
    let config = Config { channel, ..Config::new(&dir, "new") };
    let session = Session::start(Memory::new(), &config, mount.runtime.handle().clone()).expect("a mount");
    assert!(row(&dir).expect("our row").contains("holdfast:new"));
    assert_eq!(fs::read_dir(&dir).expect("readdir").count(), 0);
    session.unmount().expect("unmount");
    assert_eq!(row(&dir), None, "both dead ones are gone too");
}

fn unmounting_ends_the_session_whoever_does_it(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    rustix::mount::unmount(&mount.dir, UnmountFlags::empty()).expect("umount from outside");
    assert_eq!(end_of(&mount), Ended::Unmounted);
    mount.session.unmount().expect("a mount that is gone is no error");
    drop(mount);
    let Some(mount) = fixture(channel) else { return };
    mount.session.unmount().expect("unmount");
    assert_eq!(end_of(&mount), Ended::Unmounted);
    assert_eq!(row(&mount.dir), None);
}

fn an_aborted_connection_ends_the_session_and_is_replaced(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let (_folder, control) = folder();
    rustix::mount::mount("fusectl", &control, "fusectl", MountFlags::empty(), None).expect("fusectl");
    let row_text = row(&mount.dir).expect("our row");
    let minor = row_text.split(' ').nth(2).and_then(|dev| dev.split(':').nth(1)).expect("its device");
    let aborted = fs::write(control.join(minor).join("abort"), "1");
    rustix::mount::unmount(&control, UnmountFlags::empty()).expect("umount");
    aborted.expect("abort");
    assert_eq!(end_of(&mount), Ended::Aborted);
    let next = another(&mount).expect("the dead mount gives way");
    assert!(row(&mount.dir).expect("a row").contains("holdfast:other"));
    next.unmount().expect("unmount");
    mount.session.unmount().expect("the first one is gone already");
}

fn who_keeps_it_busy_is_named(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    mount.memory.tree().put(b"open", b"x");
    let file = File::open(mount.path("open")).expect("open");
    let mut shell = Command::new("sh");
    let mut child = shell.args(["-c", "cd \"$0\"; echo; read _"]).arg(&mount.dir);
    child = child.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().expect("a child");
    let mut line = [0];
    std::io::Read::read_exact(child.stdout.as_mut().expect("its output"), &mut line).expect("it is there");
    let busy = mount.session.unmount().expect_err("in use");
    let text = busy.to_string();
    let UnmountError::Busy { holders, .. } = busy else { panic!("{text}") };
    let ours = Holder::Process {
        pid: std::process::id(),
        command: fs::read_to_string("/proc/self/comm").expect("our name").trim_end().to_string(),
        path: mount.path("open"),
    };
    let childs = Holder::Process { pid: child.id(), command: "sh".to_string(), path: mount.dir.clone() };
    assert!(holders.contains(&ours) && holders.contains(&childs) && holders.len() == 2, "{holders:?}");
    assert!(text.contains(&format!("process {} (sh) uses {}", child.id(), mount.dir.display())), "{text}");
    child.stdin.take().expect("its input").write_all(b"\n").expect("it goes on");
    child.wait().expect("it ends");
    mount.session.detach().expect("detach");
    assert_eq!(row(&mount.dir), None);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut &file, &mut text).expect("what is open stays readable");
    assert_eq!(text, "x");
    drop(file);
    assert_eq!(end_of(&mount), Ended::Unmounted);
}

#[allow(unsafe_code)]
fn a_mapped_file_and_a_mount_below_keep_it_busy_too(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    mount.memory.tree().put(b"mapped", &[1; 4096]);
    fs::create_dir(mount.path("below")).expect("mkdir");
    rustix::mount::mount("scratch", mount.path("below"), "tmpfs", MountFlags::empty(), None)
        .expect("a tmpfs");
    let file = File::open(mount.path("mapped")).expect("open");
    // SAFETY: a new private mapping that nothing reads; it is unmapped below.
    let map = unsafe {
        let prot = rustix::mm::ProtFlags::READ;
        rustix::mm::mmap(std::ptr::null_mut(), 4096, prot, rustix::mm::MapFlags::PRIVATE, &file, 0)
            .expect("mmap")
    };
    drop(file);
    let holders = mount.session.holders();
    assert!(holders.contains(&Holder::Mount { path: mount.path("below") }), "{holders:?}");
    let mapped =
        |holder: &Holder| matches!(holder, Holder::Process { path, .. } if *path == mount.path("mapped"));
    assert!(holders.iter().any(mapped), "{holders:?}");
    // SAFETY: the mapping from above, used by nobody.
    unsafe { rustix::mm::munmap(map, 4096).expect("munmap") };
    rustix::mount::unmount(mount.path("below"), UnmountFlags::empty()).expect("umount");
    assert_eq!(mount.session.holders(), []);
}

fn an_operation_that_waits_holds_up_no_other(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    mount.memory.tree().put(b"fast", b"");
    let slow = mount.path(std::str::from_utf8(SLOW).expect("text"));
    let waiter = std::thread::spawn(move || fs::metadata(slow));
    let waits = || {
        !mount
            .memory
            .asked(|op, _| matches!(op, Op::Lookup { name, .. } if name == SLOW).then_some(()))
            .is_empty()
    };
    wait_until("the slow one is there", waits);
    assert_eq!(mount.session.figures().running(), 1);
    fs::metadata(mount.path("fast")).expect("the only thread reads on");
    assert!(!waiter.is_finished());
    mount.memory.gate.add_permits(1);
    let error = waiter.join().expect("no panic").expect_err("refused late");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    wait_until("it is counted", || mount.session.figures().running() == 0);
    let figures = mount.session.figures().snapshot();
    let lookups = figures.iter().find(|figures| figures.kind == OpKind::Lookup).expect("figures of lookups");
    assert_eq!((lookups.succeeded, lookups.failed.get(&libc::EACCES)), (1, Some(&1)));
    assert_eq!(lookups.latency.iter().sum::<u64>(), 2);
}

#[test]
fn a_mount_point_that_is_none_is_refused() {
    if !able() {
        return;
    }
    let (_folder, dir) = folder();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime");
    let config = Config::new(&dir.join("none"), "v");
    let refused = Session::start(Memory::new(), &config, runtime.handle().clone());
    assert!(matches!(refused.err(), Some(MountError::NoMountPoint(_))));
}

over_both! {
    the_mount_table_shows_type_source_and_options,
    a_mount_point_in_use_is_refused_by_name,
    dead_mounts_are_detached_first,
    unmounting_ends_the_session_whoever_does_it,
    an_aborted_connection_ends_the_session_and_is_replaced,
    who_keeps_it_busy_is_named,
    a_mapped_file_and_a_mount_below_keep_it_busy_too,
    an_operation_that_waits_holds_up_no_other,
}
