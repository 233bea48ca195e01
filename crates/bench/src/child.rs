//! Processes that serve what is measured.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use crate::error::BenchError;
use crate::machine::is_mount_point;

/// A start or a stop that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A process that mounts something. Dropped, it is stopped, and nothing stays mounted.
pub(crate) struct Served {
    who: &'static str,
    child: Child,
    /// A floor ends when this is closed.
    input: Option<ChildStdin>,
    mount: PathBuf,
}

impl Served {
    /// Starts it and waits until it says `ready`. What it tells of its own goes to the file `log`.
    pub(crate) fn start(
        who: &'static str,
        mut command: Command,
        mount: &Path,
        log: &Path,
        stop: &AtomicBool,
    ) -> Result<Served, BenchError> {
        let system = |what: &str| BenchError::system(format!("{what} {who}"));
        std::fs::create_dir_all(mount).map_err(system("make the mount point of"))?;
        let errors = std::fs::File::create(log).map_err(system("make the log of"))?;
        // A group of its own: Ctrl-C is for us, and we stop everything in order.
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(system("start"))?;
        let (output, input) = (child.stdout.take(), child.stdin.take());
        let served = Served { who, child, input, mount: mount.to_path_buf() };
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()) {
                if line.is_err() || tell.send(line.unwrap_or_default()).is_err() {
                    break;
                }
            }
        });
        let began = Instant::now();
        loop {
            match told.recv_timeout(LOOK) {
                Ok(line) if line.starts_with("ready") => return Ok(served),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => {
                    return Err(BenchError::Stopped);
                }
                Err(RecvTimeoutError::Timeout) if began.elapsed() < PATIENCE => {}
                Err(RecvTimeoutError::Timeout) => return Err(served.not_started(log, "it took too long")),
                Err(RecvTimeoutError::Disconnected) => return Err(served.not_started(log, "it ended")),
            }
        }
    }

    fn not_started(self, log: &Path, how: &str) -> BenchError {
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(how);
        BenchError::NotStarted { who: self.who, why: last.to_string() }
    }

    /// Asks it to end, and waits.
    fn end(&mut self) {
        drop(self.input.take());
        let pid = Pid::from_child(&self.child);
        // An error means that it has ended already.
        let _ = rustix::process::kill_process(pid, Signal::INT);
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
        while is_mount_point(&self.mount) {
            if rustix::mount::unmount(&self.mount, UnmountFlags::DETACH).is_err() {
                break;
            }
        }
    }
}
