//! How an operation is run.
//!
//! On the thread that read the request as far as it goes without waiting; what has to wait moves to the runtime with
//! its reply, so that the thread reads on. How many wait at once is bounded by the kernel: each is a system call of a
//! waiting process, or counts against the background limit agreed at INIT.
//!
//! One sync at a time is waited for on the thread that read it, which helps all who work for it: that is quicker than
//! to wake them. The other threads read on meanwhile, and syncs that come meanwhile are done as everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use helping::Scope;
use namespace::Cred;
use tokio::runtime::Handle as Runtime;
use types::Errno;
use vfs::{Ctx, Op, Outcome};

use crate::answer::Answer;
use crate::figures::{Figures, OpKind};
use crate::filesystem::Filesystem;
use crate::listing::Estimate;

/// What serves the requests of one mount.
pub(crate) struct Server {
    filesystem: Arc<dyn Filesystem>,
    runtime: Runtime,
    pub(crate) figures: Arc<Figures>,
    pub(crate) names_fit: Estimate,
    pub(crate) plus_fit: Estimate,
    /// A thread that reads requests waits for a sync.
    waits: AtomicBool,
    /// Whether another thread reads meanwhile.
    may_wait: bool,
}

impl Server {
    /// `threads` read requests.
    pub(crate) fn new(
        filesystem: Arc<dyn Filesystem>,
        runtime: Runtime,
        figures: Arc<Figures>,
        threads: usize,
    ) -> Server {
        Server {
            filesystem,
            runtime,
            figures,
            // What a buffer of 32 KiB, which C libraries use, holds of names of a dozen letters.
            names_fit: Estimate::new(700),
            plus_fit: Estimate::new(180),
            waits: AtomicBool::new(false),
            may_wait: threads > 1,
        }
    }

    /// Runs an operation and sends its answer, now if it is ready.
    pub(crate) fn run(&self, ctx: Ctx, op: Op, mut answer: impl Answer) {
        let kind = OpKind::from(&op);
        let start = Instant::now();
        self.figures.begin();
        let _in_runtime = self.runtime.enter();
        let is_sync = matches!(op, Op::Fsync { .. } | Op::FsyncDir { .. });
        let mut future = Arc::clone(&self.filesystem).handle(op, ctx);
        let mut poll = || future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let place = is_sync.then(|| Place::take(self)).flatten();
        // Ends after the reply: what it wakes then has time.
        let scope = place.as_ref().map(|_| {
            answer.waits();
            Scope::enter()
        });
        let mut polled = poll();
        // Where nothing is left to help with, somebody else is at it.
        while polled.is_pending() && scope.as_ref().is_some_and(Scope::help) {
            polled = poll();
        }
        // Before the reply, after which the next sync may come at once, to another thread.
        drop(place);
        match polled {
            Poll::Ready(result) => finish(&self.figures, kind, start, result, answer),
            Poll::Pending => {
                answer.waits();
                let figures = Arc::clone(&self.figures);
                self.runtime.spawn(async move {
                    let result = future.await;
                    finish(&figures, kind, start, result, answer);
                });
            }
        }
    }

    /// The caller of a write is gone.
    pub(crate) fn interrupt(&self, unique: u64) {
        self.filesystem.interrupt(unique);
    }

    /// As [`Server::run`], of a request that may be refused before it is an operation.
    pub(crate) fn run_if(&self, ctx: Ctx, op: Result<Op, Errno>, answer: impl Answer) {
        match op {
            Ok(op) => self.run(ctx, op, answer),
            Err(error) => answer.fail(error),
        }
    }
}

/// The one place of a thread that waits.
struct Place<'a>(&'a AtomicBool);

impl Place<'_> {
    fn take(server: &Server) -> Option<Place<'_>> {
        let free = server.may_wait && !server.waits.swap(true, Ordering::AcqRel);
        free.then(|| Place(&server.waits))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn finish(
    figures: &Figures,
    kind: OpKind,
    start: Instant,
    result: Result<Outcome, Errno>,
    answer: impl Answer,
) {
    let told = match result {
        Ok(outcome) => answer.succeed(outcome),
        Err(error) => {
            answer.fail(error);
            Err(error)
        }
    };
    figures.end(kind, told, start.elapsed());
}

/// Who asks when it is the adapter itself.
pub(crate) fn nobody() -> Ctx {
    Ctx { cred: Cred { uid: 0, gid: 0 }, pid: 0, unique: 0 }
}
