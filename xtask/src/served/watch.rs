//! What a started `up` says of itself, and waiting until it says what it should.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Served;

/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(50);

/// What was deleted is free again by then.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// A number of the status.
pub fn number(status: &Value, pointer: &str) -> anyhow::Result<u64> {
    status.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("status has no {pointer}"))
}

impl Served {
    /// Waits until the status is as it should be, and answers it; `what` says what it should be.
    pub fn status_until(
        &self,
        within: Duration,
        what: &str,
        is: impl Fn(&Value) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Value> {
        let began = Instant::now();
        loop {
            let status = self.status()?;
            if is(&status)? {
                return Ok(status);
            }
            ensure!(began.elapsed() < within, "never {what} within {within:?}: {status}");
            std::thread::sleep(LOOK);
        }
    }

    /// Bytes that are free: what statfs(2) says, and no more than the first disk has.
    pub fn free(&self) -> anyhow::Result<u64> {
        let stat = rustix::fs::statvfs(self.mount()).context("ask how much is free")?;
        let disk = number(&self.status()?, "/disks/0/free_bytes")?;
        Ok((stat.f_bavail * stat.f_frsize).min(disk))
    }

    /// Waits until all but 1 % of `before` is free again; answers how long that took.
    pub fn wait_for_space(&self, before: u64) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let now = self.free()?;
            if now >= before / 100 * 99 {
                return Ok(began.elapsed());
            }
            ensure!(
                began.elapsed() < BACK_WITHIN,
                "of {before} bytes only {now} are free after {BACK_WITHIN:?}"
            );
            std::thread::sleep(LOOK);
        }
    }
}
