//! What a service tells about itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the latency buckets, in microseconds; one more bucket holds the rest.
const BOUNDS: [u64; 16] =
    [50, 100, 150, 200, 300, 400, 600, 1000, 2000, 4000, 8000, 16_000, 64_000, 256_000, 1_000_000, 4_000_000];

/// How long commands took from call to reply, since the service was opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// Upper bound of each bucket and how many commands fell into it; not cumulative. The last bound is the largest
    /// duration there is.
    pub buckets: Vec<(Duration, u64)>,
    /// All of them together.
    pub sum: Duration,
}

#[derive(Default)]
pub(crate) struct LatencyCounts {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl LatencyCounts {
    pub(crate) fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Latency {
        let bounds = BOUNDS.iter().map(|bound| Duration::from_micros(*bound)).chain([Duration::MAX]);
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        Latency {
            buckets: bounds.zip(counts).collect(),
            sum: Duration::from_micros(self.micros.load(Ordering::Relaxed)),
        }
    }
}

/// Figures of a service at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Of its partition.
    pub partition: meta_raft::Figures,
    /// Of its commands.
    pub latency: Latency,
    /// Why it refuses changes, if it does.
    pub read_only: Option<String>,
}
