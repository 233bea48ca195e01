//! The border to the metadata service.

use std::future::Future;
use std::pin::Pin;

use namespace::{Answer, Envelope, Query, Reply};

/// What the service answers later. Dropping it does not undo the command: it may still be applied.
pub type MetaFuture<T> = Pin<Box<dyn Future<Output = Result<T, CallError>> + Send>>;

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// The service stopped, or it lost its rows or its log; whether the command was applied is unknown.
    #[error("the metadata service has stopped: {0}")]
    Stopped(String),
    /// The reply was lost on its way; whether the command was applied is unknown. With a slot it can be repeated.
    #[error("the metadata service's reply was lost: {0}")]
    Lost(String),
    /// Its disk is nearly full: reads go on, changes are refused before they are logged.
    #[error("the metadata service is read-only: {0}")]
    ReadOnly(String),
}

/// The metadata service of a partition, in this process or on another node.
pub trait MetaService: Send + Sync + 'static {
    /// Logs and applies a command. Its effect is durable when the reply arrives.
    fn call(&self, envelope: Envelope) -> MetaFuture<Reply>;

    /// Reads rows that hold every command answered before this was called.
    fn read(&self, query: Query) -> MetaFuture<Answer>;
}
