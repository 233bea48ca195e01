//! What an executor shares with its wakers, its timers, and the threads that help it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::task::{Context, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use clock::{Clock, SimClock};
use helping::Help;

/// A future that the executor owns.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The id of the future that [`Executor::run`] was called with.
pub(super) const MAIN: u64 = 0;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// The machine's time since the first time that anybody asked.
pub(super) fn machine_time() -> Duration {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed()
}

/// Time since a fixed point: of the executor that runs on this thread, or the machine's.
pub(in crate::runtime) fn now() -> Duration {
    CURRENT.with_borrow(|current| current.as_ref().map_or_else(machine_time, |shared| shared.now()))
}

/// A random number from the executor of this thread.
pub(in crate::runtime) fn random() -> u64 {
    current().lock().draw()
}

/// Whether this thread's executor is a simulation.
pub(in crate::runtime) fn is_simulated() -> bool {
    current().simulated.is_some()
}

/// What the executor of this thread shares with its tasks' wakers.
pub(in crate::runtime) fn current() -> Arc<Shared> {
    CURRENT.with_borrow(|current| current.clone()).expect("only tasks of the executor call its runtime")
}

/// Polls of one help: a commit takes a few dozen. What is ready then is left to the loop.
const HELP_MAX: usize = 256;

/// Tasks by id, each with its waker.
pub(super) type Tasks = BTreeMap<u64, (Task, Waker)>;

/// What wakers, timers and helpers reach from any thread.
pub(in crate::runtime) struct Shared {
    pub(super) state: Mutex<State>,
    /// Held by the thread that polls. Taken before `state`.
    pub(super) tasks: Mutex<Tasks>,
    pub(super) simulated: Option<SimClock>,
}

pub(super) struct State {
    /// Tasks that asked to be polled, by id: ordered, see the module's page.
    pub(super) ready: BTreeSet<u64>,
    /// Tasks that were spawned since the loop last looked.
    pub(super) fresh: Vec<(u64, Task)>,
    pub(super) timers: BTreeMap<(Duration, u64), Waker>,
    /// Source of ids of tasks and timers.
    pub(super) next: u64,
    /// The task that was polled last.
    pub(super) last: u64,
    pub(super) random: u64,
    /// The loop's thread, while it sleeps, and until when if nobody wakes it.
    pub(super) asleep: Option<(Thread, Option<Duration>)>,
    pub(super) closed: bool,
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

    pub(super) fn next_timer(&self) -> Option<Duration> {
        self.timers.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Takes the task to poll next out of the ready ones.
    pub(super) fn choose(&mut self, simulated: bool) -> Option<u64> {
        if !simulated || self.ready.is_empty() {
            return self.take_turn(MAIN);
        }
        let nth = (self.draw() % self.ready.len() as u64) as usize;
        let id = *self.ready.iter().nth(nth)?;
        Some(self.take(id))
    }

    /// Takes the ready one whose turn it is of the tasks from this one on.
    fn take_turn(&mut self, first: u64) -> Option<u64> {
        let next = self.ready.range(first.max(self.last + 1)..).next();
        let id = *next.or_else(|| self.ready.range(first..).next())?;
        Some(self.take(id))
    }

    fn take(&mut self, id: u64) -> u64 {
        self.ready.remove(&id);
        self.last = id;
        id
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        // An hour's start, so that subtracting a timeout from "now" stays in range.
        self.simulated.as_ref().map_or_else(machine_time, |clock| clock.elapsed() + Duration::from_secs(3600))
    }

    pub(super) fn wake(self: &Arc<Self>, id: u64) {
        let mut state = self.lock();
        state.ready.insert(id);
        let sleeps = state.asleep.is_some();
        drop(state);
        if sleeps && !helping::leave(Arc::clone(self) as Arc<dyn Help>) {
            self.wake_own();
        }
    }

    /// The tasks, for who polls them; `None` if somebody does.
    ///
    /// # Panics
    /// If a task panicked on the thread that polled.
    fn turn(&self) -> Option<MutexGuard<'_, Tasks>> {
        match self.tasks.try_lock() {
            Ok(tasks) => Some(tasks),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => panic!("a task panicked where somebody helped"),
        }
    }

    /// Takes in what was spawned.
    pub(super) fn take_fresh(self: &Arc<Self>, tasks: &mut Tasks) {
        let fresh = std::mem::take(&mut self.lock().fresh);
        tasks.extend(fresh.into_iter().map(|(id, task)| (id, (task, self.waker(id)))));
    }

    pub(super) fn waker(self: &Arc<Self>, id: u64) -> Waker {
        Waker::from(Arc::new(TaskWaker { shared: Arc::clone(self), id }))
    }

    pub(in crate::runtime) fn spawn(&self, task: Task) {
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
    pub(in crate::runtime) fn set_timer(&self, deadline: Duration, id: u64, waker: &Waker) -> u64 {
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

    pub(in crate::runtime) fn drop_timer(&self, deadline: Duration, id: u64) {
        let waker = self.lock().timers.remove(&(deadline, id));
        drop(waker);
    }

    /// Wakes whose time has come, and says when the next one's comes.
    pub(super) fn fire(&self) -> Option<Duration> {
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

/// Polls a task, if it is not done: a late wake-up of one that is has no effect.
pub(super) fn poll(tasks: &mut Tasks, id: u64) {
    let Some((task, waker)) = tasks.get_mut(&id) else { return };
    if task.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
        tasks.remove(&id);
    }
}

impl Help for Shared {
    fn help(self: Arc<Self>) {
        let _owner = WakeOwner(&self);
        let Some(mut tasks) = self.turn() else { return };
        let _entered = Entered::new(&self);
        for _ in 0..HELP_MAX {
            self.fire();
            // Without the main future, which lives on the loop's own stack.
            let chosen = self.lock().take_turn(MAIN + 1);
            self.take_fresh(&mut tasks);
            let Some(id) = chosen else { return };
            poll(&mut tasks, id);
        }
    }

    fn is_ready(&self) -> bool {
        !self.lock().ready.is_empty()
    }

    fn wake_own(&self) {
        if let Some((thread, _)) = self.lock().asleep.take() {
            thread.unpark();
        }
    }
}

/// Wakes the loop when help ends with something left to do: by a panic too, of which it has to hear.
struct WakeOwner<'a>(&'a Shared);

impl Drop for WakeOwner<'_> {
    fn drop(&mut self) {
        let state = self.0.lock();
        let first = state.next_timer();
        let sooner = match (&state.asleep, first) {
            (Some((_, Some(until))), Some(first)) => first < *until,
            (Some((_, None)), first) => first.is_some(),
            _ => false,
        };
        let due = sooner || !state.ready.is_empty() || std::thread::panicking();
        drop(state);
        if due {
            self.0.wake_own();
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
pub(super) struct Entered(Option<Arc<Shared>>);

impl Entered {
    pub(super) fn new(shared: &Arc<Shared>) -> Entered {
        Entered(CURRENT.replace(Some(shared.clone())))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}
