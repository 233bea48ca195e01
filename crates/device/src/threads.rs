//! A disk behind eight threads with preadv2 and pwritev2, for where io_uring is not to be had.

use crate::Durability;
use crate::file_disk::{DEPTH, Shared};
use crate::request::{Request, Step, Waiter};
use rustix::io::{ReadWriteFlags, preadv2, pwritev2};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use types::Errno;

const THREADS: usize = 8;

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
        while let Some(mut request) = self.next() {
            loop {
                let result = match self.shared.refusal() {
                    Ok(()) => self.serve(&mut request),
                    gone => gone,
                };
                match self.shared.finish(request, result) {
                    Some(flush) => request = flush,
                    None => break,
                }
            }
        }
    }

    fn serve(&self, request: &mut Request) -> Result<(), crate::IoError> {
        loop {
            let result = self.call(request);
            match request.advance(result) {
                Step::Finished => return Ok(()),
                Step::Again => {}
                Step::Failed(errno) => {
                    return Err(crate::IoError::Failed {
                        op: request.name(),
                        at: request.at,
                        len: request.len,
                        errno,
                    });
                }
            }
        }
    }

    /// One system call: bytes done, or a negative errno.
    fn call(&self, request: &mut Request) -> i64 {
        let file = &self.shared.file;
        let at = request.at + request.done;
        let result = match &request.waiter {
            Waiter::Flush(_) => rustix::fs::fdatasync(file).map(|()| 0),
            Waiter::Read(_) => {
                let mut slices: Vec<IoSliceMut<'_>> =
                    request.bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
                let mut rest = &mut slices[..];
                IoSliceMut::advance_slices(&mut rest, request.done as usize);
                preadv2(file, rest, at, ReadWriteFlags::empty())
            }
            Waiter::Write(sync, _) => {
                let mut slices: Vec<IoSlice<'_>> = request.bufs.iter().map(|buf| IoSlice::new(buf)).collect();
                let mut rest = &mut slices[..];
                IoSlice::advance_slices(&mut rest, request.done as usize);
                let flags = match sync {
                    Durability::Durable => ReadWriteFlags::DSYNC,
                    Durability::Buffered => ReadWriteFlags::empty(),
                };
                pwritev2(file, rest, at, flags)
            }
        };
        match result {
            Ok(bytes) => bytes as i64,
            Err(errno) => -i64::from(Errno(errno.raw_os_error()).0),
        }
    }
}

impl Threads {
    pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<Threads> {
        let queue = Arc::new(Queue {
            shared,
            state: Mutex::new(State::default()),
            filled: Condvar::new(),
            drained: Condvar::new(),
        });
        let mut threads = Threads { queue, workers: Vec::with_capacity(THREADS) };
        for n in 0..THREADS {
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
