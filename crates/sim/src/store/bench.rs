//! What a simulated store stands on: a seed, a disk that takes its time, a clock, and an executor that draws whom to
//! poll. All of it is a function of the seed.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use clock::Clock;
use device::{BlockDev, Durability, Geometry, IoBuf, IoClass, IoFuture, IoVec, SimDisk};
use types::{ByteOffset, Nanos};

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[derive(Clone)]
struct Delays(Arc<Mutex<Rng>>);

impl Delays {
    fn draw(&self, limit: u64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).below(limit)
    }
}

/// Ready when it was polled often enough and what is inside is.
struct Delayed<F: Future + Unpin> {
    polls: u64,
    inner: Option<F>,
}

impl<F: Future + Unpin> Future for Delayed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.polls > 0 {
            self.polls -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let inner = self.inner.as_mut().expect("polled after it was ready");
        let done = Pin::new(inner).poll(cx);
        if done.is_ready() {
            self.inner = None;
        }
        done
    }
}

impl<F: Future + Unpin> Drop for Delayed<F> {
    /// What is in flight when its process is killed still ends before another one opens the disk: the kernel waits.
    fn drop(&mut self) {
        if let Some(inner) = &mut self.inner {
            let _ = Pin::new(inner).poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

/// A simulated disk whose answers come later, and that may show less than it has.
pub(crate) struct SlowDisk {
    inner: SimDisk,
    bytes: u64,
    delays: Delays,
}

impl SlowDisk {
    pub(crate) fn new(inner: SimDisk, bytes: u64, seed: u64) -> SlowDisk {
        SlowDisk { inner, bytes, delays: Delays(Arc::new(Mutex::new(Rng::new(seed)))) }
    }

    fn slow<T: 'static>(&self, inner: IoFuture<T>) -> IoFuture<T> {
        Box::pin(Delayed { polls: self.delays.draw(6), inner: Some(inner) })
    }
}

impl BlockDev for SlowDisk {
    fn geometry(&self) -> Geometry {
        Geometry { bytes: self.bytes, ..self.inner.geometry() }
    }

    fn read(&self, at: ByteOffset, buf: IoBuf, class: IoClass) -> IoFuture<IoBuf> {
        self.slow(self.inner.read(at, buf, class))
    }

    fn write(&self, at: ByteOffset, bufs: IoVec, sync: Durability, class: IoClass) -> IoFuture<IoVec> {
        self.slow(self.inner.write(at, bufs, sync, class))
    }

    fn flush(&self) -> IoFuture<()> {
        self.slow(self.inner.flush())
    }
}

/// A clock that stands still, and whose sleepers wake after some polls.
pub(crate) struct SlowClock(Delays);

impl SlowClock {
    pub(crate) fn new(seed: u64) -> SlowClock {
        SlowClock(Delays(Arc::new(Mutex::new(Rng::new(seed)))))
    }
}

impl Clock for SlowClock {
    fn now(&self) -> Nanos {
        Nanos(0)
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Delayed { polls: self.0.draw(60), inner: Some(std::future::ready(())) })
    }
}

/// What the executor polls.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Polls `tasks` and `background` in an order that `rng` draws until all tasks are done; `false` if that took more
/// than `polls_max` polls. Nobody is woken: everybody is polled again.
pub(crate) fn run(
    rng: &mut Rng,
    mut tasks: Vec<Task>,
    background: &mut Option<Task>,
    polls_max: u64,
) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..polls_max {
        if tasks.is_empty() {
            return true;
        }
        let drawn = rng.below(tasks.len() as u64 + 1) as usize;
        if let Some(task) = tasks.get_mut(drawn) {
            if task.as_mut().poll(&mut cx).is_ready() {
                drop(tasks.swap_remove(drawn));
            }
        } else if let Some(task) = background
            && task.as_mut().poll(&mut cx).is_ready()
        {
            *background = None;
        }
    }
    tasks.is_empty()
}

/// Polls one future until it is done; it must not wait for another one.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..10_000_000 {
        if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            return done;
        }
    }
    panic!("a future waits for something that never comes");
}
