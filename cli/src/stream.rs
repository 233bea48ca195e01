//! Bodies of HTTP answers that are made while they are sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::mpsc;

/// Parts that wait for a peer that is slow.
const QUEUE: usize = 4;

/// A peer that takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(30);

/// The end into which a body is written.
pub struct Parts(mpsc::Sender<io::Result<Bytes>>);

/// A body that ends when its [`Parts`] are dropped, and breaks off with the error that they are given.
pub struct Streamed(mpsc::Receiver<io::Result<Bytes>>);

/// A body and the end into which it is written.
pub fn streamed() -> (Parts, Streamed) {
    let (parts, body) = mpsc::channel(QUEUE);
    (Parts(parts), Streamed(body))
}

impl Parts {
    /// Sends a part; waits while the peer is slow. An error says that the peer is gone or has taken nothing for long.
    pub async fn send(&self, part: Vec<u8>) -> io::Result<()> {
        let sent = self.0.send_timeout(Ok(part.into()), STALLED).await;
        sent.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => io::ErrorKind::TimedOut.into(),
            mpsc::error::SendTimeoutError::Closed(_) => io::ErrorKind::BrokenPipe.into(),
        })
    }

    /// Breaks off: the peer sees that something is missing.
    pub async fn fail(self, error: io::Error) {
        // A peer that is gone misses nothing.
        let _ = self.0.send(Err(error)).await;
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| part.map(Frame::data)))
    }
}
