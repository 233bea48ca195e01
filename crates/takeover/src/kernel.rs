//! One FUSE connection with the applications behind it. Its descriptor outlives every engine.

use crate::file::Answer;
use crate::history::History;
use crate::scope::{APPS, CALLS_MAX, Op, Scope};

/// Which request it is: never used twice, never 0, and in no order that an engine may rely on.
pub(crate) type Unique = u8;

/// One more than the largest `unique`.
pub(crate) const UNIQUES: usize = APPS * CALLS_MAX + 1;

/// The op behind a `unique`.
pub(crate) fn op_of(scope: &Scope, unique: Unique) -> Op {
    let index = unique as usize - 1;
    scope.scripts[index / CALLS_MAX][index % CALLS_MAX]
}

/// A call that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Request {
    pub(crate) unique: Unique,
    /// In the queue again after a resend; else it was read and waits for a reply.
    pub(crate) is_queued: bool,
}

/// Requests that were not read yet are left out: an application whose call is not read is one that has not called.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Kernel {
    pub(crate) requests: [Option<Request>; APPS],
    /// How many calls of each application were answered.
    pub(crate) answered: [u8; APPS],
    pub(crate) history: History,
}

impl Kernel {
    pub(crate) fn new() -> Kernel {
        Kernel { requests: [None; APPS], answered: [0; APPS], history: History::new() }
    }

    /// Whether resent requests wait to be read. They come before all others: the kernel puts them at the queue's head.
    pub(crate) fn has_resent(&self) -> bool {
        self.requests.iter().flatten().any(|request| request.is_queued)
    }

    /// Whether a read of the descriptor can give a request of this application.
    pub(crate) fn can_read(&self, scope: &Scope, app: usize) -> bool {
        match self.requests[app] {
            Some(request) => request.is_queued,
            None => usize::from(self.answered[app]) < scope.scripts[app].len() && !self.has_resent(),
        }
    }

    /// read(2) of the descriptor: the request, and whether it is marked as resent.
    pub(crate) fn read(&mut self, scope: &Scope, app: usize) -> (Unique, bool) {
        if let Some(request) = &mut self.requests[app] {
            request.is_queued = false;
            return (request.unique, true);
        }
        let unique = (app * CALLS_MAX) as Unique + self.answered[app] + 1;
        self.requests[app] = Some(Request { unique, is_queued: false });
        self.history.call(app, op_of(scope, unique));
        (unique, false)
    }

    /// write(2) of a reply. Whether somebody waited for it: the kernel refuses it otherwise.
    pub(crate) fn reply(&mut self, unique: Unique, answer: Answer) -> bool {
        let waits =
            |request: &Option<Request>| request.is_some_and(|it| it.unique == unique && !it.is_queued);
        let Some(app) = self.requests.iter().position(waits) else { return false };
        self.requests[app] = None;
        self.answered[app] += 1;
        self.history.tell(app, answer);
        true
    }

    /// FUSE_NOTIFY_RESEND: what was read and has no reply is in the queue again.
    pub(crate) fn resend(&mut self) {
        self.requests.iter_mut().flatten().for_each(|request| request.is_queued = true);
    }

    /// Whether every call of every application was answered.
    pub(crate) fn is_done(&self, scope: &Scope) -> bool {
        (0..APPS).all(|app| usize::from(self.answered[app]) == scope.scripts[app].len())
    }
}
