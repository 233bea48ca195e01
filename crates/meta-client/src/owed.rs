//! Work that goes on although nobody waits for it any more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// A future that is finished by a task of the current tokio runtime if it is dropped too early. Without a runtime, or
/// while one shuts down, it is dropped.
pub(crate) struct Owed<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Owed<T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static) -> Owed<T> {
        Owed(Some(Box::pin(work)))
    }
}

impl<T: Send + 'static> Future for Owed<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let work = self.0.as_mut().expect("polled after its end");
        let done = work.as_mut().poll(cx);
        if done.is_ready() {
            self.0 = None;
        }
        done
    }
}

impl<T: Send + 'static> Drop for Owed<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move { drop(work.await) });
        }
    }
}
