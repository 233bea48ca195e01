//! The loops, and their pace.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use extents::{BadCopy, Placement};
use meta_client::MetaService;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::figures::{Figures, add};
use crate::fill::{Fill, FillStep};
use crate::keeper::Keeper;
use crate::reclaim::Reclaim;
use crate::repair::{Repair, Repaired};
use crate::sweep::Sweep;

/// How often the loops look, and how much room they leave to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// From one look for dead extents to the next, when there were none.
    pub reclaim_every: Duration,
    /// From the end of one sweep over all fragments to the start of the next.
    pub sweep_every: Duration,
    /// From one look for failed disks, or for slots to fill, to the next.
    pub watch_every: Duration,
    /// From one step of a loop to the next.
    pub between_steps: Duration,
    /// From a failure to the next try.
    pub after_failure: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            reclaim_every: Duration::from_secs(1),
            sweep_every: Duration::from_secs(600),
            watch_every: Duration::from_secs(1),
            between_steps: Duration::from_millis(10),
            after_failure: Duration::from_secs(5),
        }
    }
}

/// The running loops of an agent. Dropping it stops them at their next pause.
pub struct Background {
    figures: Arc<Figures>,
    stop: watch::Sender<bool>,
    loops: Vec<JoinHandle<()>>,
}

impl Background {
    /// Starts the loops as tasks of the current tokio runtime. The first sweep begins at once: what an earlier run left
    /// behind is found early.
    pub fn start(
        keeper: Arc<Keeper>,
        bad_copies: mpsc::Receiver<BadCopy>,
        service: Arc<dyn MetaService>,
        clock: Arc<dyn Clock>,
        pace: Pace,
    ) -> Background {
        let figures = Arc::new(Figures::default());
        let (stop, stopped) = watch::channel(false);
        let loops = Loops { clock, pace, figures: Arc::clone(&figures), stopped };
        let placement = || Arc::clone(&keeper) as Arc<dyn Placement>;
        let reclaim = Reclaim::new(placement(), Arc::clone(&service), Arc::clone(&figures));
        let sweep = Sweep::new(placement(), Arc::clone(&service), Arc::clone(&figures));
        let fill = Fill::new(Arc::clone(&keeper), Arc::clone(&service), Arc::clone(&figures));
        let repair = Repair::new(Arc::clone(&keeper), service, Arc::clone(&figures));
        let loops = vec![
            tokio::spawn(loops.clone().reclaim(reclaim)),
            tokio::spawn(loops.clone().sweep(sweep)),
            tokio::spawn(loops.clone().watch(Arc::clone(&keeper))),
            tokio::spawn(loops.clone().fill(fill, keeper)),
            tokio::spawn(loops.repair(repair, bad_copies)),
        ];
        Background { figures, stop, loops }
    }

    /// What was done so far.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Stops the loops and waits until no operation of theirs is in flight.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        for running in self.loops.drain(..) {
            if let Err(error) = running.await {
                tracing::error!(%error, "a background loop ended badly");
            }
        }
    }
}

#[derive(Clone)]
struct Loops {
    clock: Arc<dyn Clock>,
    pace: Pace,
    figures: Arc<Figures>,
    stopped: watch::Receiver<bool>,
}

impl Loops {
    async fn reclaim(mut self, reclaim: Reclaim) {
        let Pace { reclaim_every, between_steps, .. } = self.pace;
        let mut trouble = None;
        loop {
            let outcome =
                reclaim.step().await.map(|freed| if freed > 0 { between_steps } else { reclaim_every });
            let pause = self.judge("freeing dead extents", outcome, &mut trouble);
            if self.pause(pause).await {
                return;
            }
        }
    }

    async fn sweep(mut self, mut sweep: Sweep) {
        let Pace { sweep_every, between_steps, .. } = self.pace;
        let mut trouble = None;
        loop {
            let outcome = sweep.step().await.map(|over| if over { sweep_every } else { between_steps });
            let pause = self.judge("sweeping fragments", outcome, &mut trouble);
            if self.pause(pause).await {
                return;
            }
        }
    }

    /// Disks that fail while nobody writes to them are noticed too.
    async fn watch(mut self, keeper: Arc<Keeper>) {
        let mut trouble = None;
        loop {
            let outcome = keeper.look().await.map(|()| self.pace.watch_every);
            let pause = self.judge("looking after disks", outcome, &mut trouble);
            if self.pause(pause).await {
                return;
            }
        }
    }

    async fn fill(mut self, mut fill: Fill, keeper: Arc<Keeper>) {
        let mut trouble = None;
        loop {
            let (began, served) = (self.clock.elapsed(), keeper.served());
            let outcome = fill.step().await.map(|step| match step {
                FillStep::Nothing => self.pace.watch_every,
                // While others are served, half of the time is theirs.
                FillStep::More if keeper.served() != served => self.clock.elapsed().saturating_sub(began),
                FillStep::More | FillStep::Filled => Duration::ZERO,
            });
            let pause = self.judge("filling disks", outcome, &mut trouble);
            if self.pause(pause).await {
                return;
            }
        }
    }

    async fn repair(mut self, repair: Repair, mut bad_copies: mpsc::Receiver<BadCopy>) {
        let mut trouble = None;
        loop {
            // Both can be dropped at any point: the channels keep what they have.
            let heard = tokio::select! {
                biased;
                _ = self.stopped.wait_for(|stop| *stop) => return,
                heard = bad_copies.recv() => heard,
            };
            let Some(bad) = heard else { return };
            let outcome = repair.mend(bad).await;
            // A copy that is met twice before it is replaced counts once.
            if outcome != Ok(Repaired::NotNeeded) {
                add(&self.figures.bad_copies, 1);
            }
            self.judge("replacing a bad copy", outcome.map(|_| Duration::ZERO), &mut trouble);
        }
    }

    /// How long to pause after a step. A failure is told once, until it changes or ends.
    fn judge<E: Error>(
        &self,
        work: &'static str,
        outcome: Result<Duration, E>,
        trouble: &mut Option<String>,
    ) -> Duration {
        match outcome {
            Ok(pause) => {
                *trouble = None;
                pause
            }
            Err(error) => {
                add(&self.figures.failures, 1);
                let text = match error.source() {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                };
                if trouble.as_ref() != Some(&text) {
                    tracing::warn!(error = %text, "{work} failed and is tried again");
                    *trouble = Some(text);
                }
                self.pace.after_failure
            }
        }
    }

    /// Pauses; `true` when it is time to stop.
    async fn pause(&mut self, pause: Duration) -> bool {
        // A simulated clock does not wait, so others get their turn here.
        tokio::task::yield_now().await;
        let sleep = self.clock.sleep(pause);
        tokio::select! {
            biased;
            // Both can be dropped at any point: a pause has no effect, and the channel keeps its value.
            // Told so, or the agent is gone.
            _ = self.stopped.wait_for(|stop| *stop) => true,
            () = sleep => false,
        }
    }
}
