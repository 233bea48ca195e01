//! Time as a dependency: the machine's, or a simulation's.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use types::Nanos;

/// Where a component takes its time from.
pub trait Clock: Send + Sync + 'static {
    /// The time of day. It may be set, so it can run back.
    fn now(&self) -> Nanos;

    /// Time since some fixed point; never runs back.
    fn elapsed(&self) -> Duration;

    /// Resolves when `span` has passed. Dropping it has no effect.
    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The machine's own clocks. [`Clock::sleep`] needs a tokio runtime with its timer.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose [`Clock::elapsed`] starts now.
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Nanos {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Nanos::from_parts(since.as_secs() as i64, since.subsec_nanos()),
            Err(before) => Nanos(-(before.duration().as_nanos() as i64)),
        }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(span))
    }
}

/// A clock that stands still until it is moved; [`Clock::sleep`] resolves at once and moves it.
#[derive(Clone, Debug)]
pub struct SimClock {
    nanos: Arc<AtomicI64>,
    start: i64,
}

impl SimClock {
    /// A clock that shows `now`.
    pub fn new(now: Nanos) -> SimClock {
        SimClock { nanos: Arc::new(AtomicI64::new(now.0)), start: now.0 }
    }

    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        self.nanos.fetch_add(span.as_nanos() as i64, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Nanos {
        Nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos((self.nanos.load(Ordering::Relaxed) - self.start).max(0) as u64)
    }

    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.advance(span);
        Box::pin(std::future::ready(()))
    }
}
