//! The executor as openraft asks for one.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant, OptionalSend};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot, TokioWatch};
use tokio::sync::oneshot;

use super::executor::{self, Executor, Shared};

/// The runtime of the thread that calls it.
pub struct Rt {
    executor: Executor,
}

impl fmt::Debug for Rt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rt")
    }
}

/// A moment, as the time since a fixed one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stamp(Duration);

impl Add<Duration> for Stamp {
    type Output = Stamp;
    fn add(self, span: Duration) -> Stamp {
        Stamp(self.0.saturating_add(span))
    }
}

impl AddAssign<Duration> for Stamp {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub<Duration> for Stamp {
    type Output = Stamp;
    fn sub(self, span: Duration) -> Stamp {
        Stamp(self.0.saturating_sub(span))
    }
}

impl SubAssign<Duration> for Stamp {
    fn sub_assign(&mut self, span: Duration) {
        *self = *self - span;
    }
}

impl Sub for Stamp {
    type Output = Duration;
    fn sub(self, earlier: Stamp) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Instant for Stamp {
    fn now() -> Stamp {
        Stamp(executor::now())
    }
}

/// A task was dropped before it was done: its executor ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the task ended with its executor")]
pub struct TaskLost;

/// The result of a task, later. Dropping it leaves the task alone.
pub struct Joined<T>(oneshot::Receiver<T>);

impl<T> Future for Joined<T> {
    type Output = Result<T, TaskLost>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| TaskLost)
    }
}

/// Resolves at its deadline.
pub struct Sleep {
    deadline: Duration,
    timer: Option<(Arc<Shared>, u64)>,
}

impl Sleep {
    fn until(deadline: Duration) -> Sleep {
        Sleep { deadline, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if executor::now() >= self.deadline {
            return Poll::Ready(());
        }
        let (shared, id) = self.timer.take().unwrap_or_else(|| (executor::current(), 0));
        let id = shared.set_timer(self.deadline, id, cx.waker());
        self.timer = Some((shared, id));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((shared, id)) = &self.timer {
            shared.drop_timer(self.deadline, *id);
        }
    }
}

/// The time was over first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("time is over")]
pub struct TimeOver;

/// A future with a deadline.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, TimeOver>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut self.sleep).poll(cx).map(|()| Err(TimeOver))
    }
}

/// Random numbers of the executor.
pub struct Draws;

impl rand_core::TryRng for Draws {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(executor::random() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(executor::random())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&executor::random().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

impl AsyncRuntime for Rt {
    type JoinError = TaskLost;
    type JoinHandle<T: OptionalSend + 'static> = Joined<T>;
    type Sleep = Sleep;
    type Instant = Stamp;
    type TimeoutError = TimeOver;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Draws;
    type Mpsc = TokioMpsc;
    type Watch = TokioWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Joined<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (done, joined) = oneshot::channel();
        executor::current().spawn(Box::pin(async move {
            // Nobody may be interested in the result.
            let _ = done.send(future.await);
        }));
        Joined(joined)
    }

    fn sleep(span: Duration) -> Sleep {
        Sleep::until(executor::now().saturating_add(span))
    }

    fn sleep_until(deadline: Stamp) -> Sleep {
        Sleep::until(deadline.0)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(span: Duration, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep(span) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Stamp, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep_until(deadline) }
    }

    fn is_panic(_: &TaskLost) -> bool {
        // A panic ends the whole executor, so nobody is left to ask.
        false
    }

    fn thread_rng() -> Draws {
        Draws
    }

    fn new(_threads: usize) -> Rt {
        Rt { executor: Executor::new(0) }
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.executor.run(future)
    }

    /// On a thread of its own; in a simulation at once, on this one.
    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (done, joined) = oneshot::channel();
        let started = if executor::is_simulated() {
            let _ = done.send(work());
            Ok(())
        } else {
            std::thread::Builder::new()
                .name("meta-rows".into())
                .spawn(move || {
                    let _ = done.send(work());
                })
                .map(drop)
        };
        async move {
            started?;
            joined.await.map_err(|_| io::Error::other("the work ended with a panic"))
        }
    }
}
