//! A mount is kept while the processes that serve it are killed: no application sees it.
//!
//! The test's own process keeps the device and touches no file of the mount: a process that does must not start others
//! while nobody serves. So this program runs itself as server and as application.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, PoisonError};

use fuse::{Channel, Filesystem, Kept, OpFuture, ResumeError, Session};
use mounts::{Agreed, Place};
use rustix::process::{Signal, set_parent_process_death_signal};
use types::Ino;
use vfs::{Ctx, Op, Outcome};

use crate::memory::Memory;
use crate::{ALONE, able, folder, over_both, wait_until};

const KILLS: usize = 40;

/// What runs in another process: its name, and the folder of the test.
const PART: &str = "FUSE_TEST_PART";
const FOLDER: &str = "FUSE_TEST_FOLDER";

/// Bytes of each of the files.
const SIZE: usize = 2 << 20;
const FILES: usize = 3;

/// The memory of the servers, which outlives them: the files' data, the `unique` of each request that came, and how
/// many came again.
struct Durable {
    file: File,
    names: Arc<Memory>,
}

const SEEN: u64 = (FILES * SIZE) as u64;
const SEEN_MAX: u64 = 1 << 16;
const AGAIN: u64 = SEEN + SEEN_MAX * 8;

impl Durable {
    fn open(folder: &Path) -> Arc<Durable> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join("tree"));
        let file = file.expect("the servers' memory");
        let names = Memory::new();
        for at in 0..FILES {
            names.tree().put(format!("f{at}").as_bytes(), &[]);
            let ino = Ino(at as u64 + 2);
            names.tree().node(ino).attr.size = SIZE as u64;
        }
        Arc::new(Durable { file, names })
    }

    fn word(&self, at: u64) -> u64 {
        let mut word = [0; 8];
        // Behind what was ever written there are zeros.
        let _ = self.file.read_at(&mut word, at).expect("the servers' memory");
        u64::from_ne_bytes(word)
    }

    fn note(&self, unique: u64) {
        let at = SEEN + unique / 2 % SEEN_MAX * 8;
        if self.word(at) == unique {
            let again = self.word(AGAIN) + 1;
            self.file.write_all_at(&again.to_ne_bytes(), AGAIN).expect("written");
        }
        self.file.write_all_at(&unique.to_ne_bytes(), at).expect("written");
    }
}

impl Filesystem for Durable {
    fn handle(self: Arc<Self>, op: Op, ctx: Ctx) -> OpFuture {
        self.note(ctx.unique);
        let place = |ino: Ino, offset: u64| (ino.0 - 2) * SIZE as u64 + offset;
        match op {
            Op::Read { ino, offset, len, .. } => Box::pin(async move {
                // So that there is a request in flight when a kill comes.
                tokio::time::sleep(std::time::Duration::from_micros(ctx.unique % 7 * 300)).await;
                let mut bytes = vec![0; (len as usize).min(SIZE.saturating_sub(offset as usize))];
                let _ = self.file.read_at(&mut bytes, place(ino, offset)).expect("read");
                Ok(Outcome::Bytes(bytes))
            }),
            Op::Write { ino, offset, data, .. } => Box::pin(async move {
                self.file.write_all_at(&data, place(ino, offset)).expect("written");
                tokio::time::sleep(std::time::Duration::from_micros(ctx.unique % 5 * 300)).await;
                Ok(Outcome::Written(data.len() as u32))
            }),
            other => self.names.clone().handle(other, ctx),
        }
    }
}

/// Places, numbers and flags as text, for the server's process.
fn write_kept(folder: &Path, place: &Place, agreed: &Agreed) {
    let Agreed { minor, max_readahead, offered, flags, max_write } = agreed;
    let text = format!("{minor} {max_readahead} {offered} {flags} {max_write} {} {}", place.dev.1, place.id);
    fs::write(folder.join("kept"), text).expect("written");
}

fn read_kept(folder: &Path, device: OwnedFd) -> Kept {
    let text = fs::read_to_string(folder.join("kept")).expect("what is kept");
    let n: Vec<u64> = text.split(' ').map(|word| word.parse().expect("a number")).collect();
    let agreed = Agreed {
        minor: n[0] as u32,
        max_readahead: n[1] as u32,
        offered: n[2],
        flags: n[3],
        max_write: n[4] as u32,
    };
    let place =
        Place { dir: folder.join("mount"), way: mounts::Way::Privileged, dev: (0, n[5] as u32), id: n[6] };
    Kept { device, place, agreed }
}

fn start(part: &str, folder: &Path, input: Stdio) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["takeover::part", "--exact", "--nocapture"]).env(PART, part).env(FOLDER, folder);
    command.stdin(input).stdout(Stdio::null()).spawn().expect("a process")
}

/// Not a test by itself: what the other processes run.
#[test]
fn part() {
    let (Ok(part), Ok(folder)) = (std::env::var(PART), std::env::var(FOLDER)) else { return };
    set_parent_process_death_signal(Some(Signal::KILL)).expect("ends with its parent");
    let folder = PathBuf::from(folder);
    match part.as_str() {
        "server Own" => serve(&folder, Channel::Own),
        "server Fuser" => serve(&folder, Channel::Fuser),
        other => apply(&folder, other.parse().expect("which application")),
    }
}

fn serve(folder: &Path, channel: Channel) {
    let device = std::io::stdin().as_fd().try_clone_to_owned().expect("the device");
    let kept = read_kept(folder, device);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    let runtime = runtime.expect("a runtime");
    let session = Session::resume(Durable::open(folder), &kept, channel, 2, runtime.handle().clone());
    let session = session.expect("taken over");
    runtime.block_on(session.ended());
}

