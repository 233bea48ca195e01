//! Processes that are killed while their request waits, over our own channel: they are gone within a second.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use fuse::{Channel, Kept, Session};
use mounts::{Place, Way};
use rustix::process::{Pid, Signal, kill_process};
use vfs::Op;

use crate::memory::Memory;
use crate::{ALONE, Fixture, able, fixture, folder, wait_until};

/// A program with its arguments, whose request waits. It is killed if the test fails.
struct Waiter(Child);

impl Waiter {
    /// Starts it, and waits until its request does.
    fn start(mount: &Fixture, program: &str, arguments: &[&str]) -> Waiter {
        let before = mount.memory.waiting();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&mount.dir).stdout(Stdio::null()).stderr(Stdio::piped());
        let waiter = Waiter(command.spawn().expect(program));
        wait_until("its request waits", || mount.memory.waiting() > before);
        waiter
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it is there");
    }

    /// The state letter of proc_pid_stat(5).
    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    fn is_there(&mut self) -> bool {
        self.0.try_wait().expect("waitpid").is_none()
    }

    /// Kills it, and sees that it is gone within a second.
    fn ends_at_once(&mut self, what: &str) {
        let start = Instant::now();
        self.signal(Signal::KILL);
        wait_until(&format!("{what} is gone"), || self.state().is_none_or(|state| state == 'Z'));
        let took = start.elapsed();
        assert!(took <= Duration::from_secs(1), "{what}: took {took:?}");
        let status = self.0.wait().expect("waitpid");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{what}");
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // What has ended already cannot be killed.
        let _ = self.0.kill();
    }
}

fn is_forget(op: &Op, unique: u64) -> bool {
    unique == 0 && matches!(op, Op::Forget { .. })
}

