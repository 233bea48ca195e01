//! Scrub as a task.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clock::Clock;
use extents::Placement;
use meta_client::MetaService;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Scrub, ScrubState, Scrubbed};

/// How often where it is goes to disk: so much is read again after a power cut.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// From a failure to the next try.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The longest pause, after which the time is looked at again.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// A running scrub.
pub struct Scrubbing {
    state: Arc<Mutex<ScrubState>>,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Scrubbing {
    /// Starts it as a task of the current tokio runtime, where the file at `path` says that it was. Each pass is paced so
    /// that it ends within `period`, and begins so that it ends a period after the one before.
    pub fn start(
        placement: Arc<dyn Placement>,
        service: Arc<dyn MetaService>,
        clock: Arc<dyn Clock>,
        path: PathBuf,
        period: Duration,
    ) -> Scrubbing {
        let loaded = ScrubState::load(&path);
        let state = Arc::new(Mutex::new(loaded.clone()));
        let (stop, stopped) = watch::channel(false);
        let scrub = Scrub::new(placement, service, loaded);
        let task = Task { scrub, clock, path, period, shown: Arc::clone(&state), stopped };
        Scrubbing { state, stop, running: tokio::spawn(task.run()) }
    }

    /// How far it is.
    pub fn state(&self) -> ScrubState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops it; where it was is on disk then.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.running.await {
            tracing::error!(%error, "the scrub ended badly");
        }
    }
}

struct Task {
    scrub: Scrub,
    clock: Arc<dyn Clock>,
    path: PathBuf,
    period: Duration,
    shown: Arc<Mutex<ScrubState>>,
    stopped: watch::Receiver<bool>,
}

impl Task {
    async fn run(mut self) {
        let mut saved = self.clock.elapsed();
        let mut failing = false;
        loop {
            let pause = match self.due_in() {
                Some(pause) => pause,
                None => match self.scrub.step(self.seconds()).await {
                    Ok(Scrubbed::Pass) => Duration::ZERO,
                    Ok(Scrubbed::Bytes(bytes)) => {
                        failing = false;
                        Duration::from_secs_f64(bytes as f64 / self.scrub.rate(self.period) as f64)
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(%error, "a scrub failed and is tried again");
                        }
                        AFTER_FAILURE
                    }
                },
            };
            *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = self.scrub.state().clone();
            if self.clock.elapsed().saturating_sub(saved) >= SAVE_EVERY {
                saved = self.clock.elapsed();
                self.save();
            }
            // A simulated clock does not wait, so others get their turn here.
            tokio::task::yield_now().await;
            let sleep = self.clock.sleep(pause.min(PAUSE_MAX));
            let stopped = tokio::select! {
                biased;
                // Both can be dropped at any point: a pause has no effect, and the channel keeps its value.
                _ = self.stopped.wait_for(|stop| *stop) => true,
                () = sleep => false,
            };
            if stopped {
                return self.save();
            }
        }
    }

    /// How long until the next pass begins; `None` while one is under way or due.
    fn due_in(&self) -> Option<Duration> {
        let state = self.scrub.state();
        let last = state.last_pass.filter(|_| state.is_between_passes())?;
        let takes = Duration::from_secs(self.scrub.stored() / self.scrub.rate(self.period));
        let due = Duration::from_secs(last) + self.period.saturating_sub(takes);
        due.checked_sub(Duration::from_secs(self.seconds())).filter(|left| !left.is_zero())
    }

    fn seconds(&self) -> u64 {
        // A clock before 1970 makes every pass due.
        u64::try_from(self.clock.now().0 / 1_000_000_000).unwrap_or(u64::MAX)
    }

    fn save(&self) {
        if let Err(error) = self.scrub.state().save(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "where the scrub is was not written down");
        }
    }
}
