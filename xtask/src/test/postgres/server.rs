//! A PostgreSQL server of our own, started as the user that its package made.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::fs::{Gid, Uid, chown};
use rustix::process::{Pid, Signal};

use crate::shell;

/// Where Debian keeps each release's programs.
const RELEASES: &str = "/usr/lib/postgresql";

/// The user that the server runs as: it refuses root.
const USER: &str = "postgres";

/// A start, with its recovery, or a stop takes no longer.
const READY_MAX: Duration = Duration::from_secs(120);

/// Killed processes are gone after this.
const GONE_MAX: Duration = Duration::from_secs(30);

/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Durability as it comes; little memory, so that pages travel; checkpoints within a cycle.
const SETTINGS: &str = "listen_addresses = ''
shared_buffers = 16MB
max_connections = 30
max_wal_size = 64MB
min_wal_size = 32MB
checkpoint_timeout = 30s
wal_writer_delay = 10ms
";

/// The server's own files lie in the mount, its socket and its log outside.
pub struct Server {
    programs: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    running: Option<Child>,
}

impl Server {
    /// Makes a new database in `data`, with the socket in `place`.
    pub fn new(place: &Path, data: &Path, scratch: &Path) -> anyhow::Result<Server> {
        let socket = place.join("socket");
        let id = |flag: &str| -> anyhow::Result<u32> {
            let text = shell::read(Command::new("id").args([flag, USER]))?;
            text.trim().parse().context("read the id of the user of PostgreSQL")
        };
        let (user, group) = (Uid::from_raw(id("-u")?), Gid::from_raw(id("-g")?));
        for folder in [&socket, data] {
            fs::create_dir(folder).with_context(|| format!("make {}", folder.display()))?;
            fs::set_permissions(folder, Permissions::from_mode(0o700)).context("set its mode")?;
            chown(folder, Some(user), Some(group)).context("give it to the user of PostgreSQL")?;
        }
        let server = Server {
            programs: programs()?,
            data: data.to_owned(),
            socket,
            log: scratch.join("postgres.log"),
            running: None,
        };
        let mut init = server.as_user("initdb");
        init.args(["--data-checksums", "--auth=trust", "--username=postgres", "--encoding=UTF8"]);
        shell::read(init.args(["--locale=C", "--no-instructions", "--pgdata"]).arg(data))?;
        let settings = data.join("postgresql.auto.conf");
        let socket = format!("unix_socket_directories = '{}'\n", server.socket.display());
        fs::write(settings, format!("{SETTINGS}{socket}")).context("write its settings")?;
        Ok(server)
    }

    /// One of the release's programs, run as the server's user.
    fn as_user(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]);
        command.arg(self.programs.join(program)).current_dir("/");
        command
    }

    /// One of the release's client programs, told where the server is.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env("PGHOST", &self.socket).env("PGUSER", USER).env("PGDATABASE", USER).current_dir("/");
        command
    }

    /// What `sql` answers: a line per row, columns divided by `|`.
    pub fn ask(&self, sql: &str) -> anyhow::Result<String> {
        let mut command = self.client("psql");
        command.args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--quiet",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
        ]);
        Ok(shell::read(command.arg(sql))?.trim().to_owned())
    }

    /// Starts and waits until it answers, its recovery done.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log).context("open its log")?;
        let errors = log.try_clone().context("use its log twice")?;
        let mut command = self.as_user("postgres");
        command.arg("-D").arg(&self.data).stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = self.running.insert(command.spawn().context("start PostgreSQL")?);
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().context("wait for PostgreSQL")? {
                self.running = None;
                bail!("PostgreSQL ended: {status}; {}", self.last_words());
            }
            let mut ready = Command::new(self.programs.join("pg_isready"));
            if shell::output(ready.arg("--quiet").arg("--host").arg(&self.socket))?.status.success() {
                return Ok(());
            }
            ensure!(began.elapsed() < READY_MAX, "PostgreSQL does not answer; {}", self.last_words());
            std::thread::sleep(LOOK);
        }
    }

    /// Stops it as a user does; it has to end well.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut child = self.running.take().context("PostgreSQL does not run")?;
        rustix::process::kill_process(Pid::from_child(&child), Signal::INT).context("send SIGINT")?;
        let status = child.wait().context("wait for PostgreSQL")?;
        ensure!(status.success(), "PostgreSQL stopped with {status}; {}", self.last_words());
        Ok(())
    }

    /// `kill -9` of all its processes; returns when they are gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.running.take() else { return Ok(()) };
        // Each has a session of its own, so it is by their parent that they are known.
        let children = children(child.id())?;
        child.kill().context("kill PostgreSQL")?;
        for pid in &children {
            // An error means that it is gone already.
            let _ = rustix::process::kill_process(*pid, Signal::KILL);
        }
        child.wait().context("wait for PostgreSQL")?;
        let began = Instant::now();
        while children.iter().any(|pid| lives(*pid)) {
            ensure!(began.elapsed() < GONE_MAX, "a process of PostgreSQL survives kill -9");
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        let end: Vec<&str> = lines.into_iter().rev().collect();
        format!("its log {} ends with:\n{}", self.log.display(), end.join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// The newest release that has all that is needed.
fn programs() -> anyhow::Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(RELEASES)
        .context("look for PostgreSQL")?
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| ["postgres", "pgbench", "pg_amcheck"].iter().all(|name| bin.join(name).exists()))
        .collect();
    found.sort();
    Ok(found.pop().with_context(|| format!("no release of PostgreSQL in {RELEASES} is whole"))?.1)
}

/// State and parent of a process, from proc(5): they follow the name, which is in parentheses.
fn state_and_parent(pid: &str) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn children(parent: u32) -> anyhow::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if state_and_parent(name).is_some_and(|(_, of)| of == parent) {
            pids.extend(name.parse().ok().and_then(Pid::from_raw));
        }
    }
    Ok(pids)
}

/// A zombie that nobody has waited for yet does nothing any more.
fn lives(pid: Pid) -> bool {
    state_and_parent(&pid.as_raw_nonzero().to_string()).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}