/// What waits, the operation that does, and whether what it is answered with later is what its caller was never told of.
type Case = (&'static str, &'static [&'static str], fn(&Op) -> bool, Option<fn(&Op, u64) -> bool>);

const CASES: [Case; 6] = [
    ("stat", &["f"], |op| matches!(op, Op::Lookup { .. }), Some(is_forget)),
    ("stat", &["-f", "."], |op| matches!(op, Op::StatFs { .. }), None),
    (
        "cat",
        &["f"],
        |op| matches!(op, Op::Open { .. }),
        Some(|op, unique| unique == 0 && matches!(op, Op::Release { .. })),
    ),
    (
        "ls",
        &["."],
        |op| matches!(op, Op::OpenDir { .. }),
        Some(|op, unique| unique == 0 && matches!(op, Op::ReleaseDir { .. })),
    ),
    ("dd", &["if=f", "iflag=direct"], |op| matches!(op, Op::Read { .. }), None),
    ("sync", &["f"], |op| matches!(op, Op::Fsync { .. }), None),
];

#[test]
fn a_killed_process_is_gone_and_what_it_began_is_undone() {
    for (program, arguments, stalled, undone) in CASES {
        let Some(mount) = fixture(Channel::Own) else { return };
        mount.memory.tree().put(b"f", b"some");
        mount.memory.stall(stalled);
        let mut waiter = Waiter::start(&mount, program, arguments);
        waiter.ends_at_once(program);
        assert_eq!(mount.memory.waiting(), 1, "{program}: it was answered by itself");
        mount.memory.stall(|_| false);
        mount.memory.gate.add_permits(1);
        wait_until("it has run to its end", || mount.session.figures().running() == 0);
        if let Some(undone) = undone {
            let undone = mount.memory.asked(|op, ctx| undone(op, ctx.unique).then_some(()));
            assert_eq!(undone.len(), 1, "{program} {arguments:?}");
        }
        fs::read(mount.path("f")).expect("all goes on");
    }
}

#[test]
fn a_write_that_waits_is_told_that_its_caller_is_gone() {
    for flags in ["oflag=append", "oflag=direct"] {
        let Some(mount) = fixture(Channel::Own) else { return };
        mount.memory.tree().put(b"f", &[1; 4096]);
        mount.memory.stall(|op| matches!(op, Op::Write { .. }));
        let arguments = ["if=/dev/zero", "of=f", "bs=4k", "count=1", "conv=notrunc", flags];
        Waiter::start(&mount, "dd", &arguments).ends_at_once(flags);
        assert_eq!(mount.memory.waiting(), 0, "it ended by itself");
        assert!(fs::read(mount.path("f")).expect("read") == [1; 4096], "{flags}");
    }
}

#[test]
fn a_listing_that_nobody_saw_keeps_no_reference() {
    let Some(mount) = fixture(Channel::Own) else { return };
    for name in ["a", "b", "c"] {
        mount.memory.tree().put(name.as_bytes(), b"");
    }
    mount.memory.stall(|op| matches!(op, Op::ReadDir { plus: true, .. }));
    Waiter::start(&mount, "ls", &["-l", "."]).ends_at_once("ls -l");
    mount.memory.stall(|_| false);
    mount.memory.gate.add_permits(1);
    let forgotten = || mount.memory.asked(|op, ctx| is_forget(op, ctx.unique).then_some(())).len();
    wait_until("each of them is forgotten", || forgotten() == 3);
}

#[test]
fn a_signal_that_does_not_kill_is_not_seen_by_a_program() {
    let Some(mount) = fixture(Channel::Own) else { return };
    mount.memory.tree().put(b"f", b"some");
    mount.memory.stall(|op| matches!(op, Op::Lookup { .. } | Op::StatFs { .. }));
    let mut stopped = Waiter::start(&mount, "stat", &["f"]);
    stopped.signal(Signal::STOP);
    // While this one is found to be killed, the other one is looked at too.
    Waiter::start(&mount, "stat", &["-f", "."]).ends_at_once("stat -f");
    assert!(stopped.is_there() && mount.memory.waiting() == 2);
    stopped.signal(Signal::CONT);
    mount.memory.gate.add_permits(2);
    let status = stopped.0.wait().expect("waitpid");
    assert!(status.success(), "{status}");
    // What was interrupted by a harmless signal first dies of a deadly one all the same.
    let mut stopped = Waiter::start(&mount, "stat", &["-f", "."]);
    stopped.signal(Signal::STOP);
    stopped.ends_at_once("after a stop");
}

/// A mount that was made in a pid namespace of its own, so that requests do not say who asks.
fn from_elsewhere() -> Option<Fixture> {
    if !able() {
        return None;
    }
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, dir) = folder();
    let device = OwnedFd::from(File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse"));
    let options = "fd=0,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions";
    let mounter = Command::new("unshare")
        .args(["--pid", "--fork", "mount", "-i", "-t", "fuse.holdfast", "-o", options, "holdfast:elsewhere"])
        .arg(&dir)
        .stdin(Stdio::from(device.try_clone().expect("a descriptor")))
        .status();
    assert!(mounter.expect("unshare").success());
    let row =
        mounts::rows().expect("the mount table").into_iter().rfind(|row| row.dir == dir).expect("its row");
    let place = Place { dir: dir.clone(), way: Way::Privileged, dev: row.dev, id: row.id };
    let runtime = crate::runtime();
    let memory = Memory::new();
    let begun = mounts::shake_hands(device.as_fd()).map(|agreed| {
        let kept = Kept { device, place: place.clone(), agreed };
        Session::resume(memory.clone(), &kept, Channel::Own, 1, runtime.handle().clone())
    });
    let Ok(Ok(session)) = begun else {
        let gone = place.unmount(true);
        panic!("not served: {:?} ({gone:?})", begun.map(|served| served.err()));
    };
    let channel = Channel::Own;
    Some(Fixture { memory, channel, session, dir, runtime, _folder: folder, _alone: alone })
}

#[test]
fn a_killed_process_that_is_not_visible_is_gone_too() {
    let Some(mount) = from_elsewhere() else { return };
    mount.memory.stall(|op| matches!(op, Op::StatFs { .. }));
    Waiter::start(&mount, "stat", &["-f", "."]).ends_at_once("of another namespace");
    mount.memory.gate.add_permits(1);
    wait_until("it has run to its end", || mount.session.figures().running() == 0);
    let pids = mount.memory.asked(|op, ctx| matches!(op, Op::StatFs { .. }).then_some(ctx.pid));
    assert_eq!(pids, [0], "the kernel tells who asks: the test tests nothing");
}

#[test]
fn a_change_is_finished_before_its_caller_is_gone() {
    let Some(mount) = fixture(Channel::Own) else { return };
    mount.memory.stall(|op| matches!(op, Op::Create { .. } | Op::StatFs { .. }));
    let mut maker = Waiter::start(&mount, "mkdir", &["d"]);
    maker.signal(Signal::KILL);
    Waiter::start(&mount, "stat", &["-f", "."]).ends_at_once("stat -f");
    assert!(maker.is_there(), "its change has no answer yet");
    mount.memory.gate.add_permits(2);
    assert_eq!(maker.0.wait().expect("waitpid").signal(), Some(libc::SIGKILL));
    assert!(fs::metadata(mount.path("d")).expect("it was made").is_dir());
}
