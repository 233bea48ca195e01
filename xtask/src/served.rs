//! A running `holdfast up`, as tests start, ask, stop and kill it.

mod watch;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::{shell, tree};
pub use watch::number;

/// A start that takes longer than this has failed.
const READY_MAX: Duration = Duration::from_secs(120);

/// A stop that takes longer than this has failed.
const STOP_MAX: Duration = Duration::from_secs(90);

/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What to start.
#[derive(Clone, Debug)]
pub struct Up {
    /// The data directory.
    pub data: PathBuf,
    /// The mount point; it is made if it is not there.
    pub mount: PathBuf,
    /// Where what it prints is kept.
    pub log: PathBuf,
    /// Further arguments.
    pub args: Vec<String>,
    /// Sizes to shrink, as `HOLDFAST_TEST_TUNING` takes them; empty for none.
    pub tuning: String,
}

impl Up {
    /// An `up` that keeps everything in `scratch`, with a disk file of `capacity`.
    pub fn in_folder(scratch: &Path, capacity: &str) -> Up {
        Up {
            data: scratch.join("data"),
            mount: scratch.join("mnt"),
            log: scratch.join("up.log"),
            args: vec!["--capacity".into(), capacity.into()],
            tuning: String::new(),
        }
    }

    /// The command line, not started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(tree::holdfast());
        command.arg("up").arg("--data").arg(&self.data).arg("--mount").arg(&self.mount).args(&self.args);
        if !self.tuning.is_empty() {
            command.env("HOLDFAST_TEST_TUNING", &self.tuning);
        }
        command
    }

    /// Starts without waiting for anything.
    pub fn spawn(&self) -> anyhow::Result<Served> {
        make_mount_point(&self.mount)?;
        let log = File::options().create(true).append(true).open(&self.log).context("open the log of up")?;
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("start holdfast up")?;
        let stdout = child.stdout.take().context("holdfast up has no output")?;
        let (lines, received) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Served {
            child,
            up: self.clone(),
            lines: received,
            started: Instant::now(),
            took: None,
            ended: None,
            leaves_mount: false,
        })
    }

    /// Starts and waits until the mount can be used.
    pub fn start(&self) -> anyhow::Result<Served> {
        let mut served = self.spawn()?;
        served.wait_ready()?;
        Ok(served)
    }

    /// Checks the stopped data directory.
    pub fn fsck(&self) -> anyhow::Result<()> {
        shell::read(Command::new(tree::holdfast()).arg("fsck").arg("--data").arg(&self.data))
            .context("fsck")?;
        Ok(())
    }
}

/// A dead mount on it is left as it is: `up` has to cope.
fn make_mount_point(mount: &Path) -> anyhow::Result<()> {
    match fs::create_dir_all(mount) {
        Ok(()) => Ok(()),
        Err(_) if is_mounted(mount) => Ok(()),
        Err(error) => Err(error).context("make the mount point"),
    }
}

/// Whether something is mounted exactly there.
pub fn is_mounted(mount: &Path) -> bool {
    let wanted = mount.display().to_string().replace(' ', "\\040");
    fs::read_to_string("/proc/self/mounts")
        .is_ok_and(|mounts| mounts.lines().any(|line| line.split(' ').nth(1) == Some(&wanted)))
}

/// Takes whatever is mounted there away, busy or not.
pub fn detach(mount: &Path) {
    while is_mounted(mount) {
        if rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH).is_err() {
            break;
        }
    }
}

/// A started `up`. Dropped, it is killed and its mount detached.
pub struct Served {
    child: Child,
    up: Up,
    lines: Receiver<String>,
    started: Instant,
    /// How long it took from start to ready.
    took: Option<Duration>,
    ended: Option<ExitStatus>,
    /// It was killed on purpose, and the dead mount is part of what the next start has to cope with.
    leaves_mount: bool,
}

impl Served {
    /// Waits for the line that says `ready`; returns how long the start took.
    pub fn wait_ready(&mut self) -> anyhow::Result<Duration> {
        loop {
            let left = READY_MAX.saturating_sub(self.started.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains("ready") => {
                    let took = self.started.elapsed();
                    self.took = Some(took);
                    return Ok(took);
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("not ready after {READY_MAX:?}; {}", self.last_words())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("wait for holdfast up")?;
                    self.ended = Some(status);
                    bail!("holdfast up ended before it was ready: {status}; {}", self.last_words());
                }
            }
        }
    }

    /// How long the start took; it has to be ready.
    pub fn start_took(&self) -> Duration {
        self.took.expect("it was waited for")
    }

    /// Whether it has said that it is ready, without waiting for it.
    pub fn was_ready(&self) -> bool {
        self.took.is_some() || self.lines.try_iter().any(|line| line.contains("ready"))
    }

    /// The mount point.
    pub fn mount(&self) -> &Path {
        &self.up.mount
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many descriptors it has open.
    pub fn open_descriptors(&self) -> anyhow::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid())).context("list its descriptors")?.count())
    }

    /// What `holdfast status --json` tells.
    pub fn status(&self) -> anyhow::Result<Value> {
        let text = shell::read(
            Command::new(tree::holdfast()).args(["status", "--json", "--data"]).arg(&self.up.data),
        )?;
        serde_json::from_str(&text).context("read the status")
    }

    /// Stops it as a user does: it has to exit 0 and leave no mount.
    pub fn stop(mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        rustix::process::kill_process(self.process(), Signal::INT).context("send SIGINT")?;
        let Some(status) = self.wait_end(STOP_MAX)? else {
            bail!("holdfast up did not stop within {STOP_MAX:?}; {}", self.last_words());
        };
        ensure!(status.success(), "holdfast up stopped with {status}; {}", self.last_words());
        ensure!(!is_mounted(&self.up.mount), "holdfast up stopped and left its mount");
        Ok(began.elapsed())
    }

    /// `kill -9` of it and all its children; its mount stays behind, dead.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.kill_group();
        self.wait_end(STOP_MAX)?.context("holdfast up survives kill -9")?;
        self.leaves_mount = true;
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub fn wait_end(&mut self, at_most: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let began = Instant::now();
        while self.ended.is_none() && began.elapsed() < at_most {
            self.ended = self.child.try_wait().context("wait for holdfast up")?;
            std::thread::sleep(LOOK);
        }
        Ok(self.ended)
    }

    /// The end of what it printed.
    pub fn last_words(&self) -> String {
        let words = tail(&self.up.log, 4096).unwrap_or_default();
        format!("its log {} ends with:\n{words}", self.up.log.display())
    }

    fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn kill_group(&self) {
        // An error means that it is gone already.
        let _ = rustix::process::kill_process_group(self.process(), Signal::KILL);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill_group();
            let _ = self.child.wait();
        }
        if !self.leaves_mount {
            detach(&self.up.mount);
        }
    }
}

fn tail(path: &Path, bytes: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(bytes)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
