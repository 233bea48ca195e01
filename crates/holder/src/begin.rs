//! How a holder begins: its socket, and what it keeps at first.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mounts::{InitError, MountError};
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::kept::{Item, Kept, KeptMount, Name, Taken};

/// Connections at a time.
pub(crate) const PEERS_MAX: usize = 16;

/// How long a lock may be held by a holder that is dead: the kernel closes a dead process's sockets and files in no
/// order, so whoever sees the hang-up may come before the lock is free.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// A mount that is to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The mount point: a directory with nothing mounted on it, or a mount of ours whose process is gone.
    pub dir: PathBuf,
    /// The volume to be served there; the mount table shows `holdfast:` and it.
    pub volume: String,
}

/// How a holder begins.
#[derive(Debug)]
pub enum Start {
    /// With mounts that it makes. They are numbered from 1 on.
    Mount(Vec<Plan>),
    /// With what an engine gives it whose holder is dead, and which has this long to come.
    Adopt(Duration),
    /// With what was taken from a holder that is dead, or was [succeeded](crate::Keeper::succeed). An engine that still
    /// serves it is waited for, and comes to the socket; once it is dead another one is started.
    Kept(Taken),
}

/// What a holder does.
#[derive(Debug)]
pub struct Options {
    /// The engine's program. It finds the holder at its descriptor 0: [`Keeper::inherited`](crate::Keeper::inherited).
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where second keepers and engines without a holder connect. Beside it lies a file that ends in `.lock`, by which
    /// there is one holder at a time.
    pub socket: PathBuf,
    /// What it begins with.
    pub start: Start,
    /// Descriptors to keep that belong to no mount, the lock of a directory for example.
    pub items: Vec<(Name, OwnedFd)>,
}

/// Why nothing is held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// A volume could not be mounted. Those before it are unmounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Nothing could be agreed with the kernel.
    #[error(transparent)]
    Init(#[from] InitError),
    /// Another holder is at the same socket. Nothing was done: what is kept, it keeps, and a keeper may connect to it.
    #[error("another holder listens on the same socket")]
    AnotherHolds,
    /// No engine came to a holder that wanted to adopt one.
    #[error("no engine came that serves without its holder")]
    NobodyCame,
    /// What it is to begin with contradicts itself.
    #[error("what is to be kept contradicts itself: {0}")]
    Start(String),
    /// A system call failed.
    #[error("{call} failed in the holder")]
    System {
        /// What failed.
        call: &'static str,
        /// How.
        #[source]
        source: io::Error,
    },
}

pub(crate) fn system<E: Into<io::Error>>(call: &'static str) -> impl Fn(E) -> HoldError {
    move |error| HoldError::System { call, source: error.into() }
}

/// A socket, and the right to be its holder, which ends with the second one. Two at a time would start two engines.
pub(crate) fn listen(path: &Path) -> Result<(OwnedFd, OwnedFd), HoldError> {
    let right = lock(path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system("unlink(2)")(error)),
        _ => {}
    }
    let address = SocketAddrUnix::new(path).map_err(system("bind(2)"))?;
    let kind = SocketType::SEQPACKET;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None);
    let listener = listener.map_err(system("socket(2)"))?;
    rustix::net::bind(&listener, &address).map_err(system("bind(2)"))?;
    // Before anybody can connect, which takes the right to write to it: nobody else's than this user's and root's.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(system("chmod(2)"))?;
    rustix::net::listen(&listener, PEERS_MAX as i32).map_err(system("listen(2)"))?;
    Ok((listener, right))
}

/// The file stays: taken away it could be locked by one and made anew by another.
fn lock(socket: &Path) -> Result<OwnedFd, HoldError> {
    use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
    let mut path = socket.as_os_str().to_os_string();
    path.push(".lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(system("open(2)"))?;
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < end => {}
            Err(Errno::WOULDBLOCK) => return Err(HoldError::AnotherHolds),
            Err(error) => return Err(system("flock(2)")(error)),
        }
        match rustix::event::poll(&mut [], Some(&LOCK_RETRY)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(system("poll(2)")(error)),
        }
    }
}

/// Mounts all, or nothing.
pub(crate) fn mount(plans: &[Plan], kept: &mut Kept) -> Result<(), HoldError> {
    let done = plans.iter().zip(1..).try_for_each(|(plan, number)| mount_one(plan, number, kept));
    if done.is_err() {
        for mount in kept.mounts() {
            unmount(&mount.place);
        }
    }
    done
}

fn mount_one(plan: &Plan, number: u32, kept: &mut Kept) -> Result<(), HoldError> {
    let mounted = mounts::mount(&plan.dir, &format!("holdfast:{}", plan.volume))?;
    let agreed = mounts::shake_hands(mounted.device.as_fd()).inspect_err(|_| unmount(&mounted.place))?;
    let place = mounted.place.clone();
    let descriptor = Arc::new(mounted.device);
    let device = Item { mount: number, name: Name::device(), descriptor };
    kept.add_mount(KeptMount { number, volume: plan.volume.clone(), place: mounted.place, agreed })
        .and_then(|()| kept.put(device))
        .map_err(|error| {
            unmount(&place);
            HoldError::Start(error.to_string())
        })
}

fn unmount(place: &mounts::Place) {
    if let Err(error) = place.unmount(true) {
        tracing::warn!(dir = %place.dir.display(), %error, "a mount that failed is left behind");
    }
}
