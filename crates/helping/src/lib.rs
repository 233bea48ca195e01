//! Work that a thread waits for, done by the thread that waits.
//!
//! A short durable write passes through several tasks, each on a thread of its own: a disk's driver, a mount's sender,
//! the log of its partition. When all of them sleep, waking one after the other takes longer than the disk. So a
//! thread that has nothing to do until the write is durable may enter a [`Scope`]: what it wakes in there waits for it,
//! and it polls that itself ([`Scope::help`]), as long as nobody else is at it. What it has not done when the scope ends
//! is woken then, so a wake-up is never lost, and tasks go on by themselves wherever nobody helps.
//!
//! After [`wait_here`] short operations of real disks are done within the call that asks for them. In a scope a flush is
//! too, and a short write by who awaits it first.

mod helped;

pub use helped::Helped;

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;

/// A task, or tasks, that more than one thread can poll, one at a time.
pub trait Help: Send + Sync {
    /// Polls what is ready, unless somebody is at it: then that one does. What is ready all the time is left to its
    /// owner after a while.
    fn help(self: Arc<Self>);

    /// Whether something is ready.
    fn is_ready(&self) -> bool;

    /// Wakes the thread or task that it belongs to.
    fn wake_own(&self);
}

/// What the scope of a thread knows.
struct Open {
    /// What was woken in it.
    owed: Vec<Arc<dyn Help>>,
    /// What the thread is polling: what that wakes of itself it sees by itself.
    here: Option<Arc<dyn Help>>,
}

thread_local! {
    static WAITS_HERE: Cell<bool> = const { Cell::new(false) };
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
}

/// What `look` finds in the scope of the calling thread; `None` without one.
fn open<T>(look: impl FnOnce(&mut Open) -> T) -> Option<T> {
    // A thread that is ending, which may wake something all the same, is in none.
    OPEN.try_with(|open| open.borrow_mut().as_mut().map(look)).ok().flatten()
}

/// From now on the calling thread does short operations of real disks itself. For threads that serve nobody else: one
/// that drives a log, not one of a runtime.
pub fn wait_here() {
    WAITS_HERE.set(true);
}

/// Whether the calling thread does short operations of real disks itself.
pub fn waits_here() -> bool {
    WAITS_HERE.get() || in_scope()
}

/// Whether the calling thread is in a scope.
pub fn in_scope() -> bool {
    open(|_| ()).is_some()
}

/// Before the calling thread does what may take long: what waits for it in its scope is woken, because nobody else wakes
/// it any more.
pub fn before_waiting() {
    let owed = open(|open| std::mem::take(&mut open.owed)).unwrap_or_default();
    wake(&owed);
}

fn wake(owed: &[Arc<dyn Help>]) {
    owed.iter().filter(|woken| woken.is_ready()).for_each(|woken| woken.wake_own());
}

/// Leaves what was woken to the scope of the calling thread. Without one it is to be woken otherwise: `false`.
pub fn leave(woken: Arc<dyn Help>) -> bool {
    let left = open(|open| {
        if !open.owed.iter().chain(&open.here).any(|other| Arc::ptr_eq(other, &woken)) {
            open.owed.push(woken);
        }
    });
    left.is_some()
}

/// While it lives, the calling thread does what it wakes. Not across threads, and not one within another.
pub struct Scope(PhantomData<*const ()>);

impl Scope {
    /// Begins one.
    ///
    /// # Panics
    /// If the thread is in one.
    pub fn enter() -> Scope {
        let before = OPEN.replace(Some(Open { owed: Vec::new(), here: None }));
        assert!(before.is_none(), "a scope within another");
        Scope(PhantomData)
    }

    /// Does what was woken; `false` if there was nothing. Of several things one is done here and the others, which can
    /// go on beside it, are woken: two disks write at the same time.
    pub fn help(&self) -> bool {
        let mut owed = open(|open| std::mem::take(&mut open.owed)).unwrap_or_default();
        owed.retain(|woken| woken.is_ready());
        let Some(here) = owed.pop() else { return false };
        wake(&owed);
        open(|open| open.here = Some(Arc::clone(&here)));
        let _done = Done;
        here.help();
        true
    }
}

/// Ends what the thread polls, by a panic too.
struct Done;

impl Drop for Done {
    fn drop(&mut self) {
        // Dropped outside of the look: it may wake something.
        let here = open(|open| open.here.take());
        drop(here);
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let owed = OPEN.take().map(|open| open.owed).unwrap_or_default();
        wake(&owed);
    }
}

#[cfg(test)]
mod tests;
