//! A disk's reads and long writes by io_uring: callers submit under a short lock, one thread reaps.

use crate::Durability;
use crate::IoError;
use crate::file_disk::{DEPTH, Shared};
use crate::request::{Request, Step, Waiter};
use io_uring::{IoUring, opcode, squeue, types};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Marks the entry that ends the reaper.
const CLOSE: u64 = u64::MAX;
/// Room in the submission queue. Only one entry at a time is in it, as each is handed to the kernel under the lock.
const ENTRIES: u32 = 8;

pub(crate) struct Ring {
    core: Arc<Core>,
    reaper: Option<JoinHandle<()>>,
}

struct Core {
    shared: Arc<Shared>,
    ring: IoUring,
    /// Also serialises the use of the submission queue.
    in_flight: Mutex<InFlight>,
    /// A place became free.
    drained: Condvar,
}

/// Operations that the kernel may be working on. Each stays here, and so its buffers, until its completion is reaped.
#[derive(Default)]
struct InFlight {
    slots: Vec<Option<Flying>>,
    free: Vec<usize>,
    closed: bool,
    /// The kernel refused to talk about the ring: nothing in flight will be reaped.
    broken: bool,
}

struct Flying {
    request: Request,
    /// What the kernel was told to read or write. It points into the request's buffers, whose memory does not move
    /// with them.
    iovecs: Vec<libc::iovec>,
}

// SAFETY: the pointers in `iovecs` point into buffers that the same value owns, and are used by the kernel only.
#[allow(unsafe_code)]
unsafe impl Send for Flying {}

impl Flying {
    fn new(request: Request) -> Flying {
        let mut flying = Flying { request, iovecs: Vec::new() };
        flying.point_at_rest();
        flying
    }

    /// Points at what is not done yet.
    fn point_at_rest(&mut self) {
        let mut skip = self.request.done as usize;
        self.iovecs.clear();
        for buf in &mut self.request.bufs {
            let skipped = skip.min(buf.len());
            skip -= skipped;
            let rest = &mut buf[skipped..];
            if !rest.is_empty() {
                self.iovecs.push(libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() });
            }
        }
    }

    fn entry(&self, fd: types::Fd, slot: usize) -> squeue::Entry {
        let at = self.request.at + self.request.done;
        let (iovecs, count) = (self.iovecs.as_ptr(), self.iovecs.len() as u32);
        let entry = match &self.request.waiter {
            Waiter::Flush(_) => unreachable!("a flush is short"),
            Waiter::Read(_) => opcode::Readv::new(fd, iovecs, count).offset(at).build(),
            Waiter::Write(sync, _) => {
                let flags = match sync {
                    Durability::Durable => libc::RWF_DSYNC,
                    Durability::Buffered => 0,
                };
                opcode::Writev::new(fd, iovecs, count).offset(at).rw_flags(flags).build()
            }
        };
        entry.user_data(slot as u64)
    }
}

impl InFlight {
    fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn put(&mut self, flying: Flying) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(flying);
        slot
    }

    fn take(&mut self, slot: usize) -> Option<Flying> {
        let flying = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(flying)
    }
}

