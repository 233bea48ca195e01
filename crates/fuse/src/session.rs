//! A mount from its beginning to its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mounts::{Look, MountError, Place};
use rustix::io::Errno;
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;

use crate::adapter::Adapter;
use crate::channel;
use crate::figures::Figures;
use crate::filesystem::Filesystem;
use crate::holders::{self, Holder};
use crate::resume::{self, Gathering, Kept, ResumeError};
use crate::server::Server;

/// How a volume is mounted.
#[derive(Clone, Debug)]
pub struct Config {
    /// The mount point: a directory with nothing mounted on it, or a mount of ours whose process is gone.
    pub dir: PathBuf,
    /// The volume's name; the mount table shows `holdfast:` and it.
    pub volume: String,
    /// Threads that read requests, at least 1. An operation that waits occupies none.
    pub threads: usize,
    /// Who speaks to the kernel.
    pub channel: Channel,
}

/// Who reads requests from the kernel, and answers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// The fuser crate.
    Fuser,
    /// This crate. Callers that are killed while their request waits end at once, statx(2) shows times of birth.
    Own,
}

impl Config {
    /// Mounts `volume` on `dir` with 2 threads over fuser.
    pub fn new(dir: &Path, volume: &str) -> Config {
        Config { dir: dir.to_path_buf(), volume: volume.to_string(), threads: 2, channel: Channel::Fuser }
    }
}

/// Why no more requests come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was unmounted, and its last open file is closed.
    Unmounted,
    /// The connection was aborted; the mount is still in the table and answers `ENOTCONN`.
    Aborted,
    /// Reading requests failed.
    Failed(String),
}

/// Why a mount is still there.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// It is in use.
    #[error("{} is in use{}", .dir.display(), list(.holders))]
    Busy {
        /// The mount point.
        dir: PathBuf,
        /// By whom, as far as can be seen.
        holders: Vec<Holder>,
    },
    /// The system call, or fusermount3, failed.
    #[error("cannot unmount {}", .dir.display())]
    System {
        /// The mount point.
        dir: PathBuf,
        /// How.
        #[source]
        source: io::Error,
    },
}

fn list(holders: &[Holder]) -> String {
    let each: Vec<String> = holders.iter().map(Holder::to_string).collect();
    if each.is_empty() { String::new() } else { format!(": {}", each.join(", ")) }
}

