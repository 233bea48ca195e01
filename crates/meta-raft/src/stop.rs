//! The end of a partition: one reason, known to everybody who waits.

use std::sync::Arc;

use tokio::sync::watch;

/// Why a partition stopped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Stopped {
    /// One sentence.
    pub reason: Arc<str>,
    /// It was asked to stop, and everything that it had answered is in its log.
    pub closed: bool,
}

/// Ends a partition, once.
#[derive(Clone)]
pub(crate) struct Stop(Arc<watch::Sender<Option<Stopped>>>);

impl Stop {
    pub(crate) fn new() -> Stop {
        Stop(Arc::new(watch::Sender::new(None)))
    }

    /// Stops for a failure; the first reason stays.
    pub(crate) fn fail(&self, reason: impl Into<Arc<str>>) {
        let stopped = Stopped { reason: reason.into(), closed: false };
        if self.set(stopped.clone()) {
            tracing::debug!(%stopped, "partition stops");
        }
    }

    /// Stops because it was asked to.
    pub(crate) fn close(&self) {
        self.set(Stopped { reason: "it was closed".into(), closed: true });
    }

    fn set(&self, stopped: Stopped) -> bool {
        self.0.send_if_modified(|state| {
            let first = state.is_none();
            state.get_or_insert(stopped);
            first
        })
    }

    /// Why it stopped, if it did.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.0.borrow().clone()
    }

    /// Why it stopped; for callers that saw it end without a reason.
    pub(crate) fn reason(&self) -> Stopped {
        self.stopped().unwrap_or_else(|| Stopped { reason: "its thread ended".into(), closed: false })
    }

    /// Resolves when it stops.
    pub(crate) async fn wait(&self) -> Stopped {
        let mut receiver = self.0.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(stopped) => (*stopped).clone().unwrap_or_else(|| self.reason()),
            // This handle holds a sender, so the channel cannot close.
            Err(_) => self.reason(),
        }
    }
}