impl Core {
    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.shared.file.as_raw_fd())
    }

    /// Hands one entry to the kernel.
    #[allow(unsafe_code)]
    fn enter(&self, _in_flight: &InFlight, entry: &squeue::Entry) -> std::io::Result<()> {
        // SAFETY: the submission queue is used here only, and `_in_flight` is behind the lock that every caller holds, so
        // there is one user at a time.
        let mut queue = unsafe { self.ring.submission_shared() };
        // SAFETY: what the entry points at lives in `in_flight` until its completion is reaped, or for ever; the file
        // lives as long as `shared`, which the reaper keeps until nothing is in flight.
        unsafe { queue.push(entry) }.map_err(|_| std::io::Error::from_raw_os_error(libc::EBUSY))?;
        drop(queue);
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(()),
                // EAGAIN and EBUSY: the kernel is short of memory or of room for completions, which the reaper is emptying.
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY) => std::thread::yield_now(),
                    _ => return Err(error),
                },
            }
        }
    }

    fn launch(&self, mut in_flight: MutexGuard<'_, InFlight>, flying: Flying) {
        if in_flight.broken {
            drop(in_flight);
            flying.request.finish(Err(IoError::Gone));
            return;
        }
        let slot = in_flight.put(flying);
        let entry = in_flight.slots[slot].as_ref().map(|flying| flying.entry(self.fd(), slot));
        let entered = entry.map_or(Ok(()), |entry| self.enter(&in_flight, &entry));
        if let Err(error) = entered {
            self.give_up(in_flight, &error);
        }
    }

    /// The ring does not work any more. Buffers that the kernel may still use are never freed.
    fn give_up(&self, mut in_flight: MutexGuard<'_, InFlight>, error: &std::io::Error) {
        tracing::error!(%error, "the disk is poisoned: its ring failed");
        self.shared.poison();
        in_flight.broken = true;
        let stuck: Vec<Flying> = in_flight.slots.drain(..).flatten().collect();
        in_flight.free.clear();
        drop(in_flight);
        self.drained.notify_all();
        for mut flying in stuck {
            std::mem::forget(std::mem::take(&mut flying.request.bufs));
            std::mem::forget(std::mem::take(&mut flying.iovecs));
            flying.request.finish(Err(IoError::Gone));
        }
    }

    #[allow(unsafe_code)]
    fn reap(&self) {
        let mut done = Vec::new();
        loop {
            // Nothing is submitted here: entries are pushed and submitted under the lock.
            // SAFETY: with no argument structure the call reads and writes the ring only.
            let waited = unsafe { self.ring.submitter().enter::<()>(0, 1, libc_getevents(), None) };
            if let Err(error) = waited {
                match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                    _ => return self.give_up(self.in_flight(), &error),
                }
            }
            // SAFETY: the completion queue is used by this thread only.
            done.extend(
                unsafe { self.ring.completion_shared() }.map(|entry| (entry.user_data(), entry.result())),
            );
            for (slot, result) in done.drain(..) {
                if slot != CLOSE {
                    self.landed(slot as usize, i64::from(result));
                }
            }
            let in_flight = self.in_flight();
            if in_flight.broken || (in_flight.closed && in_flight.count() == 0) {
                return;
            }
        }
    }

    fn landed(&self, slot: usize, result: i64) {
        let taken = self.in_flight().take(slot);
        let Some(mut flying) = taken else { return };
        let result = match flying.request.advance(result) {
            Step::Finished => Ok(()),
            Step::Again => {
                flying.point_at_rest();
                return self.launch(self.in_flight(), flying);
            }
            Step::Failed(errno) => {
                let Request { at, len, .. } = flying.request;
                Err(IoError::Failed { op: flying.request.name(), at, len, errno })
            }
        };
        self.drained.notify_one();
        let next = self.shared.finish(flying.request, result);
        assert!(next.is_none(), "only a flush is followed by another one, and a flush is short");
    }
}

/// `IORING_ENTER_GETEVENTS` of io_uring_enter(2), which the io-uring crate keeps to itself.
const fn libc_getevents() -> u32 {
    1
}

impl Ring {
    pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<Ring> {
        // Every operation in flight has room for its completion, so none overflows.
        let ring = IoUring::builder().setup_cqsize(DEPTH as u32 * 2).dontfork().build(ENTRIES)?;
        let core = Arc::new(Core {
            shared,
            ring,
            in_flight: Mutex::new(InFlight::default()),
            drained: Condvar::new(),
        });
        let reaped = Arc::clone(&core);
        let reaper = std::thread::Builder::new().name("disk-ring".into()).spawn(move || reaped.reap())?;
        Ok(Ring { core, reaper: Some(reaper) })
    }

    pub(crate) fn submit(&self, request: Request) {
        let mut in_flight = self.core.in_flight();
        while in_flight.count() >= DEPTH && !in_flight.broken && !self.on_reaper() {
            in_flight = self.core.drained.wait(in_flight).unwrap_or_else(PoisonError::into_inner);
        }
        self.core.launch(in_flight, Flying::new(request));
    }

    /// A future's waker may run code on the reaper's own thread, which must never wait for itself.
    fn on_reaper(&self) -> bool {
        self.reaper.as_ref().is_some_and(|reaper| reaper.thread().id() == std::thread::current().id())
    }

    /// Lets the kernel finish what is in flight and waits for it.
    pub(crate) fn close(&mut self) {
        let mut in_flight = self.core.in_flight();
        in_flight.closed = true;
        if !in_flight.broken {
            let entered = self.core.enter(&in_flight, &opcode::Nop::new().build().user_data(CLOSE));
            if let Err(error) = entered {
                self.core.give_up(in_flight, &error);
                in_flight = self.core.in_flight();
            }
        }
        let broken = in_flight.broken;
        drop(in_flight);
        let on_reaper = self.on_reaper();
        if let Some(reaper) = self.reaper.take().filter(|_| !on_reaper && !broken) {
            // A panic in the reaper aborts a release and was printed in a test: there is nothing to add.
            let _ = reaper.join();
        }
    }
}
