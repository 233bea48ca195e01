//! The tasks of one thread, and the loop that polls them. A thread that waits for them may poll them in its stead.

mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use clock::SimClock;

use shared::{Entered, MAIN, State, machine_time, poll};
pub(super) use shared::{Shared, current, is_simulated, now, random};

/// A simulated run that takes longer than this, in its own time, is stuck: Raft's timers alone keep it going for ever.
const STUCK: Duration = Duration::from_secs(2 * 3600);

/// How much simulated time one poll takes.
const POLL: Duration = Duration::from_micros(1);

/// The tasks of one thread.
///
/// Dropping it drops every task at once, wherever each of them waits: in a simulation that is a crash. A task that
/// panics ends [`Executor::run`] with that panic.
pub struct Executor {
    shared: Arc<Shared>,
}

impl Executor {
    /// An executor in the machine's time, whose tasks take turns. `seed` is for what Raft randomizes.
    pub fn new(seed: u64) -> Executor {
        Executor::with(seed, None)
    }

    /// An executor whose choices follow from `seed` alone, in the time of `clock`, which it moves.
    pub fn simulated(seed: u64, clock: SimClock) -> Executor {
        Executor::with(seed, Some(clock))
    }

    fn with(seed: u64, simulated: Option<SimClock>) -> Executor {
        let state = State {
            ready: BTreeSet::new(),
            fresh: Vec::new(),
            timers: BTreeMap::new(),
            next: MAIN,
            last: MAIN,
            random: seed,
            asleep: None,
            closed: false,
        };
        Executor { shared: Arc::new(Shared { state: Mutex::new(state), tasks: Mutex::default(), simulated }) }
    }

    /// Polls `main` and all tasks until `main` is done. Tasks that are left go on in the next call.
    ///
    /// # Panics
    /// If a task panics; in a simulation also if it gets nowhere for two hours of its time.
    pub fn run<T>(&mut self, main: impl Future<Output = T>) -> T {
        let _entered = Entered::new(&self.shared);
        let began = self.shared.now();
        let mut main = pin!(main);
        let main_waker = self.shared.waker(MAIN);
        self.shared.wake(MAIN);
        let mut turn = None;
        loop {
            // Who helps lets go when nothing is ready any more.
            let tasks = turn.get_or_insert_with(|| {
                self.shared.tasks.lock().expect("a task panicked where somebody helped")
            });
            let next_timer = self.shared.fire();
            let chosen = self.shared.lock().choose(self.shared.simulated.is_some());
            self.shared.take_fresh(tasks);
            match chosen {
                None => {
                    turn = None;
                    self.wait(next_timer);
                    let stuck = self.shared.simulated.is_some() && self.shared.now() - began > STUCK;
                    assert!(!stuck, "a simulation that gets nowhere hangs");
                }
                Some(MAIN) => {
                    self.tick();
                    if let Poll::Ready(value) = main.as_mut().poll(&mut Context::from_waker(&main_waker)) {
                        return value;
                    }
                }
                Some(id) => {
                    self.tick();
                    poll(tasks, id);
                }
            }
        }
    }

    fn tick(&self) {
        if let Some(clock) = &self.shared.simulated {
            clock.advance(POLL);
        }
    }

    /// Waits until a task is ready or the next timer's time has come.
    fn wait(&self, next_timer: Option<Duration>) {
        if let Some(clock) = &self.shared.simulated {
            let deadline = next_timer.expect("a simulation in which nothing will ever happen hangs");
            clock.advance(deadline.saturating_sub(self.shared.now()));
            return;
        }
        let next_timer = {
            let mut state = self.shared.lock();
            if !state.ready.is_empty() {
                return;
            }
            // Looked up now: who helped meanwhile may have set one that comes sooner.
            let next_timer = state.next_timer();
            state.asleep = Some((std::thread::current(), next_timer));
            next_timer
        };
        match next_timer {
            Some(deadline) => std::thread::park_timeout(deadline.saturating_sub(machine_time())),
            None => std::thread::park(),
        }
        self.shared.lock().asleep = None;
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _entered = Entered::new(&self.shared);
        // Before: what a task is dropped with may wake others, or spawn.
        self.shared.lock().closed = true;
        let tasks = std::mem::take(&mut *self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        drop(tasks);
        loop {
            let (fresh, timers) = {
                let mut state = self.shared.lock();
                state.closed = true;
                (std::mem::take(&mut state.fresh), std::mem::take(&mut state.timers))
            };
            if fresh.is_empty() && timers.is_empty() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;
