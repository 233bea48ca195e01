//! Sizes that crash tests shrink, so that a minute of writing purges logs and takes checkpoints many times.
//!
//! `HOLDFAST_TEST_TUNING="beat_commands=200,raft_log_bytes=16777216"`: read here and nowhere else, not for users.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clock::Clock;
use device::{Backend, OpenOptions};

/// The values, each `None` where the default holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tuning {
    /// Commands after which the row store is synced.
    pub beat_commands: Option<u64>,
    /// Milliseconds after which it is synced, if there were changes.
    pub beat_ms: Option<u64>,
    /// Size of the Raft log.
    pub raft_log_bytes: Option<u64>,
    /// Size of a disk's journal.
    pub journal_bytes: Option<u64>,
    /// Size of a log's segments, a power of two.
    pub segment_bytes: Option<u64>,
    /// Size of a mount's arena.
    pub arena_bytes: Option<u64>,
    /// 1: disks are driven by threads even where io_uring works.
    pub threads: Option<u64>,
}

impl Tuning {
    /// The tuning that the environment asks for.
    pub fn from_env() -> anyhow::Result<Tuning> {
        match std::env::var("HOLDFAST_TEST_TUNING") {
            Ok(text) => Tuning::parse(&text).context("read HOLDFAST_TEST_TUNING"),
            Err(_) => Ok(Tuning::default()),
        }
    }

    /// How the metadata service is run.
    pub fn metadata(&self, clock: Arc<dyn Clock>) -> anyhow::Result<metadata::Options> {
        let mut options =
            metadata::Options { clock, backend: self.device().backend, ..metadata::Options::default() };
        options.log_bytes = self.raft_log_bytes.unwrap_or(options.log_bytes);
        options.beat.commands = self.beat_commands.unwrap_or(options.beat.commands);
        options.beat.span = self.beat_ms.map_or(options.beat.span, Duration::from_millis);
        if let Some(bytes) = self.segment_bytes {
            options.segment_bytes = u32::try_from(bytes).context("segment_bytes is too large")?;
        }
        Ok(options)
    }

    /// How disks are driven.
    pub fn device(&self) -> OpenOptions {
        let backend = if self.threads == Some(1) { Backend::Threads } else { Backend::Auto };
        OpenOptions { backend, ..OpenOptions::default() }
    }

    fn parse(text: &str) -> anyhow::Result<Tuning> {
        let mut tuning = Tuning::default();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').context("each part is KEY=NUMBER")?;
            let value = value.parse().with_context(|| format!("the value of {key} is a number"))?;
            let field = match key {
                "beat_commands" => &mut tuning.beat_commands,
                "beat_ms" => &mut tuning.beat_ms,
                "raft_log_bytes" => &mut tuning.raft_log_bytes,
                "journal_bytes" => &mut tuning.journal_bytes,
                "segment_bytes" => &mut tuning.segment_bytes,
                "arena_bytes" => &mut tuning.arena_bytes,
                "threads" => &mut tuning.threads,
                _ => bail!("there is no {key}"),
            };
            *field = Some(value);
        }
        Ok(tuning)
    }
}

#[cfg(test)]
mod tests {
    use super::Tuning;

    #[test]
    fn pairs_are_read_and_others_refused() {
        let tuning = Tuning::parse("beat_commands=200,threads=1").expect("good");
        assert_eq!((tuning.beat_commands, tuning.threads, tuning.beat_ms), (Some(200), Some(1), None));
        for bad in ["x=1", "beat_ms", "beat_ms=fast"] {
            assert!(Tuning::parse(bad).is_err(), "{bad}");
        }
    }
}
