//! The tasks of one thread, and the loop that polls them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use clock::{Clock, SimClock};

/// A future that the executor owns.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The id of the future that [`Executor::run`] was called with.
const MAIN: u64 = 0;

/// A simulated run that takes longer than this, in its own time, is stuck: Raft's timers alone keep it going for ever.
const STUCK: Duration = Duration::from_secs(2 * 3600);

/// How much simulated time one poll takes.
const POLL: Duration = Duration::from_micros(1);

thread_local! {
    static CURRENT: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// The machine's time since the first time that anybody asked.
fn machine_time() -> Duration {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed()
}

/// Time since a fixed point: of the executor that runs on this thread, or the machine's.
pub(super) fn now() -> Duration {
    CURRENT.with_borrow(|current| current.as_ref().map_or_else(machine_time, |shared| shared.now()))
}

/// A random number from the executor of this thread.
pub(super) fn random() -> u64 {
    current().lock().draw()
}

/// Whether this thread's executor is a simulation.
pub(super) fn is_simulated() -> bool {
    current().simulated.is_some()
}

/// What the executor of this thread shares with its tasks' wakers.
pub(super) fn current() -> Arc<Shared> {
    CURRENT.with_borrow(|current| current.clone()).expect("only tasks of the executor call its runtime")
}

/// What wakers and timers reach from any thread.
pub(super) struct Shared {
    state: Mutex<State>,
    simulated: Option<SimClock>,
}

struct State {
    /// Tasks that asked to be polled, by id: ordered, see the module's page.
    ready: BTreeSet<u64>,
    /// Tasks that were spawned since the loop last looked.
    fresh: Vec<(u64, Task)>,
    timers: BTreeMap<(Duration, u64), Waker>,
    /// Source of ids of tasks and timers.
    next: u64,
    /// The task that was polled last.
    last: u64,
    random: u64,
    /// The loop's thread, while it sleeps.
    asleep: Option<Thread>,
    closed: bool,
}

impl State {
    /// splitmix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Takes the task to poll next out of the ready ones.
    fn choose(&mut self, simulated: bool) -> Option<u64> {
        let id = if self.ready.is_empty() {
            return None;
        } else if simulated {
            let nth = (self.draw() % self.ready.len() as u64) as usize;
            *self.ready.iter().nth(nth)?
        } else {
            *self.ready.range(self.last + 1..).next().or_else(|| self.ready.first())?
        };
        self.ready.remove(&id);
        self.last = id;
        Some(id)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        // An hour's start, so that subtracting a timeout from "now" stays in range.
        self.simulated.as_ref().map_or_else(machine_time, |clock| clock.elapsed() + Duration::from_secs(3600))
    }

    fn wake(&self, id: u64) {
        let mut state = self.lock();
        state.ready.insert(id);
        if let Some(thread) = state.asleep.take() {
            thread.unpark();
        }
    }

    pub(super) fn spawn(&self, task: Task) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return;
        }
        state.next += 1;
        let id = state.next;
        state.fresh.push((id, task));
        state.ready.insert(id);
    }

    /// Calls `waker` at `deadline`; `id` is a timer's from an earlier call, or 0.
    pub(super) fn set_timer(&self, deadline: Duration, id: u64, waker: &Waker) -> u64 {
        let mut state = self.lock();
        let id = if id == 0 {
            state.next += 1;
            state.next
        } else {
            id
        };
        let replaced = state.timers.insert((deadline, id), waker.clone());
        drop(state);
        drop(replaced);
        id
    }

    pub(super) fn drop_timer(&self, deadline: Duration, id: u64) {
        let waker = self.lock().timers.remove(&(deadline, id));
        drop(waker);
    }

    /// Wakes whose time has come, and says when the next one's comes.
    fn fire(&self) -> Option<Duration> {
        let now = self.now();
        loop {
            let mut state = self.lock();
            let first = state.timers.first_entry()?;
            let deadline = first.key().0;
            if deadline > now {
                return Some(deadline);
            }
            let waker = first.remove();
            drop(state);
            waker.wake();
        }
    }
}

/// Wakes one task of one executor.
struct TaskWaker {
    shared: Arc<Shared>,
    id: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.shared.wake(self.id);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.shared.wake(self.id);
    }
}

/// Marks this thread as the executor's while it lives.
struct Entered(Option<Arc<Shared>>);

impl Entered {
    fn new(shared: &Arc<Shared>) -> Entered {
        Entered(CURRENT.replace(Some(shared.clone())))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// The tasks of one thread.
///
/// Dropping it drops every task at once, wherever each of them waits: in a simulation that is a crash. A task that
/// panics ends [`Executor::run`] with that panic.
pub struct Executor {
    shared: Arc<Shared>,
    tasks: BTreeMap<u64, (Task, Waker)>,
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
        Executor { shared: Arc::new(Shared { state: Mutex::new(state), simulated }), tasks: BTreeMap::new() }
    }

    /// Polls `main` and all tasks until `main` is done. Tasks that are left go on in the next call.
    ///
    /// # Panics
    /// If a task panics; in a simulation also if it gets nowhere for two hours of its time.
    pub fn run<T>(&mut self, main: impl Future<Output = T>) -> T {
        let _entered = Entered::new(&self.shared);
        let began = self.shared.now();
        let mut main = pin!(main);
        let main_waker = self.waker(MAIN);
        self.shared.wake(MAIN);
        loop {
            let next_timer = self.shared.fire();
            let (chosen, fresh) = {
                let mut state = self.shared.lock();
                let chosen = state.choose(self.shared.simulated.is_some());
                (chosen, std::mem::take(&mut state.fresh))
            };
            for (id, task) in fresh {
                let waker = self.waker(id);
                self.tasks.insert(id, (task, waker));
            }
            match chosen {
                None => {
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
                    self.poll(id);
                }
            }
        }
    }

    fn waker(&self, id: u64) -> Waker {
        Waker::from(Arc::new(TaskWaker { shared: self.shared.clone(), id }))
    }

    fn tick(&self) {
        if let Some(clock) = &self.shared.simulated {
            clock.advance(POLL);
        }
    }

    /// Polls a task, if it is not done: a late wake-up of one that is has no effect.
    fn poll(&mut self, id: u64) {
        let Some((task, waker)) = self.tasks.get_mut(&id) else { return };
        if task.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
            self.tasks.remove(&id);
        }
    }

    /// Waits until a task is ready or the next timer's time has come.
    fn wait(&self, next_timer: Option<Duration>) {
        if let Some(clock) = &self.shared.simulated {
            let deadline = next_timer.expect("a simulation in which nothing will ever happen hangs");
            clock.advance(deadline.saturating_sub(self.shared.now()));
            return;
        }
        {
            let mut state = self.shared.lock();
            if !state.ready.is_empty() {
                return;
            }
            state.asleep = Some(std::thread::current());
        }
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
        self.tasks.clear();
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
