//! Clients that note outside of the mount what they were told is committed: pgbench with its log, and tellers who
//! insert one number after another.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::server::Server;
use crate::shell;

/// How many tellers there are.
const TELLERS: u64 = 2;

/// Clients of pgbench.
const PGBENCH_CLIENTS: u64 = 4;

/// Longer than any cycle: it is the crash that ends it.
const PGBENCH_SECONDS: u64 = 600;

/// The books: what was paid in at each level, and what the history says.
const SUMS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
    (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
    (SELECT count(*) FROM pgbench_history), (SELECT coalesce(sum(checksum_failures), 0) FROM pg_stat_database)";

/// All clients, and what they were told so far.
pub struct Clients {
    scratch: PathBuf,
    /// Last number that each teller was told is committed; its next one is higher.
    told: Vec<u64>,
    /// Numbers that were sent and not answered: these may be there or not.
    unsure: Vec<Vec<u64>>,
    /// Transactions of pgbench that it was told are committed.
    transactions: u64,
    /// Commits of the last cycle.
    cycle: u64,
}

/// What the clients of one cycle share.
#[derive(Default)]
struct Signals {
    crashing: AtomicBool,
    failed: AtomicBool,
    /// Commits that tellers were told of.
    told: AtomicU64,
}

/// The clients at work.
pub struct Running {
    signals: Arc<Signals>,
    pgbench: Child,
    tellers: Vec<JoinHandle<anyhow::Result<Told>>>,
}

/// What one teller brings back: the last number that is committed for sure, and one that may be.
struct Told {
    sure: u64,
    unsure: Option<u64>,
}

impl Clients {
    /// Fills the tables; `scale` as pgbench(1) counts, 100,000 accounts each.
    pub fn new(server: &Server, scratch: &Path, scale: u32) -> anyhow::Result<Clients> {
        let mut fill = server.client("pgbench");
        shell::read(fill.args(["--initialize", "--quiet", "--foreign-keys", "--scale", &scale.to_string()]))?;
        server.ask("CREATE EXTENSION amcheck")?;
        server.ask("CREATE TABLE told(teller int, number bigint, PRIMARY KEY (teller, number))")?;
        let tellers = TELLERS as usize;
        Ok(Clients {
            scratch: scratch.to_owned(),
            told: vec![0; tellers],
            unsure: vec![Vec::new(); tellers],
            transactions: 0,
            cycle: 0,
        })
    }

    /// Sets everybody to work.
    pub fn start(&self, server: &Server) -> anyhow::Result<Running> {
        let signals = Arc::new(Signals::default());
        let logs = self.logs();
        let _ = fs::remove_dir_all(&logs);
        fs::create_dir(&logs).context("make a folder for the logs of pgbench")?;
        let printed = fs::File::create(self.scratch.join("pgbench.out")).context("make a file")?;
        let mut pgbench = server.client("pgbench");
        pgbench.args(["--no-vacuum", "--log", "--random-seed=1", "--client", &PGBENCH_CLIENTS.to_string()]);
        pgbench.args(["--time", &PGBENCH_SECONDS.to_string()]).arg("--log-prefix").arg(logs.join("log"));
        let errors = printed.try_clone().context("use the file twice")?;
        let pgbench = pgbench.stdin(Stdio::null()).stdout(printed).stderr(errors).spawn();
        let mut running = Running {
            signals: Arc::clone(&signals),
            pgbench: pgbench.context("start pgbench")?,
            tellers: Vec::new(),
        };
        for (teller, sure) in self.told.iter().enumerate() {
            // Numbers that may be there are not used again.
            let sure = self.unsure[teller].last().map_or(*sure, |unsure| (*unsure).max(*sure));
            let mut psql = server.client("psql");
            psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "-v", "ON_ERROR_STOP=1"]);
            let mut psql = psql
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .context("start psql")?;
            let input = psql.stdin.take().context("psql has no input")?;
            let output = psql.stdout.take().context("psql has no output")?;
            let signals = Arc::clone(&signals);
            running.tellers.push(std::thread::spawn(move || {
                let told = tell(teller, sure, input, output, &signals);
                psql.wait().context("wait for psql")?;
                Ok(told)
            }));
        }
        Ok(running)
    }

    fn logs(&self) -> PathBuf {
        self.scratch.join("pgbench")
    }

    /// Takes in what everybody was told; the server has to be dead.
    pub fn finish(&mut self, mut running: Running) -> anyhow::Result<()> {
        running.pgbench.wait().context("wait for pgbench")?;
        ensure!(running.signals.crashing.load(Ordering::Acquire), "nothing crashed");
        self.cycle = running.signals.told.load(Ordering::Acquire);
        for (teller, thread) in std::mem::take(&mut running.tellers).into_iter().enumerate() {
            let Ok(told) = thread.join() else { bail!("teller {teller} panicked") };
            let Told { sure, unsure } = told?;
            self.told[teller] = self.told[teller].max(sure);
            self.unsure[teller].extend(unsure);
        }
        let mut transactions = 0;
        for entry in fs::read_dir(self.logs()).context("list the logs of pgbench")? {
            let text = fs::read_to_string(entry.context("read an entry")?.path())
                .context("read a log of pgbench")?;
            // client, transaction, microseconds, …: in place of the time of one that failed there is a word.
            transactions += text
                .lines()
                .filter(|line| line.split(' ').nth(2).is_some_and(|time| time.parse::<u64>().is_ok()))
                .count() as u64;
        }
        ensure!(transactions > 0, "void: pgbench was told of no commit in this cycle");
        self.transactions += transactions;
        self.cycle += transactions;
        Ok(())
    }

    /// Compares what was told with what is there; returns how many commits the last cycle was told of.
    pub fn check(&self, server: &Server) -> anyhow::Result<u64> {
        let answer = server.ask(SUMS)?;
        let sums =
            answer.split('|').map(str::parse).collect::<Result<Vec<i64>, _>>().context("read the sums")?;
        let [accounts, tellers, branches, deltas, history, rotten] = sums[..] else {
            bail!("the sums are {answer:?}")
        };
        ensure!(
            accounts == tellers && tellers == branches && branches == deltas,
            "the books do not balance: accounts {accounts}, tellers {tellers}, branches {branches}, history {deltas}"
        );
        ensure!(
            history as u64 >= self.transactions,
            "{} commits of pgbench were told, the history has {history}",
            self.transactions
        );
        ensure!(rotten == 0, "{rotten} pages have a wrong checksum");
        for (teller, sure) in self.told.iter().enumerate() {
            let unsure: Vec<String> =
                self.unsure[teller].iter().filter(|number| *number <= sure).map(u64::to_string).collect();
            let wanted = sure - unsure.len() as u64;
            let but = if unsure.is_empty() { "-1".to_owned() } else { unsure.join(",") };
            let there: u64 = server
                .ask(&format!(
                    "SELECT count(*) FROM told WHERE teller = {teller} AND number <= {sure} AND number NOT IN ({but})"
                ))?
                .parse()
                .context("read a count")?;
            ensure!(there == wanted, "teller {teller} was told of {wanted} commits, {there} are there");
        }
        let mut indexes = server.client("pg_amcheck");
        shell::read(indexes.args(["--heapallindexed", "--no-strict-names", "--database=postgres"]))?;
        Ok(self.cycle)
    }
}

