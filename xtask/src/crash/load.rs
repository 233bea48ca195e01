//! Runs writers on a mount until it crashes, and checks them afterwards.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::scatter::Scatter;
use super::writer::{Signals, Writer, make_noise};

/// How many write at once.
const WRITERS: u64 = 8;

/// The writers of one mount, over all its crashes.
pub struct Load {
    writers: Vec<Writer>,
    scatter: Scatter,
    seed: u64,
}

/// What was compared after a crash.
#[derive(Clone, Copy, Default, Debug)]
pub struct Checked {
    /// Bytes of files.
    pub bytes: u64,
    /// Names of files.
    pub names: u64,
}

impl Load {
    /// Writers with a folder each in `mount`.
    pub fn new(mount: &Path, seed: u64) -> anyhow::Result<Load> {
        let writers = (0..WRITERS)
            .map(|number| Writer::new(&mount.join(format!("w{number}")), seed ^ (number << 32)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Load { writers, scatter: Scatter::new(mount, seed)?, seed })
    }

    /// Lets the writers run while `crash` waits for its moment and does it: it has to call [`Running::begin`] right
    /// before. Returns what it returns and how many syncs were acknowledged.
    pub fn run<T>(
        &mut self,
        mount: &Path,
        crash: impl FnOnce(&Running<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, u64)> {
        let signals = Signals::default();
        self.seed = self.seed.wrapping_add(1);
        let seed = self.seed;
        let crashed = std::thread::scope(|scope| {
            let mut writers: Vec<ScopedJoinHandle<'_, anyhow::Result<()>>> =
                self.writers.iter_mut().map(|writer| scope.spawn(|| writer.run(&signals))).collect();
            writers.push(scope.spawn(|| self.scatter.run(&signals)));
            scope.spawn(|| make_noise(&mount.join("noise"), seed, &signals));
            let crashed = crash(&Running { signals: &signals, began: Instant::now() });
            // Whatever happened, the writers have to come to an end.
            signals.crashing.store(true, Ordering::Release);
            for writer in writers {
                match writer.join() {
                    Ok(result) => result.context("a writer failed before the crash")?,
                    Err(_) => bail!("a writer panicked"),
                }
            }
            crashed
        })?;
        Ok((crashed, signals.syncs.load(Ordering::Acquire)))
    }

    /// Compares everything that was noted with what the mount holds.
    pub fn check(&mut self) -> anyhow::Result<Checked> {
        let mut checked = Checked::default();
        self.scatter.check()?;
        for writer in &mut self.writers {
            writer.check()?;
            let (bytes, names) = writer.noted();
            checked.bytes += bytes;
            checked.names += names;
        }
        Ok(checked)
    }
}

/// The writers while they run, for the one who crashes them.
pub struct Running<'a> {
    signals: &'a Signals,
    began: Instant,
}

impl Running<'_> {
    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        self.signals.syncs.load(Ordering::Acquire)
    }

    /// Waits until `enough`, which is asked again and again; false if it is not within `at_most` since the start, or
    /// if a writer failed.
    pub fn wait(
        &self,
        at_most: Duration,
        mut enough: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        while !enough()? {
            if self.began.elapsed() > at_most || self.signals.failed.load(Ordering::Acquire) {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(true)
    }

    /// The crash is next: from now on errors are its effect.
    pub fn begin(&self) {
        self.signals.crashing.store(true, Ordering::Release);
    }
}
