//! A block device or preallocated file, driven by io_uring or by threads.

use crate::later::Later;
use crate::oneshot::{Promise, promise, ready};
use crate::request::{Request, Waiter};
use crate::ring::Ring;
use crate::threads::Threads;
use crate::{BlockDev, Durability, Geometry, IoBuf, IoClass, IoError, IoFuture, IoVec};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use types::{BLOCK, ByteOffset};

/// The most bytes that one operation carries.
pub(crate) const MAX_IO: u32 = 2 << 20;
/// The most operations in flight; a caller with one more waits for a place.
pub(crate) const DEPTH: usize = 256;

/// Threads beside a ring.
const SHORT_THREADS: usize = 4;
/// Threads without a ring.
const ALL_THREADS: usize = 8;

/// How a disk's operations reach the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// io_uring where the kernel and its seccomp profile let us, else threads.
    Auto,
    /// io_uring, submitted by the caller and reaped by one thread, for reads and long writes; four threads for short
    /// writes and flushes. The kernel ends an asynchronous write that is durable on completion, or that is the first
    /// one to its block, on a worker of its own, and all others on the thread that submitted them, which is busy or
    /// asleep: a thread that waits for its own write is quicker.
    IoUring,
    /// Eight threads with preadv2 and pwritev2.
    Threads,
}

/// A block device or preallocated file that this process holds exclusively.
///
/// After a write or flush failed it is poisoned: every later operation answers [`IoError::Gone`], because what reads
/// return then may not be what the disk keeps. With 256 operations in flight the next call blocks until one is done.
/// Dropping it waits for what is in flight, then releases the disk.
pub struct FileDisk {
    shared: Arc<Shared>,
    /// For what is long.
    ring: Option<Ring>,
    /// For what is short, and without a ring for everything.
    threads: Threads,
    direct: bool,
    /// Carries the lock. Never given to a ring, which may keep a file referenced a moment longer than its operations
    /// take: closing this one releases the disk at once.
    _claim: File,
}

/// What the disk's threads need of it.
pub(crate) struct Shared {
    pub(crate) file: File,
    bytes: u64,
    /// Not a block device.
    is_file: bool,
    poisoned: AtomicBool,
    flushes: Mutex<Flushes>,
}

/// At most one flush is in the kernel: it reports a write-back error to one caller only, so of two at once one could
/// be told that all is well. Who asks meanwhile shares the next one.
#[derive(Default)]
struct Flushes {
    running: bool,
    waiting: Vec<Promise<()>>,
}

impl Shared {
    /// Why an operation must not start any more, if so.
    pub(crate) fn refusal(&self) -> Result<(), IoError> {
        if self.poisoned.load(Ordering::Acquire) { Err(IoError::Gone) } else { Ok(()) }
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    /// Answers `request` and gives back the flush that comes next, if it was a flush and somebody waits for one.
    pub(crate) fn finish(&self, request: Request, result: Result<(), IoError>) -> Option<Request> {
        if result.is_err() && request.poisons() && !self.poisoned.swap(true, Ordering::AcqRel) {
            tracing::error!(
                op = request.name(),
                at = request.at,
                ?result,
                "the disk is poisoned: it failed a write"
            );
        }
        // What succeeded beside a failure proves nothing.
        let result = result.and_then(|()| self.refusal());
        let was_flush = matches!(request.waiter, Waiter::Flush(_));
        request.finish(result);
        if was_flush { self.next_flush() } else { None }
    }

    fn next_flush(&self) -> Option<Request> {
        let mut flushes = self.flushes.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = std::mem::take(&mut flushes.waiting);
        flushes.running = !waiting.is_empty();
        flushes.running.then(|| Request::new(Waiter::Flush(waiting), 0, Vec::new()))
    }
}

impl FileDisk {
    pub(crate) fn start(
        file: File,
        claim: File,
        bytes: u64,
        direct: bool,
        backend: Backend,
    ) -> std::io::Result<FileDisk> {
        let is_file = file.metadata()?.is_file();
        let shared = Arc::new(Shared {
            file,
            bytes,
            is_file,
            poisoned: AtomicBool::new(false),
            flushes: Mutex::new(Flushes::default()),
        });
        let ring = match backend {
            Backend::Threads => None,
            Backend::IoUring => Some(Ring::start(Arc::clone(&shared))?),
            Backend::Auto => Ring::start(Arc::clone(&shared))
                .inspect_err(|error| {
                    tracing::info!(%error, "io_uring is not to be had here: threads serve the disk");
                })
                .ok(),
        };
        let count = if ring.is_some() { SHORT_THREADS } else { ALL_THREADS };
        let threads = Threads::start(Arc::clone(&shared), count)?;
        Ok(FileDisk { shared, ring, threads, direct, _claim: claim })
    }

