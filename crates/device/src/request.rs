//! One operation on its way through a real disk.

use crate::oneshot::Promise;
use crate::{Durability, IoBuf, IoError, IoVec};
use types::Errno;

/// The longest write that is short, in bytes.
const SHORT: u64 = 64 << 10;

/// Who waits for the operation, which also says what it is.
pub(crate) enum Waiter {
    Read(Promise<IoBuf>),
    Write(Durability, Promise<IoVec>),
    /// Several callers may share one flush.
    Flush(Vec<Promise<()>>),
}

/// An operation, its buffers and how far it has come.
pub(crate) struct Request {
    pub(crate) waiter: Waiter,
    pub(crate) at: u64,
    pub(crate) bufs: IoVec,
    /// Bytes that are done; a short read or write is resumed from here.
    pub(crate) done: u64,
    pub(crate) len: u64,
}

/// What to do after the kernel answered one call.
pub(crate) enum Step {
    Finished,
    Again,
    Failed(Errno),
}

impl Request {
    pub(crate) fn new(waiter: Waiter, at: u64, bufs: IoVec) -> Request {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        Request { waiter, at, bufs, done: 0, len }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.waiter {
            Waiter::Read(_) => "read",
            Waiter::Write(..) => "write",
            Waiter::Flush(_) => "flush",
        }
    }

    /// Whether a thread of its own does it quicker than io_uring, and few threads are enough for all of them.
    pub(crate) fn is_short(&self) -> bool {
        match self.waiter {
            Waiter::Read(_) => false,
            Waiter::Write(..) => self.len <= SHORT,
            Waiter::Flush(_) => true,
        }
    }

    /// A failed read leaves the disk as it was; a failed write or flush does not.
    pub(crate) fn poisons(&self) -> bool {
        !matches!(self.waiter, Waiter::Read(_))
    }

    /// Takes the result of a system call: bytes done, or a negative errno.
    pub(crate) fn advance(&mut self, result: i64) -> Step {
        match result {
            _ if result == -i64::from(Errno::EINTR.0) => Step::Again,
            errno if errno < 0 => Step::Failed(Errno(-errno as i32)),
            _ if matches!(self.waiter, Waiter::Flush(_)) => Step::Finished,
            // The end of the disk came too early: it shrank under us.
            0 => Step::Failed(Errno::EIO),
            bytes => {
                self.done += bytes as u64;
                if self.done >= self.len { Step::Finished } else { Step::Again }
            }
        }
    }

    /// Answers who waits.
    pub(crate) fn finish(self, result: Result<(), IoError>) {
        match self.waiter {
            Waiter::Read(promise) => {
                let buf = self.bufs.into_iter().next();
                promise.answer(result.and_then(|()| buf.ok_or(IoError::Gone)));
            }
            Waiter::Write(_, promise) => promise.answer(result.map(|()| self.bufs)),
            Waiter::Flush(promises) => {
                for promise in promises {
                    promise.answer(result.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Request, Step, Waiter};
    use crate::{IoBuf, IoError, oneshot};
    use types::Errno;

    #[test]
    fn short_and_interrupted_calls_are_resumed_and_an_early_end_is_an_error() {
        let (promise, answer) = oneshot::promise();
        let mut request = Request::new(Waiter::Read(promise), 0, vec![IoBuf::zeroed(8192)]);
        assert!(matches!(request.advance(-4), Step::Again));
        assert!(matches!(request.advance(4096), Step::Again));
        assert_eq!(request.done, 4096);
        assert!(matches!(request.advance(0), Step::Failed(Errno::EIO)));
        assert!(matches!(request.advance(-28), Step::Failed(Errno::ENOSPC)));
        assert!(matches!(request.advance(4096), Step::Finished));
        drop(request);
        let mut answer = answer;
        let polled = answer.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert!(matches!(polled, std::task::Poll::Ready(Err(IoError::Gone))), "nobody waits for ever");
    }
}
