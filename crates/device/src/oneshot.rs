//! One result handed from a disk's thread to whoever awaits it, under any executor.

use crate::{IoError, IoFuture};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

enum Slot<T> {
    Empty,
    Waiting(Waker),
    Full(Result<T, IoError>),
    Taken,
}

struct Shared<T>(Mutex<Slot<T>>);

impl<T> Shared<T> {
    fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        // Nothing under this lock panics, so a poisoned one still holds a whole slot.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that answers. Dropped without an answer it answers [`IoError::Gone`].
pub(crate) struct Promise<T>(Arc<Shared<T>>);

struct Answer<T>(Arc<Shared<T>>);

/// A promise and the future that it resolves.
pub(crate) fn promise<T: Send + 'static>() -> (Promise<T>, IoFuture<T>) {
    let shared = Arc::new(Shared(Mutex::new(Slot::Empty)));
    (Promise(Arc::clone(&shared)), Box::pin(Answer(shared)))
}

/// A future that is ready.
pub(crate) fn ready<T: Send + 'static>(result: Result<T, IoError>) -> IoFuture<T> {
    Box::pin(std::future::ready(result))
}

impl<T> Promise<T> {
    /// Answers, and wakes who waits.
    pub(crate) fn answer(self, result: Result<T, IoError>) {
        self.fill(result);
    }

    fn fill(&self, result: Result<T, IoError>) {
        let before = {
            let mut slot = self.0.slot();
            match *slot {
                Slot::Empty | Slot::Waiting(_) => std::mem::replace(&mut *slot, Slot::Full(result)),
                Slot::Full(_) | Slot::Taken => return,
            }
        };
        // Outside the lock: waking may run or drop the task, which may poll or drop the future.
        if let Slot::Waiting(waker) = before {
            waker.wake();
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.fill(Err(IoError::Gone));
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, IoError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.slot();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Full(result) => Poll::Ready(result),
            Slot::Empty | Slot::Waiting(_) => {
                *slot = Slot::Waiting(cx.waker().clone());
                Poll::Pending
            }
            Slot::Taken => panic!("a disk's future was polled after it was ready"),
        }
    }
}
