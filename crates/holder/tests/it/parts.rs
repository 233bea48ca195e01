//! What the other processes run.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holder::{Ended, Item, Keeper, KeeperError, Name, Options, Plan, Role, Start, Taken, hold};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::serving;

/// What runs, and the folder of its test.
pub const PART: &str = "HOLDER_TEST_PART";
pub const FOLDER: &str = "HOLDER_TEST_FOLDER";

/// Not a test by itself: what the other processes run.
#[test]
fn part() {
    let (Ok(part), Ok(folder)) = (std::env::var(PART), std::env::var(FOLDER)) else { return };
    let folder = PathBuf::from(folder);
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    if part != "engine" {
        set_parent_process_death_signal(Some(Signal::KILL)).expect("ends with the test");
    }
    let plans = || vec![Plan { dir: folder.join("mount"), volume: "tested".to_string() }];
    match part.as_str() {
        "engine" => engine(&folder),
        "holder" => keep(&folder, Start::Mount(plans()), None),
        "no-program" => keep(&folder, Start::Mount(plans()), Some("/nothing/of/this/name")),
        "second" => second(&folder),
        "successor" => succeed(&folder),
        "adopter" => keep(&folder, Start::Adopt(Duration::from_secs(10)), None),
        "lonely" => keep(&folder, Start::Adopt(Duration::from_millis(50)), None),
        other => panic!("no part {other}"),
    }
}

fn keep(folder: &Path, start: Start, program: Option<&str>) {
    let (stopped, stop) = UnixStream::pair().expect("sockets");
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, stop).expect("registered");
    let items = match &start {
        Start::Mount(_) => {
            let lock = File::create(folder.join("lock")).expect("a lock");
            vec![(Name::new("lock").expect("a name"), OwnedFd::from(lock))]
        }
        _ => Vec::new(),
    };
    let program = program.map_or(PathBuf::from("/usr/bin/env"), PathBuf::from);
    let exe = std::env::current_exe().expect("this program");
    let arguments = vec![
        format!("{PART}=engine").into(),
        exe.into(),
        "parts::part".into(),
        "--exact".into(),
        "--nocapture".into(),
    ];
    let options = Options { program, arguments, socket: folder.join("socket"), start, items };
    let ended = hold(options, stopped.as_fd()).unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(ended, Ended::Done | Ended::Succeeded), "{ended:?}");
}

/// A newer holder.
fn succeed(folder: &Path) {
    let mut keeper = Keeper::connect(&folder.join("socket"), Role::Keeper).expect("connected");
    let taken = keeper.take().expect("taken");
    let taken = keeper.succeed(taken).expect("it lets go");
    keep(folder, Start::Kept(taken), None);
}

/// A keeper that becomes the holder when the holder is gone.
fn second(folder: &Path) {
    let noted = folder.join(format!("taken-{}", std::process::id()));
    let mut times = 0;
    let taken = loop {
        // Between two holders nobody listens.
        let Ok(mut keeper) = Keeper::connect(&folder.join("socket"), Role::Keeper) else { continue };
        let Ok(mut taken) = keeper.take() else { continue };
        times += 1;
        fs::write(&noted, times.to_string()).expect("written");
        let end = loop {
            match keeper.next_change() {
                Ok(change) => taken.apply(change),
                Err(end) => break end,
            }
        };
        match end {
            KeeperError::Succeeded => continue,
            _ => break taken,
        }
    };
    keep(folder, Start::Kept(taken), None);
}

/// Takes over, serves a tree without files, and ends when it is asked to.
fn engine(folder: &Path) {
    let crashes = folder.join("crashes");
    if let Some(left) = fs::read_to_string(&crashes).ok().and_then(|text| text.parse::<u32>().ok())
        && left > 0
    {
        fs::write(&crashes, (left - 1).to_string()).expect("written");
        std::process::exit(3);
    }
    let mut keeper = Keeper::inherited().expect("a holder");
    if fs::remove_file(folder.join("crash-late")).is_ok() {
        std::process::exit(4);
    }
    let mut taken = keeper.take().expect("taken");
    let device = taken.find(1, &Name::device()).expect("the device").try_clone_to_owned();
    let device = device.expect("a descriptor");
    remember(folder, &mut keeper, &mut taken);
    put_what_is_asked(folder, &mut keeper, &mut taken);
    mounts::ask_for_resend(device.as_fd()).expect("Linux 6.9");
    let (stopped, stop) = UnixStream::pair().expect("sockets");
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, stop).expect("registered");
    let mut server = serving::Server::new(device);
    keeper.ready().expect("told");
    let mut list = OpenOptions::new().create(true).append(true).open(folder.join("engines")).expect("a list");
    list.write_all(format!("{}\n", std::process::id()).as_bytes()).expect("written");
    let mut alone = None;
    loop {
        let life = keeper.life().expect("a descriptor");
        let mut watched = [
            PollFd::new(server.device(), PollFlags::IN),
            PollFd::new(&stopped, PollFlags::IN),
            PollFd::new(&life, PollFlags::empty()),
        ];
        if poll(&mut watched, None).is_err() {
            continue;
        }
        let [request, stop, lost] = watched.map(|fd| !fd.revents().is_empty());
        if request && !server.serve_one() {
            return;
        }
        if stop {
            taken.mounts[0].place.unmount(true).expect("unmounted");
            return keeper.bye(None).expect("told");
        }
        if lost && let Ok(mut next) = Keeper::connect(&folder.join("socket"), Role::Engine) {
            next.give(&taken).expect("given");
            (keeper, alone) = (next, None);
        } else if lost && alone.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(20) {
            // The test is gone too.
            taken.mounts[0].place.unmount(true).expect("unmounted");
            return;
        }
    }
}

/// Each engine leaves a line in the arena that the first one made, and notes how many it found there.
fn remember(folder: &Path, keeper: &mut Keeper, taken: &mut Taken) {
    let name = Name::new("arena").expect("a name");
    if taken.find(1, &name).is_none() {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let arena = rustix::fs::memfd_create("arena", flags).expect("memory");
        keeper.put(1, &name, arena.as_fd()).expect("kept");
        taken.items.push(Item { mount: 1, name: name.clone(), descriptor: arena.into() });
    }
    let arena = taken.find(1, &name).expect("the arena").try_clone_to_owned().expect("a descriptor");
    let (mut arena, mut lines) = (File::from(arena), String::new());
    arena.seek(SeekFrom::Start(0)).expect("its beginning");
    arena.read_to_string(&mut lines).expect("read");
    arena.write_all(b"line\n").expect("written");
    let mut starts =
        OpenOptions::new().create(true).append(true).open(folder.join("starts")).expect("a list");
    let line = format!("{} {}\n", keeper.start(), lines.lines().count() + 1);
    starts.write_all(line.as_bytes()).expect("written");
}

fn put_what_is_asked(folder: &Path, keeper: &mut Keeper, taken: &mut Taken) {
    let Ok(name) = fs::read_to_string(folder.join("put")) else { return };
    let name = Name::new(&name).expect("a name");
    let file = OwnedFd::from(File::open("/dev/null").expect("opened"));
    keeper.put(1, &name, file.as_fd()).expect("kept");
    taken.items.push(Item { mount: 1, name, descriptor: file.into() });
}
