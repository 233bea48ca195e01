//! Real mounts of a small tree in memory: what the kernel asks, and what it makes of the answers.
//!
//! As root with /dev/fuse; elsewhere each test says that it was skipped.

mod data;
mod killed;
mod lifecycle;
mod memory;
mod names;
mod takeover;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fuse::{Channel, Config, Session};
use memory::Memory;
use tokio::runtime::Runtime;

/// One mount at a time: a child that another test forks would for a moment hold this test's open files.
static ALONE: Mutex<()> = Mutex::new(());

/// Each of these tests over both channels to the kernel.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod over_fuser {
            $(#[test] fn $name() { super::$name(fuse::Channel::Fuser); })*
        }
        mod over_own {
            $(#[test] fn $name() { super::$name(fuse::Channel::Own); })*
        }
    };
}
use over_both;

/// A mounted tree, taken away at the end of the test.
struct Fixture {
    memory: Arc<Memory>,
    channel: Channel,
    session: Session,
    dir: PathBuf,
    runtime: Runtime,
    _folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// A folder that every user may enter, as its path in the mount table.
fn folder() -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("open to all");
    let path = folder.path().canonicalize().expect("its path");
    (folder, path)
}

/// Whether this machine can run the tests.
fn able() -> bool {
    let able = Path::new("/dev/fuse").exists() && rustix::process::geteuid().is_root();
    if !able {
        eprintln!("skipped: needs root and /dev/fuse");
    }
    able
}

/// A runtime with one thread.
fn runtime() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).enable_time().build().expect("a runtime")
}

/// Mounts with one thread, so that whatever blocks it would be seen; `None` where that cannot be.
fn fixture(channel: Channel) -> Option<Fixture> {
    if !able() {
        return None;
    }
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, dir) = folder();
    let memory = Memory::new();
    let runtime = runtime();
    let config = Config { threads: 1, channel, ..Config::new(&dir, "tested") };
    let session = Session::start(memory.clone(), &config, runtime.handle().clone()).expect("a mount");
    Some(Fixture { memory, channel, session, dir, runtime, _folder: folder, _alone: alone })
}

impl Fixture {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.memory.gate.close(); // whatever still waits is answered
        if let Err(error) = self.session.detach() {
            eprintln!("{}: {error}", self.dir.display());
        }
    }
}

/// Waits until `holds`, or fails after ten seconds.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
        std::thread::yield_now();
    }
}
