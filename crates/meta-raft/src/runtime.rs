//! The runtime that Raft runs on: all tasks of one thread, in one of two orders.
//!
//! On the machine the tasks take turns and time is the machine's. In a simulation the next task is drawn by a seed and
//! time moves only when nothing can run, so one seed gives one trace, whatever the machine does. Both share every
//! line but the choice and the clock.
//!
//! Determinism rests on the set of ready tasks being *ordered*: the draw is from that set, never from the order of
//! wake-ups, because the channels wake their waiters in an order of their own.

mod adapter;
mod executor;

use std::time::Duration;

use openraft_rt::AsyncRuntime;

pub(crate) use adapter::Rt;
pub use executor::Executor;

/// Runs a future as a task of the executor that calls this, until it is done or the executor is dropped.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(<Rt as AsyncRuntime>::spawn(task));
}

/// Resolves after `span` in the time of the executor that calls this.
pub fn sleep(span: Duration) -> impl Future<Output = ()> + Send {
    <Rt as AsyncRuntime>::sleep(span)
}
