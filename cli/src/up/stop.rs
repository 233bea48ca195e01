//! The end of `up`: by a signal, or because somebody unmounted.

use std::time::Duration;

use anyhow::Context;
use client::{Ended, Mount, UnmountError};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long open files keep a mount after it was asked to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is tried meanwhile.
const RETRY: Duration = Duration::from_millis(100);

/// SIGINT and SIGTERM. From its making on they no longer end the process.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over.
    pub fn take() -> anyhow::Result<Signals> {
        let take = |kind| signal(kind).context("take over SIGINT and SIGTERM");
        Ok(Signals { interrupt: take(SignalKind::interrupt())?, terminate: take(SignalKind::terminate())? })
    }

    /// Resolves at the next one. Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        // Both arms only wait for a notification that stays until it is taken.
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Unmounts. While files are open it says by whom and waits; then, or at another signal, it detaches the mount.
pub async fn unmount(mount: &Mount, signals: &mut Signals) -> anyhow::Result<()> {
    let Err(busy) = mount.unmount().await else { return ended(mount).await };
    let UnmountError::Busy { .. } = &busy else { return Err(busy).context("unmount") };
    tracing::warn!("{busy}; waiting {} s for that to end", PATIENCE.as_secs());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        // Dropping the sleep or the wait for a signal loses nothing: both begin anew.
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = signals.next() => break,
        }
        match mount.unmount().await {
            Ok(()) => return ended(mount).await,
            Err(UnmountError::Busy { .. }) => {}
            Err(error) => return Err(error).context("unmount"),
        }
    }
    tracing::warn!("still in use: writing what was accepted, and detaching {}", mount.dir().display());
    mount.detach().await.context("detach")
}

/// The last requests may still be on their way when a mount is gone from the table.
async fn ended(mount: &Mount) -> anyhow::Result<()> {
    match mount.ended().await {
        Ended::Unmounted | Ended::Aborted => Ok(()),
        Ended::Failed(why) => anyhow::bail!("the mount ended with an error: {why}"),
    }
}