/// A mount and the threads that serve it.
///
/// Dropping it neither unmounts nor stops the threads: they run until the mount is gone or the process ends. A mount
/// that is left behind by its process answers `ENOTCONN` until it is detached.
pub struct Session {
    place: Place,
    figures: Arc<Figures>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Session {
    /// Mounts and serves. When it returns the mount can be used.
    ///
    /// Operations that must wait are spawned on `runtime`, which needs at least one worker thread of its own and must
    /// live as long as the session. Blocks for a few system calls; as a user, for a run of fusermount3.
    pub fn start(
        filesystem: Arc<dyn Filesystem>,
        config: &Config,
        runtime: Runtime,
    ) -> Result<Session, MountError> {
        let figures = Arc::new(Figures::new());
        let server = Server::new(filesystem, runtime, Arc::clone(&figures), config.threads);
        Session::begin(config, figures, |device| match config.channel {
            Channel::Fuser => serve(Adapter::new(server, None), device, config.threads),
            Channel::Own => {
                let refused = |error| MountError::Handshake(io::Error::other(error));
                let agreed = mounts::shake_hands(device.as_fd()).map_err(refused)?;
                channel::serve(server, device, agreed, config.threads).map_err(MountError::Handshake)
            }
        })
    }

    /// Serves a mount whose device another process keeps, with at least one thread that reads requests. To be called
    /// when whoever served it before is dead, its last thread included: requests that it had read come again, with
    /// their old [`unique`](vfs::Ctx), and `filesystem` has to know which of them were run. When it returns the mount
    /// can be used; `runtime` is as for [`Session::start`].
    ///
    /// The mount is not taken away by an error, by dropping the session or by the process's death. After an error
    /// nothing was read from the device, so another try loses nothing.
    pub fn resume(
        filesystem: Arc<dyn Filesystem>,
        kept: &Kept,
        channel: Channel,
        threads: usize,
        runtime: Runtime,
    ) -> Result<Session, ResumeError> {
        let figures = Arc::new(Figures::new());
        let server = Server::new(filesystem, runtime, Arc::clone(&figures), threads);
        let ended = match channel {
            Channel::Own => channel::take_over(server, kept, threads)?,
            Channel::Fuser => {
                let gathering = Arc::new(Gathering::default());
                let adapter = Adapter::new(server, Some(Arc::clone(&gathering)));
                resume::take_over(adapter, kept, options(threads), &gathering)?
            }
        };
        Ok(Session { place: kept.place.clone(), figures, ended })
    }

    /// Mounts as [`Session::start`] does, with the same options and threads, but serves a filesystem of fuser's own
    /// kind, over fuser, whose `init` calls [`agree`](crate::agree). So what the kernel and fuser cost can be measured without our adapter;
    /// nothing is counted.
    pub fn start_plain(filesystem: impl fuser::Filesystem, config: &Config) -> Result<Session, MountError> {
        let serve = |device| serve(filesystem, device, config.threads);
        Session::begin(config, Arc::new(Figures::new()), serve)
    }

    fn begin(
        config: &Config,
        figures: Arc<Figures>,
        serve: impl FnOnce(OwnedFd) -> Result<watch::Receiver<Option<Ended>>, MountError>,
    ) -> Result<Session, MountError> {
        let mounted = mounts::mount(&config.dir, &format!("holdfast:{}", config.volume))?;
        let place = mounted.place;
        serve(mounted.device)
            .inspect_err(|_| {
                if let Err(error) = place.unmount(true) {
                    tracing::warn!(dir = %place.dir.display(), %error, "a mount that failed is left behind");
                }
            })
            .map(|ended| Session { place: place.clone(), figures, ended })
    }

    /// The mount point as the mount table shows it.
    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// What was counted since the mount.
    pub fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    /// Resolves when no more requests come, whoever unmounted. Dropping it has no effect.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ended::Unmounted),
            Err(_) => Ended::Failed("the thread that serves the mount is gone".to_string()),
        }
    }

    /// Unmounts, unless it is in use. A mount that is gone already is not an error.
    ///
    /// Blocks, and may need requests answered meanwhile (dirty mapped pages are written), so it must not be called on
    /// the runtime's own threads. The last requests may still be running when it returns: see [`Session::ended`].
    pub fn unmount(&self) -> Result<(), UnmountError> {
        self.take_away(false)
    }

    /// Takes the mount out of the tree at once; what is open stays usable as long as this process serves it.
    pub fn detach(&self) -> Result<(), UnmountError> {
        self.take_away(true)
    }

    /// Who uses the mount, as far as can be seen.
    pub fn holders(&self) -> Vec<Holder> {
        holders::find(&self.place)
    }

    fn take_away(&self, lazily: bool) -> Result<(), UnmountError> {
        let dir = || self.place.dir.clone();
        let system = |source| UnmountError::System { dir: dir(), source };
        match self.place.look().map_err(system)? {
            Look::Gone => return Ok(()),
            Look::There => {}
            // umount2 would take the upper one away.
            Look::Covered => {
                return Err(UnmountError::Busy { dir: dir(), holders: vec![Holder::Mount { path: dir() }] });
            }
        }
        match self.place.unmount(lazily) {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                Err(UnmountError::Busy { dir: dir(), holders: self.holders() })
            }
            Err(error) => match self.place.look() {
                Ok(Look::Gone) => Ok(()), // somebody else was faster
                _ => Err(system(error)),
            },
        }
    }
}

fn options(threads: usize) -> fuser::Config {
    let mut options = fuser::Config::default();
    options.n_threads = Some(threads.max(1));
    options.clone_fd = false; // a closed clone takes its requests with it
    options
}

/// Agrees with the kernel, and starts the threads.
fn serve(
    filesystem: impl fuser::Filesystem,
    device: OwnedFd,
    threads: usize,
) -> Result<watch::Receiver<Option<Ended>>, MountError> {
    // Who may use the mount is the kernel's to say (allow_other or the owner alone).
    let session = fuser::Session::from_fd(filesystem, device, fuser::SessionACL::All, options(threads))
        .map_err(MountError::Handshake)?;
    let device = session.as_fd().try_clone_to_owned().map_err(MountError::Handshake)?;
    run(session, device, |_| {}).map_err(MountError::Handshake)
}

/// Runs a session on a thread of its own. `told` is told first how it ended.
pub(crate) fn run(
    session: fuser::Session<impl fuser::Filesystem>,
    device: OwnedFd,
    told: impl FnOnce(&Ended) + Send + 'static,
) -> io::Result<watch::Receiver<Option<Ended>>> {
    let (tell, ended) = watch::channel(None);
    let thread = std::thread::Builder::new().name("fuse".to_string());
    thread.spawn(move || {
        let end = match session.run() {
            Ok(()) => Ended::Unmounted,
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => aborted_or_unmounted(&device),
            Err(error) => Ended::Failed(error.to_string()),
        };
        told(&end);
        tell.send_replace(Some(end));
    })?;
    Ok(ended)
}

/// A read that met the last request of a mount just as that was taken away fails like one of an aborted connection;
/// the next one tells them apart.
fn aborted_or_unmounted(device: &OwnedFd) -> Ended {
    // A smaller one is refused before anything else is looked at.
    let mut buffer = vec![0; mounts::TRANSFER_MAX as usize + 8192];
    match rustix::io::read(device, &mut buffer) {
        Err(Errno::NODEV) => Ended::Unmounted,
        _ => Ended::Aborted,
    }
}