/// Writes and reads back one of the files until it is told to stop. Each error ends it badly.
fn apply(folder: &Path, which: usize) {
    let path = folder.join("mount").join(format!("f{which}"));
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if which > 0 {
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_DIRECT);
    }
    let file = options.open(&path).expect("opened");
    let mut rounds = 0_u64;
    while !folder.join("stop").exists() {
        let length = 4096 * (1 + (rounds as usize * 37 + which) % 256);
        let offset = 4096 * (rounds * 13 % ((SIZE - length) as u64 / 4096 + 1));
        let byte = (rounds % 251) as u8;
        file.write_all_at(&Aligned::of(length, byte).bytes()[..length], offset).expect("written");
        let mut read = Aligned::of(length, !byte);
        file.read_exact_at(&mut read.bytes_mut()[..length], offset).expect("read");
        assert!(
            read.bytes()[..length].iter().all(|b| *b == byte),
            "round {rounds}: other bytes than written"
        );
        assert_eq!(fs::metadata(&path).expect("looked up").len(), SIZE as u64);
        rounds += 1;
        fs::write(folder.join(format!("rounds{which}")), rounds.to_string()).expect("noted");
    }
}

/// Memory as O_DIRECT wants it.
struct Aligned(Vec<u8>, usize);

impl Aligned {
    fn of(length: usize, byte: u8) -> Aligned {
        let bytes = vec![byte; length + 4096];
        let at = bytes.as_ptr().align_offset(4096);
        Aligned(bytes, at)
    }

    fn bytes(&self) -> &[u8] {
        &self.0[self.1..]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0[self.1..]
    }
}

fn rounds(folder: &Path) -> u64 {
    let of = |which| fs::read_to_string(folder.join(format!("rounds{which}"))).ok()?.parse::<u64>().ok();
    (0..FILES).filter_map(of).sum()
}

/// Takes the mount away and ends the processes, whatever becomes of the test.
struct Running {
    place: Place,
    server: Child,
    applications: Vec<Child>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.place.unmount(true) {
            eprintln!("{}: {error}", self.place.dir.display());
        }
        for child in self.applications.iter_mut().chain([&mut self.server]) {
            let _ = child.kill(); // it may be gone
            let _ = child.wait();
        }
    }
}

fn no_application_sees_that_the_server_is_killed(channel: Channel) {
    if !able() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_folder, folder) = folder();
    fs::create_dir(folder.join("mount")).expect("a mount point");
    let mounted = mounts::mount(&folder.join("mount"), "holdfast:kept").expect("a mount");
    let place = mounted.place.clone();
    let agreed = mounts::shake_hands(mounted.device.as_fd()).inspect_err(|_| drop(place.unmount(true)));
    write_kept(&folder, &place, &agreed.expect("a kernel that is new enough"));
    let device = || Stdio::from(mounted.device.try_clone().expect("a descriptor"));
    let part = format!("server {channel:?}");
    let server = start(&part, &folder, device());
    let mut running = Running { place, server, applications: Vec::new() };
    for which in 0..FILES {
        running.applications.push(start(&which.to_string(), &folder, Stdio::null()));
    }
    let durable = Durable::open(&folder);
    for _ in 0..KILLS {
        let before = rounds(&folder);
        wait_until("an application gets on", || rounds(&folder) > before);
        running.server.kill().expect("killed");
        running.server.wait().expect("dead");
        running.server = start(&part, &folder, device());
    }
    fs::write(folder.join("stop"), b"").expect("written");
    for application in &mut running.applications {
        let status = application.wait().expect("ended");
        assert!(status.success(), "an application saw an error: {status}");
    }
    let again = durable.word(AGAIN);
    assert!(again > 0, "no kill met a request");
    eprintln!("{channel:?}: {KILLS} kills, {again} requests came again, {} rounds", rounds(&folder));
}

fn a_mount_is_not_resumed_as_something_else(channel: Channel) {
    if !able() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_folder, dir) = folder();
    let mounted = mounts::mount(&dir, "holdfast:kept").expect("a mount");
    let agreed = mounts::shake_hands(mounted.device.as_fd());
    let (place, device) = (mounted.place.clone(), mounted.device);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    let runtime = runtime.expect("a runtime");
    let agreed = agreed.inspect_err(|_| drop(place.unmount(true))).expect("a kernel that is new enough");
    let resume = |agreed| {
        let kept = Kept { device: device.try_clone().expect("a descriptor"), place: place.clone(), agreed };
        Session::resume(Memory::new(), &kept, channel, 2, runtime.handle().clone())
    };
    let other = resume(Agreed { flags: agreed.flags | 1 << 29, ..agreed });
    let old = resume(Agreed { offered: 0, ..agreed });
    let right = resume(agreed);
    let listed = right.as_ref().ok().map(|_| fs::read_dir(&dir).map(Iterator::count));
    // Dropped, it serves on, and the mount stays until it is taken away.
    drop(right);
    let again = fs::read_dir(&dir).map(Iterator::count);
    let gone = place.unmount(true);
    let mut end = vec![0; 2 << 20];
    let end = File::from(device).read(&mut end).map_err(|error| error.raw_os_error());
    assert!(matches!(other, Err(ResumeError::Disagrees)));
    assert!(matches!(old, Err(ResumeError::NoResend)));
    assert_eq!(listed.expect("resumed").expect("listed"), 0);
    assert_eq!(again.expect("still served"), 0);
    gone.expect("unmounted");
    assert_eq!(end, Err(Some(libc::ENODEV)), "the device outlives its mount");
}

over_both! {
    no_application_sees_that_the_server_is_killed,
    a_mount_is_not_resumed_as_something_else,
}
