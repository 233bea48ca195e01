//! Real mounts, a real holder and engines that are killed.
//!
//! As root with /dev/fuse; elsewhere each test says that it was skipped. This program runs itself as holder and as
//! engine: see `parts`.

mod chaos;
mod parts;
mod replaced;
mod serving;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holder::{Change, Keeper, KeeperError, Name, Role};
use parts::{FOLDER, PART};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

const KILLS: usize = 30;

/// A folder with a mount point, and the processes of a test, which end with it.
struct Scene {
    folder: PathBuf,
    holders: Vec<Child>,
    _folder: tempfile::TempDir,
}

/// `None` where this machine cannot mount.
fn scene() -> Option<Scene> {
    if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root and /dev/fuse");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().canonicalize().expect("its path");
    fs::create_dir(path.join("mount")).expect("a mount point");
    Some(Scene { folder: path, holders: Vec::new(), _folder: folder })
}

impl Scene {
    fn holder(&mut self, part: &str) -> &mut Child {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["parts::part", "--exact", "--nocapture"]);
        command.env(PART, part).env(FOLDER, &self.folder);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log"));
        let log = log.expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
        self.holders.push(command.spawn().expect("a holder"));
        self.holders.last_mut().expect("just pushed")
    }

    fn mount(&self) -> PathBuf {
        self.folder.join("mount")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The engines that came to serve, each by its process.
    fn engines(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.folder.join("engines")).unwrap_or_default();
        text.lines().map(|pid| pid.parse().expect("a process")).collect()
    }

    fn wait_for_engines(&self, count: usize) -> i32 {
        self.wait("another engine serves", || self.engines().len() >= count);
        self.engines()[count - 1]
    }

    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(
                start.elapsed() < Duration::from_secs(15),
                "waited in vain until {what}:\n{}",
                self.log()
            );
            std::thread::yield_now();
        }
    }

    /// What the mount answers to one who looks.
    fn look(&self) {
        let found = fs::metadata(self.mount()).expect("the mount's root");
        assert_eq!(found.nlink_of_root(), serving::ROOT_LINKS);
        let missing = fs::metadata(self.mount().join("nothing")).expect_err("there is nothing");
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    }

    /// How often a second keeper has taken everything.
    fn taken(&self, keeper: u32) -> u32 {
        let noted = fs::read_to_string(self.folder.join(format!("taken-{keeper}"))).unwrap_or_default();
        noted.parse().unwrap_or(0)
    }

    fn is_mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
        let dir = self.mount();
        table.lines().any(|line| line.split(' ').nth(4) == dir.to_str())
    }
}

trait Links {
    fn nlink_of_root(&self) -> u64;
}

