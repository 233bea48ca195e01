//! The engine's process: started, watched, and started again after a pause.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{oom, socket};

/// The pause before an engine is started again that died before it served, doubled with each such death.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What is started.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

/// A process that runs.
pub(crate) struct Engine {
    /// If it can be seen from here.
    pub(crate) pid: Option<u32>,
    /// Readable when its last thread is gone, so nothing of it is half done in the kernel.
    death: Arc<OwnedFd>,
    /// `None`: it was started by somebody else, who reaps it.
    child: Option<Child>,
    pub(crate) started: Instant,
    pub(crate) serves: bool,
}

impl Engine {
    /// Starts one, in a process group of its own: signals of a terminal are for the holder, which passes them on. Its
    /// descriptor 0 is its end of the socket whose other end is answered.
    pub(crate) fn start(program: &Program) -> io::Result<(Engine, OwnedFd)> {
        let (ours, theirs) = socket::pair()?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).stdin(Stdio::from(theirs)).process_group(0);
        let mut child = command.spawn()?;
        let death = match open(child.id()) {
            Ok(death) => death,
            // It cannot be watched, so it must not run: it is a child that was not waited for, so the id is its own.
            Err(error) => {
                let _ = child.kill();
                child.wait()?;
                return Err(error);
            }
        };
        if let Err(error) = oom::offer_engine(child.id()) {
            tracing::warn!(%error, "the engine is not the first to end when memory is short");
        }
        let (pid, death) = (Some(child.id()), Arc::new(death));
        Ok((Engine { pid, death, child: Some(child), started: Instant::now(), serves: false }, ours))
    }

    /// Watches one that another holder has started.
    pub(crate) fn watch(death: Arc<OwnedFd>) -> Engine {
        Engine { pid: pid_of(&death), death, child: None, started: Instant::now(), serves: true }
    }

    /// Whether another holder has started it.
    pub(crate) fn is_anothers(&self) -> bool {
        self.child.is_none()
    }

    /// The descriptor that tells of its death.
    pub(crate) fn death(&self) -> &Arc<OwnedFd> {
        &self.death
    }

    /// How it ended, once its death was seen.
    pub(crate) fn end(self) -> String {
        match self.child {
            None => "it was another's child, so how is not known".to_string(),
            Some(mut child) => match child.wait() {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
        }
    }

    /// Ends it. What it was doing is for the next one, as after any death.
    pub(crate) fn kill(&self) {
        if let Err(error) = pidfd_send_signal(self.death.as_ref(), Signal::KILL) {
            tracing::debug!(pid = ?self.pid, %error, "the engine could not be killed");
        }
    }

    /// Asks it to end. One that is dead already needs no asking.
    pub(crate) fn ask_to_end(&self) {
        if let Err(error) = pidfd_send_signal(self.death.as_ref(), Signal::TERM) {
            tracing::debug!(pid = ?self.pid, %error, "the engine could not be asked to end");
        }
    }
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("its process id is not visible here"))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Of a pidfd: -1 if it is dead, 0 if it cannot be seen from here.
fn pid_of(death: &OwnedFd) -> Option<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", death.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

/// How long to wait before the next start.
#[derive(Default)]
pub(crate) struct Pause {
    failures: u32,
}

impl Pause {
    /// The engine serves: its next death is answered at once.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// After a start that did not lead to serving, or did if `served`.
    pub(crate) fn next(&mut self, served: bool) -> Duration {
        if served {
            self.reset();
            return Duration::ZERO;
        }
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::Pause;

    #[test]
    fn pauses_grow_to_a_bound_and_serving_ends_them() {
        let mut pause = Pause::default();
        assert_eq!(pause.next(true).as_millis(), 0);
        let pauses: Vec<_> = (0..9).map(|_| pause.next(false).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(pause.next(true).as_millis(), 0);
        assert_eq!(pause.next(false).as_millis(), 100);
    }
}