    /// Which backend serves it: never [`Backend::Auto`].
    pub fn backend(&self) -> Backend {
        if self.ring.is_some() { Backend::IoUring } else { Backend::Threads }
    }

    /// Whether it is read and written around the page cache (O_DIRECT).
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    fn submit(&self, request: Request) {
        match &self.ring {
            _ if request.is_short() && helping::waits_here() => self.serve_here(request),
            Some(ring) if !request.is_short() => ring.submit(request),
            _ => self.threads.submit(request),
        }
    }

    /// Does an operation before this returns.
    fn serve_here(&self, request: Request) {
        helping::before_waiting();
        if let Some(next) = self.shared.complete(request) {
            // The flush that others wait for is not for this thread to wait for.
            self.threads.submit(next);
        }
    }
}

/// Refuses what is not in whole blocks, too long, or over the end of a disk of `bytes`.
pub(crate) fn check_fit(bytes: u64, at: u64, len: u64) -> Result<(), IoError> {
    let aligned = at.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK);
    let inside = at.checked_add(len).is_some_and(|end| end <= bytes);
    if aligned && inside && len > 0 && len <= u64::from(MAX_IO) {
        Ok(())
    } else {
        Err(IoError::Misfit { at, len })
    }
}

/// The length of a write, refused if it does not fit or has an empty buffer.
pub(crate) fn check_write(bytes: u64, at: u64, bufs: &IoVec) -> Result<(), IoError> {
    let len = bufs.iter().map(|buf| buf.len() as u64).sum();
    if bufs.iter().any(|buf| buf.is_empty()) {
        return Err(IoError::Misfit { at, len });
    }
    check_fit(bytes, at, len)
}

impl BlockDev for FileDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            bytes: self.shared.bytes,
            max_io: MAX_IO,
            volatile_cache: true,
            first_writes_cost: self.shared.is_file,
        }
    }

    fn read(&self, at: ByteOffset, buf: IoBuf, _class: IoClass) -> IoFuture<IoBuf> {
        let fits = check_fit(self.shared.bytes, at.0, buf.len() as u64);
        if let Err(error) = fits.and_then(|()| self.shared.refusal()) {
            return ready(Err(error));
        }
        let (promise, answer) = promise();
        self.submit(Request::new(Waiter::Read(promise), at.0, vec![buf]));
        answer
    }

    fn write(&self, at: ByteOffset, bufs: IoVec, sync: Durability, _class: IoClass) -> IoFuture<IoVec> {
        let fits = check_write(self.shared.bytes, at.0, &bufs);
        if let Err(error) = fits.and_then(|()| self.shared.refusal()) {
            return ready(Err(error));
        }
        let (promise, answer) = promise();
        let request = Request::new(Waiter::Write(sync, promise), at.0, bufs);
        if request.is_short() && helping::in_scope() {
            return Box::pin(Later::new(Arc::clone(&self.shared), request, answer));
        }
        self.submit(request);
        answer
    }

    fn flush(&self) -> IoFuture<()> {
        if let Err(error) = self.shared.refusal() {
            return ready(Err(error));
        }
        if planted::is(planted::Bug::NoFlush) {
            return ready(Ok(()));
        }
        let (promise, answer) = promise();
        {
            let mut flushes = self.shared.flushes.lock().unwrap_or_else(PoisonError::into_inner);
            if flushes.running {
                flushes.waiting.push(promise);
                return answer;
            }
            flushes.running = true;
        }
        self.submit(Request::new(Waiter::Flush(vec![promise]), 0, Vec::new()));
        answer
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.close();
        }
        self.threads.close();
        // What was not begun never will be.
        self.shared.poison();
    }
}
