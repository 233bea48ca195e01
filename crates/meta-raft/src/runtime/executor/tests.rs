use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::{Clock, SimClock};
use openraft_rt::AsyncRuntime;
use tokio::sync::{mpsc, oneshot};
use types::Nanos;

use super::Executor;
use crate::runtime::Rt;

#[test]
fn openrafts_own_suite_for_runtimes_passes() {
    openraft_rt::testing::Suite::<Rt>::test_all();
}

#[test]
fn another_thread_wakes_a_sleeping_executor() {
    let (send, receive) = oneshot::channel();
    let (ready, started) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        Executor::new(1).run(async move {
            ready.send(()).unwrap();
            receive.await.unwrap()
        })
    });
    started.recv().unwrap();
    send.send(7).unwrap();
    assert_eq!(thread.join().unwrap(), 7);
}

/// Three tasks that race over one channel and over timers; the order in which they got through.
fn trace(seed: u64) -> (Vec<u64>, Duration) {
    let clock = SimClock::new(Nanos(0));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut executor = Executor::simulated(seed, clock.clone());
    executor.run(async {
        let (send, mut receive) = mpsc::channel(4);
        for task in 0..3 {
            let send = send.clone();
            Rt::spawn(async move {
                for round in 0..20 {
                    send.send(task * 100 + round).await.unwrap();
                    Rt::sleep(Duration::from_millis(round % 3)).await;
                }
            });
        }
        drop(send);
        while let Some(got) = receive.recv().await {
            order.lock().unwrap().push(got);
        }
    });
    let order = order.lock().unwrap().clone();
    (order, clock.elapsed())
}

#[test]
fn one_seed_gives_one_trace_and_seeds_differ() {
    let first = trace(1);
    assert_eq!(first.0.len(), 60);
    for _ in 0..5 {
        assert_eq!(trace(1), first);
    }
    assert!((2..10).any(|seed| trace(seed) != first));
}

#[test]
fn simulated_sleep_takes_no_real_time() {
    let clock = SimClock::new(Nanos(0));
    let began = std::time::Instant::now();
    Executor::simulated(3, clock.clone()).run(async { Rt::sleep(Duration::from_secs(3600)).await });
    assert!(clock.elapsed() >= Duration::from_secs(3600));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn dropping_the_executor_drops_every_task() {
    struct Counts(Arc<AtomicU64>);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicU64::new(0));
    let mut executor = Executor::new(4);
    executor.run(async {
        for _ in 0..3 {
            let counts = Counts(dropped.clone());
            Rt::spawn(async move {
                let _counts = counts;
                std::future::pending::<()>().await;
            });
        }
        Rt::sleep(Duration::from_millis(1)).await;
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    drop(executor);
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}

#[test]
#[should_panic(expected = "a task of ours panics")]
fn a_panicking_task_ends_the_run() {
    Executor::new(5).run(async {
        Rt::spawn(async { panic!("a task of ours panics") });
        std::future::pending::<()>().await;
    });
}
