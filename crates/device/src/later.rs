//! A short write that is done when it is awaited.
//!
//! A thread that waits for a sync does short operations itself, and it may ask for a write while it holds a lock, whose other
//! users must not wait for a disk.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::file_disk::Shared;
use crate::request::Request;
use crate::{IoError, IoFuture, IoVec};

/// A write that the thread does which polls it first.
pub(crate) struct Later {
    shared: Arc<Shared>,
    /// Until it was polled.
    request: Option<Request>,
    answer: IoFuture<IoVec>,
}

impl Later {
    pub(crate) fn new(shared: Arc<Shared>, request: Request, answer: IoFuture<IoVec>) -> Later {
        Later { shared, request: Some(request), answer }
    }
}

impl Future for Later {
    type Output = Result<IoVec, IoError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(request) = self.request.take() {
            helping::before_waiting();
            let flush = self.shared.complete(request);
            assert!(flush.is_none(), "only a flush is followed by another one");
        }
        self.answer.as_mut().poll(cx)
    }
}
