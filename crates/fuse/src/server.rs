//! How an operation is run.
//!
//! On the thread that read the request as far as it goes without waiting; what has to wait moves to the runtime with
//! its reply, so that the thread reads on. How many wait at once is bounded by the kernel: each is a system call of a
//! waiting process, or counts against the background limit agreed at INIT.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

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
}

impl Server {
    pub(crate) fn new(filesystem: Arc<dyn Filesystem>, runtime: Runtime, figures: Arc<Figures>) -> Server {
        // What a buffer of 32 KiB, which C libraries use, holds of names of a dozen letters.
        Server { filesystem, runtime, figures, names_fit: Estimate::new(700), plus_fit: Estimate::new(180) }
    }

    /// Runs an operation and sends its answer, now if it is ready.
    pub(crate) fn run(&self, ctx: Ctx, op: Op, answer: impl Answer) {
        let kind = OpKind::from(&op);
        let start = Instant::now();
        self.figures.begin();
        let _in_runtime = self.runtime.enter();
        let mut future = Arc::clone(&self.filesystem).handle(op, ctx);
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => finish(&self.figures, kind, start, result, answer),
            Poll::Pending => {
                let figures = Arc::clone(&self.figures);
                self.runtime.spawn(async move {
                    let result = future.await;
                    finish(&figures, kind, start, result, answer);
                });
            }
        }
    }

    /// As [`Server::run`], of a request that may be refused before it is an operation.
    pub(crate) fn run_if(&self, ctx: Ctx, op: Result<Op, Errno>, answer: impl Answer) {
        match op {
            Ok(op) => self.run(ctx, op, answer),
            Err(error) => answer.fail(error),
        }
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
