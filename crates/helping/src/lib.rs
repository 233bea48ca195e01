//! Work that a thread waits for, done by the thread that waits.
//!
//! A short durable write passes through several tasks, each on a thread of its own: a disk's driver, a mount's sender,
//! the log of its partition. When all of them sleep, waking one after the other takes longer than the disk. So a
//! thread that has nothing to do until the write is durable may enter a [`Scope`]: what it wakes in there waits for it,
//! and it polls that itself ([`Scope::help`]), as long as nobody else is at it. What it has not done when the scope ends
//! is woken then, so a wake-up is never lost, and tasks go on by themselves wherever nobody helps.
//!
//! In a scope, and after [`wait_here`], short operations of real disks are done within the call that asks for them.

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

thread_local! {
    static WAITS_HERE: Cell<bool> = const { Cell::new(false) };
    /// What was woken in the scope of this thread.
    static OWED: RefCell<Option<Vec<Arc<dyn Help>>>> = const { RefCell::new(None) };
}

/// From now on the calling thread does short operations of real disks itself. For threads that serve nobody else: one
/// that drives a log, not one of a runtime.
pub fn wait_here() {
    WAITS_HERE.set(true);
}

/// Whether the calling thread does short operations of real disks itself.
pub fn waits_here() -> bool {
    WAITS_HERE.get() || OWED.with_borrow(Option::is_some)
}

/// Leaves what was woken to the scope of the calling thread. Without one it is to be woken otherwise: `false`.
pub fn leave(woken: Arc<dyn Help>) -> bool {
    OWED.with_borrow_mut(|owed| {
        let Some(owed) = owed else { return false };
        if !owed.iter().any(|other| Arc::ptr_eq(other, &woken)) {
            owed.push(woken);
        }
        true
    })
}

/// While it lives, the calling thread does what it wakes. Not across threads, and not one within another.
pub struct Scope(PhantomData<*const ()>);

impl Scope {
    /// Begins one.
    ///
    /// # Panics
    /// If the thread is in one.
    pub fn enter() -> Scope {
        let before = OWED.replace(Some(Vec::new()));
        assert!(before.is_none(), "a scope within another");
        Scope(PhantomData)
    }

    /// Does what was woken; `false` if there was nothing. Of several things one is done here and the others, which can
    /// go on beside it, are woken: two disks write at the same time.
    pub fn help(&self) -> bool {
        let mut owed = OWED.with_borrow_mut(|owed| owed.as_mut().map(std::mem::take)).unwrap_or_default();
        // What woke itself while it was polled was polled for that already.
        owed.retain(|woken| woken.is_ready());
        let Some(here) = owed.pop() else { return false };
        owed.iter().for_each(|other| other.wake_own());
        here.help();
        true
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let owed = OWED.take().unwrap_or_default();
        owed.iter().filter(|woken| woken.is_ready()).for_each(|woken| woken.wake_own());
    }
}

#[cfg(test)]
mod tests;