/// Inserts numbers above `sure` until the server is gone.
fn tell(teller: usize, mut sure: u64, mut input: ChildStdin, output: ChildStdout, signals: &Signals) -> Told {
    let mut lines = BufReader::new(output).lines();
    loop {
        let number = sure + 1;
        let sent = writeln!(input, "INSERT INTO told VALUES({teller}, {number});\n\\echo {number}");
        // With ON_ERROR_STOP psql prints the number only if the server has said that it is committed.
        match lines.next() {
            Some(Ok(line)) if sent.is_ok() && line == number.to_string() => {
                sure = number;
                signals.told.fetch_add(1, Ordering::AcqRel);
            }
            _ => {
                if !signals.crashing.load(Ordering::Acquire) {
                    signals.failed.store(true, Ordering::Release);
                }
                return Told { sure, unsure: Some(number) };
            }
        }
    }
}

impl Running {
    /// Waits until tellers were told of `least` commits each, on average.
    pub fn wait(&self, least: u64, at_most: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            ensure!(!self.signals.failed.load(Ordering::Acquire), "a teller failed before the crash");
            let told = self.signals.told.load(Ordering::Acquire);
            if told >= least * TELLERS {
                return Ok(());
            }
            ensure!(began.elapsed() < at_most, "void: only {told} commits within {at_most:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The crash is next: from now on errors are its effect.
    pub fn begin(&self) {
        self.signals.crashing.store(true, Ordering::Release);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only after a failure; without its server it ends by itself.
        let _ = self.pgbench.kill();
        let _ = self.pgbench.wait();
    }
}