impl Links for fs::Metadata {
    fn nlink_of_root(&self) -> u64 {
        std::os::unix::fs::MetadataExt::nlink(self)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Holders first, or they start another engine. The engines end when the mount does.
        for holder in &mut self.holders {
            let _ = holder.kill(); // it may be gone
            let _ = holder.wait();
        }
        while self.is_mounted() && rustix::mount::unmount(self.mount(), UnmountFlags::DETACH).is_ok() {}
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a process"), signal).expect("it is there");
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn an_engine_that_is_killed_is_followed_by_the_next_and_nobody_sees_it() {
    let Some(mut scene) = scene() else { return };
    let holder = scene.holder("holder").id();
    let mut pauses = Vec::new();
    for kills in 1..=KILLS {
        let engine = scene.wait_for_engines(kills);
        scene.look();
        signal(engine, Signal::KILL);
        let killed = Instant::now();
        scene.look();
        pauses.push(killed.elapsed());
    }
    pauses.sort();
    scene.wait_for_engines(KILLS + 1);
    scene.look();
    let peak = resident_kib(holder);
    let (median, worst) = (pauses[KILLS / 2], pauses[KILLS - 1]);
    eprintln!("{KILLS} kills; pauses: median {median:?}, worst {worst:?}; the holder's peak is {peak} KiB");
    assert!(peak <= 8 << 10, "the holder is too large: {peak} KiB");
    let kept = fs::read_to_string(scene.folder.join("starts")).expect("what the engines found");
    // Each found what the first had put, and one more line in it.
    let lines: Vec<&str> = kept.lines().collect();
    assert_eq!(lines.len(), KILLS + 1, "{kept}");
    assert!((1..).zip(&lines).all(|(start, line)| **line == format!("{start} {start}")), "{kept}");
}

#[test]
fn an_engine_that_dies_at_its_start_is_tried_again_ever_later() {
    let Some(mut scene) = scene() else { return };
    fs::write(scene.folder.join("crashes"), "4").expect("written");
    scene.holder("holder");
    scene.wait_for_engines(1);
    scene.look();
    let log = scene.log();
    for pause in ["pause=100ms", "pause=200ms", "pause=400ms", "pause=800ms"] {
        assert!(log.contains(pause), "{pause}:\n{log}");
    }
    assert_eq!(log.matches("the engine died").count(), 4, "{log}");
    // After one that served there is no pause.
    signal(scene.engines()[0], Signal::KILL);
    scene.wait_for_engines(2);
    assert!(scene.log().contains("pause=0ns"), "{}", scene.log());
}

#[test]
fn a_program_that_is_not_there_is_tried_again() {
    let Some(mut scene) = scene() else { return };
    scene.holder("no-program");
    scene.wait("it was tried twice", || scene.log().matches("cannot be started").count() >= 2);
    assert!(scene.is_mounted());
}

#[test]
fn told_to_stop_it_has_the_engine_end_and_ends() {
    let Some(mut scene) = scene() else { return };
    let pid = scene.holder("holder").id() as i32;
    scene.wait_for_engines(1);
    signal(pid, Signal::TERM);
    let status = scene.holders[0].wait().expect("it ends");
    assert!(status.success(), "{status}: {}", scene.log());
    assert!(!scene.is_mounted());
    assert!(!scene.socket().exists(), "its socket is gone");
}

#[test]
fn told_to_stop_while_no_engine_serves_it_waits_for_one() {
    let Some(mut scene) = scene() else { return };
    fs::write(scene.folder.join("crashes"), "3").expect("written");
    let pid = scene.holder("holder").id() as i32;
    scene.wait("the first has died", || scene.log().contains("the engine died"));
    signal(pid, Signal::TERM);
    let status = scene.holders[0].wait().expect("it ends");
    assert!(status.success(), "{status}: {}", scene.log());
    assert_eq!(scene.engines().len(), 1, "one served, and was asked to end");
    assert!(!scene.is_mounted());
}

#[test]
fn what_a_second_keeper_has_outlives_holder_and_engine() {
    let Some(mut scene) = scene() else { return };
    let first = scene.holder("holder").id() as i32;
    let engine = scene.wait_for_engines(1);
    let second = scene.holder("second").id();
    scene.wait("the second keeper has all", || scene.taken(second) == 1);
    signal(first, Signal::KILL);
    signal(engine, Signal::KILL);
    let status = scene.holders[0].wait().expect("it ends");
    assert_eq!(status.signal(), Some(9));
    scene.wait_for_engines(2);
    scene.look();
    // It goes on as a holder does.
    signal(scene.engines()[1], Signal::KILL);
    scene.wait_for_engines(3);
    scene.look();
}

#[test]
fn an_engine_goes_on_without_its_holder_and_the_next_one_adopts_it() {
    let Some(mut scene) = scene() else { return };
    let first = scene.holder("holder").id() as i32;
    let engine = scene.wait_for_engines(1);
    signal(first, Signal::KILL);
    scene.holders[0].wait().expect("it ends");
    scene.look();
    scene.holder("adopter");
    scene.wait("it is adopted", || scene.log().contains("is adopted"));
    scene.look();
    assert_eq!(scene.engines(), [engine], "nobody was started");
    signal(engine, Signal::KILL);
    scene.wait_for_engines(2);
    scene.look();
}

#[test]
fn a_second_keeper_goes_on_with_the_engine_that_lives() {
    let Some(mut scene) = scene() else { return };
    let first = scene.holder("holder").id() as i32;
    scene.wait_for_engines(1);
    let second = scene.holder("second").id();
    scene.wait("the second keeper has all", || scene.taken(second) == 1);
    // It hears of the engine that comes later too.
    signal(scene.engines()[0], Signal::KILL);
    let engine = scene.wait_for_engines(2);
    signal(first, Signal::KILL);
    scene.wait("the engine found it", || scene.log().contains("is adopted"));
    scene.look();
    assert_eq!(scene.engines().len(), 2, "nobody was started beside the one that lives");
    signal(engine, Signal::KILL);
    scene.wait_for_engines(3);
    scene.look();
}

#[test]
fn a_newer_holder_takes_the_place_of_the_old_one_again_and_again() {
    const UPGRADES: usize = 10;
    let Some(mut scene) = scene() else { return };
    scene.holder("holder");
    let engine = scene.wait_for_engines(1);
    for upgrades in 1..=UPGRADES {
        scene.holder("successor");
        let status = scene.holders[upgrades - 1].wait().expect("it ends");
        assert!(status.success(), "{status}: {}", scene.log());
        scene.look();
        scene.wait("the engine found it", || scene.log().matches("is adopted").count() == upgrades);
    }
    assert_eq!(scene.engines(), [engine], "one served through all of it");
    signal(engine, Signal::KILL);
    scene.wait_for_engines(2);
    scene.look();
    let pid = scene.holders[UPGRADES].id() as i32;
    signal(pid, Signal::TERM);
    let status = scene.holders[UPGRADES].wait().expect("it ends");
    assert!(status.success() && !scene.is_mounted(), "{status}: {}", scene.log());
}

#[test]
fn there_is_one_holder_at_a_time() {
    let Some(mut scene) = scene() else { return };
    scene.holder("holder");
    scene.wait_for_engines(1);
    let status = scene.holder("lonely").wait().expect("it ends");
    assert!(!status.success());
    assert!(scene.log().contains("another holder"), "{}", scene.log());
    assert!(Keeper::connect(&scene.socket(), Role::Keeper).is_ok(), "the first one's socket is still there");
    scene.look();
}

#[test]
fn a_holder_that_nobody_comes_to_says_so() {
    let Some(mut scene) = scene() else { return };
    let status = scene.holder("lonely").wait().expect("it ends");
    assert!(!status.success());
    assert!(scene.log().contains("no engine came"), "{}", scene.log());
}

#[test]
fn a_keeper_is_told_of_changes_and_changes_nothing_itself() {
    let Some(mut scene) = scene() else { return };
    scene.holder("holder");
    let engine = scene.wait_for_engines(1);
    let mut keeper = Keeper::connect(&scene.socket(), Role::Keeper).expect("connected");
    let taken = keeper.take().expect("taken");
    assert_eq!(taken.mounts.len(), 1);
    assert_eq!(
        (taken.mounts[0].volume.as_str(), taken.mounts[0].place.dir.clone()),
        ("tested", scene.mount())
    );
    let names: Vec<_> = taken.items.iter().map(|item| (item.mount, item.name.as_str())).collect();
    assert_eq!(names, [(0, "engine"), (0, "lock"), (1, "arena"), (1, "device")]);
    // The next engine puts a descriptor of its own.
    fs::write(scene.folder.join("put"), "late").expect("written");
    signal(engine, Signal::KILL);
    scene.wait_for_engines(2);
    let mut told = || match keeper.next_change().expect("told") {
        Change::Put(item) => item,
        Change::Drop(number) => panic!("mount {number} is let go"),
    };
    assert_eq!(told().name, Name::engine());
    let item = told();
    assert_eq!((item.mount, item.name.as_str()), (1, "late"));
    let name = Name::new("mine").expect("a name");
    let refused = keeper.put(0, &name, item.descriptor.as_fd());
    assert!(matches!(refused, Err(KeeperError::Refused(_))), "{refused:?}");
    let refused = Keeper::connect(&scene.socket(), Role::Engine);
    assert!(matches!(refused, Err(KeeperError::Refused(_))), "a second engine");
    scene.look();
}

#[test]
fn noise_is_refused_and_harms_nobody() {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
    let Some(mut scene) = scene() else { return };
    scene.holder("holder");
    scene.wait_for_engines(1);
    let address = SocketAddrUnix::new(scene.socket()).expect("an address");
    let connect = || {
        let kind = SocketType::SEQPACKET;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        let socket = socket.expect("a socket");
        rustix::net::connect(&socket, &address).expect("connected");
        socket
    };
    let take = b"HFKP\x01\0\x04\0\0\0\0\0\0\0\0\0".to_vec();
    let newer = b"HFKP\x02\0\x01\0\x01\0\0\0\0\0\0\0\x01".to_vec();
    for noise in [b"x".to_vec(), vec![0xff; 300], vec![7; 40_000], newer, take] {
        let socket = connect();
        rustix::net::send(&socket, &noise, SendFlags::NOSIGNAL).expect("sent");
        let mut answer = [0; 1000];
        let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty()).expect("an answer");
        assert_eq!(&answer[..8], b"HFKP\x01\0\x03\0", "refused: {:?}", &answer[..length]);
    }
    // More than there is room for are turned away, and room comes again.
    let many: Vec<_> = (0..40).map(|_| connect()).collect();
    drop(many);
    scene.wait("there is room again", || Keeper::connect(&scene.socket(), Role::Keeper).is_ok());
    scene.look();
    assert_eq!(scene.engines().len(), 1);
}
