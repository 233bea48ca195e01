//! A future that is polled by its task, and by who helps.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

use crate::Help;

/// Polls in a row, after which it is the owner's turn: who waits for one thing is not kept by all that comes behind it.
const POLLS_MAX: usize = 32;

/// A future that goes on wherever it is awaited, and in the scope of a thread that wakes it.
///
/// Dropping it drops the future at once; a helper that is at it is waited for.
pub struct Helped<F: Future>(Arc<Shared<F>>);

struct Shared<F: Future> {
    turn: Mutex<Turn<F>>,
    /// Somebody has something for it that was not polled yet.
    woken: AtomicBool,
    /// Who awaits it.
    owner: Mutex<Option<Waker>>,
}

enum Turn<F: Future> {
    Pending(Pin<Box<F>>),
    Done(F::Output),
    /// It was taken or dropped.
    Over,
}

impl<F> Helped<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// Nothing is polled before this is.
    pub fn new(future: F) -> Helped<F> {
        Helped(Arc::new(Shared {
            turn: Mutex::new(Turn::Pending(Box::pin(future))),
            woken: AtomicBool::new(true),
            owner: Mutex::new(None),
        }))
    }
}

impl<F: Future> Shared<F> {
    /// # Panics
    /// If the future panicked: it must not be polled again, and its owner is to hear of it.
    fn turn(&self) -> Option<MutexGuard<'_, Turn<F>>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => panic!("the future panicked where somebody helped"),
        }
    }

    fn owner(&self) -> MutexGuard<'_, Option<Waker>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_owner(&self) {
        let owner = self.owner().clone();
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

impl<F> Shared<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// Polls until nothing is left that woke it, and lets `look` see how it stands then. `None` if somebody else is at
    /// it: who has the turn looks at what came once more after giving it back.
    fn run<T>(self: &Arc<Self>, look: impl Fn(&mut Turn<F>) -> T) -> Option<T> {
        let waker = Waker::from(Arc::clone(self));
        let mut polls = 0;
        loop {
            let mut turn = self.turn()?;
            while polls < POLLS_MAX && self.woken.swap(false, Ordering::SeqCst) {
                polls += 1;
                let Turn::Pending(future) = &mut *turn else { break };
                if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    *turn = Turn::Done(done);
                }
            }
            let seen = look(&mut turn);
            let is_over = matches!(*turn, Turn::Over);
            drop(turn);
            if is_over || !self.woken.load(Ordering::SeqCst) {
                return Some(seen);
            }
            if polls == POLLS_MAX {
                self.wake_owner();
                return Some(seen);
            }
        }
    }
}

/// Wakes the owner of a future that panics where somebody helped: it has to hear of it.
struct TellOfPanic<'a, F: Future>(&'a Shared<F>);

impl<F: Future> Drop for TellOfPanic<'_, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.wake_owner();
        }
    }
}

impl<F> Help for Shared<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn help(self: Arc<Self>) {
        let _tell = TellOfPanic(&self);
        if self.run(|turn| matches!(turn, Turn::Done(_))) == Some(true) {
            self.wake_owner();
        }
    }

    fn is_ready(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    fn wake_own(&self) {
        self.wake_owner();
    }
}

impl<F> Wake for Shared<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        let here = Arc::clone(self);
        if !crate::leave(here) {
            self.wake_owner();
        }
    }
}

impl<F> Future for Helped<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let shared = &self.0;
        // Before the look at what woke it: what comes from now on wakes this task.
        *shared.owner() = Some(cx.waker().clone());
        let done = shared.run(|turn| match std::mem::replace(turn, Turn::Over) {
            Turn::Done(done) => Some(done),
            other => {
                *turn = other;
                None
            }
        });
        // Somebody who is at it wakes this task when the future is done.
        done.flatten().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<F: Future> Drop for Helped<F> {
    fn drop(&mut self) {
        let mut turn = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let future = std::mem::replace(&mut *turn, Turn::Over);
        drop(turn);
        // Outside of the turn: dropping it may wake it.
        drop(future);
    }
}
