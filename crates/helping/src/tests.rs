use std::future::{Future, pending};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};

use tokio::sync::{mpsc, oneshot};

use crate::{Helped, Scope, before_waiting, leave, waits_here};

/// Counts how often the owner of a future was woken.
#[derive(Default)]
struct Owner(AtomicUsize);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Owner {
    fn woken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn poll<F: Future + Unpin>(self: &Arc<Self>, future: &mut F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

type Note = (u64, oneshot::Sender<ThreadId>);

/// Answers who polled it.
async fn answer(mut queue: mpsc::UnboundedReceiver<Note>) -> u64 {
    let mut sum = 0;
    while let Some((number, told)) = queue.recv().await {
        sum += number;
        told.send(thread::current().id()).expect("somebody waits");
    }
    sum
}

#[test]
fn what_is_woken_in_a_scope_is_done_there_and_its_owner_sleeps_on() {
    let (send, queue) = mpsc::unbounded_channel();
    let (owner, mut task) = (Arc::new(Owner::default()), Helped::new(answer(queue)));
    assert!(owner.poll(&mut task).is_pending());
    {
        let scope = Scope::enter();
        assert!(waits_here() && !scope.help(), "nothing is to be done yet");
        let (told, mut heard) = oneshot::channel();
        send.send((5, told)).expect("it is there");
        assert!(scope.help() && !scope.help());
        assert_eq!(heard.try_recv().expect("answered"), thread::current().id());
    }
    assert_eq!(owner.woken(), 0);
    assert!(!waits_here());
    let scope = Scope::enter();
    drop(send);
    assert!(scope.help());
    assert_eq!(owner.woken(), 1, "it is done, which is for its owner to know");
    assert_eq!(owner.poll(&mut task), Poll::Ready(5));
}

#[test]
fn what_is_not_done_in_a_scope_is_woken_at_its_end() {
    let (send, queue) = mpsc::unbounded_channel();
    let (owner, mut task) = (Arc::new(Owner::default()), Helped::new(answer(queue)));
    assert!(owner.poll(&mut task).is_pending());
    let (told, mut heard) = oneshot::channel();
    let scope = Scope::enter();
    send.send((1, told)).expect("it is there");
    assert_eq!(owner.woken(), 0);
    drop(scope);
    assert_eq!(owner.woken(), 1);
    assert!(owner.poll(&mut task).is_pending() && heard.try_recv().is_ok());
}

#[test]
fn of_two_that_are_woken_one_goes_on_elsewhere() {
    let mut tasks = [0, 1].map(|_| {
        let (send, queue) = mpsc::unbounded_channel();
        let (owner, mut task) = (Arc::new(Owner::default()), Helped::new(answer(queue)));
        assert!(owner.poll(&mut task).is_pending());
        (send, owner, task)
    });
    let scope = Scope::enter();
    let mut heard = tasks.each_ref().map(|(send, ..)| {
        let (told, heard) = oneshot::channel();
        send.send((1, told)).expect("it is there");
        heard
    });
    assert!(scope.help());
    assert_eq!(tasks.each_ref().map(|(_, owner, _)| owner.woken()), [1, 0]);
    assert!(heard[0].try_recv().is_err() && heard[1].try_recv().is_ok());
    let (_, owner, task) = &mut tasks[0];
    assert!(owner.poll(task).is_pending() && heard[0].try_recv().is_ok());
}

#[test]
fn without_a_scope_nothing_is_left() {
    let (send, queue) = mpsc::unbounded_channel();
    let (owner, mut task) = (Arc::new(Owner::default()), Helped::new(answer(queue)));
    assert!(owner.poll(&mut task).is_pending());
    let (told, _heard) = oneshot::channel();
    send.send((1, told)).expect("it is there");
    assert_eq!(owner.woken(), 1);
    struct Nothing;
    impl crate::Help for Nothing {
        fn help(self: Arc<Self>) {}
        fn is_ready(&self) -> bool {
            true
        }
        fn wake_own(&self) {}
    }
    assert!(!leave(Arc::new(Nothing)));
}

#[test]
fn a_dropped_future_is_gone_although_it_can_still_be_woken() {
    struct Tell(Arc<AtomicUsize>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let (kept, of_task) = (Arc::new(Mutex::new(None::<Waker>)), Tell(Arc::clone(&dropped)));
    let keep = Arc::clone(&kept);
    let mut task = Helped::new(async move {
        let _of_task = of_task;
        std::future::poll_fn(|cx| {
            *keep.lock().expect("whole") = Some(cx.waker().clone());
            Poll::<()>::Ready(())
        })
        .await;
        pending::<()>().await;
    });
    assert!(Arc::new(Owner::default()).poll(&mut task).is_pending());
    drop(task);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    let scope = Scope::enter();
    kept.lock().expect("whole").take().expect("it was polled").wake();
    scope.help(); // and nothing comes of it
}

#[test]
fn before_a_thread_waits_what_it_owes_goes_on_elsewhere() {
    let (send, queue) = mpsc::unbounded_channel();
    let (owner, mut task) = (Arc::new(Owner::default()), Helped::new(answer(queue)));
    assert!(owner.poll(&mut task).is_pending());
    before_waiting();
    let scope = Scope::enter();
    let (told, mut heard) = oneshot::channel();
    send.send((1, told)).expect("it is there");
    assert_eq!(owner.woken(), 0);
    before_waiting();
    assert_eq!(owner.woken(), 1);
    assert!(!scope.help(), "it is its owner's now");
    assert!(owner.poll(&mut task).is_pending() && heard.try_recv().is_ok());
}

#[test]
fn what_never_rests_is_left_to_its_owner() {
    let mut task = Helped::new(std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    let owner = Arc::new(Owner::default());
    assert!(owner.poll(&mut task).is_pending());
    assert!(owner.woken() > 0);
    let scope = Scope::enter();
    assert!(owner.poll(&mut task).is_pending());
    let before = owner.woken();
    assert!(scope.help());
    assert!(owner.woken() > before);
}

#[test]
#[should_panic(expected = "where somebody helped")]
fn the_owner_hears_of_a_panic_where_somebody_helped() {
    let (send, mut queue) = mpsc::unbounded_channel::<()>();
    let owner = Arc::new(Owner::default());
    let mut task = Helped::new(async move {
        queue.recv().await;
        panic!("on purpose");
    });
    assert!(owner.poll(&mut task).is_pending());
    let helper = thread::spawn(move || {
        let scope = Scope::enter();
        send.send(()).expect("it is there");
        scope.help();
    });
    assert!(helper.join().is_err());
    assert_eq!(owner.woken(), 1);
    let _: Poll<()> = owner.poll(&mut task);
}

/// Many threads that wait for one task, half of them helping: each is answered, whoever does it.
#[test]
fn nobody_waits_for_ever() {
    const CALLERS: u64 = 4;
    const CALLS: u64 = 5_000;
    let (send, queue) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let task = runtime.spawn(Helped::new(answer(queue)));
    let (tell, helped) = channel();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (send, tell) = (send.clone(), tell.clone());
            thread::spawn(move || {
                let mut here = 0;
                for _ in 0..CALLS {
                    let (told, mut heard) = oneshot::channel();
                    let scope = (caller % 2 == 0).then(Scope::enter);
                    send.send((1, told)).expect("it is there");
                    while scope.as_ref().is_some_and(|scope| heard.is_empty() && scope.help()) {}
                    drop(scope);
                    let by = heard.try_recv().unwrap_or_else(|_| heard.blocking_recv().expect("answered"));
                    here += u64::from(by == thread::current().id());
                }
                tell.send(here).expect("somebody counts");
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().expect("no panic"));
    drop((send, tell));
    assert_eq!(runtime.block_on(task).expect("no panic"), CALLERS * CALLS);
    let helped: u64 = helped.iter().sum();
    assert!(helped > 0, "nobody helped");
}
