use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
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

/// Tasks that answer, one at once and one after a time, run on a thread of their own.
fn answering() -> (std::thread::JoinHandle<()>, mpsc::UnboundedSender<(bool, oneshot::Sender<ThreadId>)>) {
    let (send, mut calls) = mpsc::unbounded_channel::<(bool, oneshot::Sender<ThreadId>)>();
    let thread = std::thread::spawn(move || {
        let (ended, end) = oneshot::channel::<()>();
        Executor::new(1).run(async move {
            crate::runtime::spawn(async move {
                while let Some((slow, told)) = calls.recv().await {
                    if slow {
                        Rt::sleep(Duration::from_millis(5)).await;
                    }
                    told.send(std::thread::current().id()).expect("somebody waits");
                }
                drop(ended);
            });
            end.await.expect_err("it is only dropped");
        });
    });
    (thread, send)
}

/// Calls, and helps as long as that is of use. Answers who answered.
fn call(send: &mpsc::UnboundedSender<(bool, oneshot::Sender<ThreadId>)>, slow: bool) -> ThreadId {
    let (told, mut heard) = oneshot::channel();
    let scope = helping::Scope::enter();
    send.send((slow, told)).expect("it runs");
    while heard.is_empty() && scope.help() {}
    drop(scope);
    heard.try_recv().unwrap_or_else(|_| heard.blocking_recv().expect("answered"))
}

#[test]
fn who_waits_polls_the_tasks_of_an_executor_that_sleeps() {
    let (thread, send) = answering();
    let here = std::thread::current().id();
    let helped = (0..1_000).filter(|_| call(&send, false) == here).count();
    assert!(helped > 0, "it never slept");
    drop(send);
    thread.join().expect("it ends when nobody can call any more");
}

#[test]
fn a_timer_that_was_set_by_who_helped_ends_the_sleep() {
    let (thread, send) = answering();
    for _ in 0..20 {
        assert_ne!(call(&send, true), std::thread::current().id());
    }
    drop(send);
    thread.join().expect("it ends when nobody can call any more");
}
