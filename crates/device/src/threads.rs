//! A disk behind threads with preadv2 and pwritev2: for what is short, and where io_uring is not to be had for everything.

use crate::file_disk::{DEPTH, Shared};
use crate::request::Request;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

pub(crate) struct Threads {
    queue: Arc<Queue>,
    workers: Vec<JoinHandle<()>>,
}

struct Queue {
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// Something came, or the queue closed.
    filled: Condvar,
    /// A place became free.
    drained: Condvar,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Request> {
        let mut state = self.state();
        loop {
            if let Some(request) = state.requests.pop_front() {
                self.drained.notify_one();
                return Some(request);
            }
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        while let Some(request) = self.next() {
            let mut next = Some(request);
            while let Some(request) = next {
                next = self.shared.complete(request);
            }
        }
    }
}

impl Threads {
    pub(crate) fn start(shared: Arc<Shared>, count: usize) -> std::io::Result<Threads> {
        let queue = Arc::new(Queue {
            shared,
            state: Mutex::new(State::default()),
            filled: Condvar::new(),
            drained: Condvar::new(),
        });
        let mut threads = Threads { queue, workers: Vec::with_capacity(count) };
        for n in 0..count {
            let queue = Arc::clone(&threads.queue);
            let worker = std::thread::Builder::new().name(format!("disk-{n}")).spawn(move || queue.work());
            match worker {
                Ok(worker) => threads.workers.push(worker),
                Err(error) => {
                    threads.close();
                    return Err(error);
                }
            }
        }
        Ok(threads)
    }

    pub(crate) fn submit(&self, request: Request) {
        let mut state = self.queue.state();
        while state.requests.len() >= DEPTH {
            state = self.queue.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.requests.push_back(request);
        drop(state);
        self.queue.filled.notify_one();
    }

    /// Lets the threads finish what is queued and waits for them.
    pub(crate) fn close(&mut self) {
        self.queue.state().closed = true;
        self.queue.filled.notify_all();
        let this = std::thread::current().id();
        for worker in self.workers.drain(..) {
            // Waking a task may drop the last owner of the disk on one of its own threads, which cannot wait for itself.
            if worker.thread().id() != this {
                // A panic in a worker aborts a release and was printed in a test: there is nothing to add.
                let _ = worker.join();
            }
        }
    }
}
