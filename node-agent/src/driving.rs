//! The thread of a disk.

use std::io;

use helping::Helped;
use store::{CloseError, Driver};
use tokio::runtime::Handle as Runtime;
use tokio::sync::oneshot;

/// A driver on a thread of its own, which does its writes and flushes itself: a put that is alone reaches the disk
/// with one change of threads, and with none if who waits for it helps. A disk that hangs stops nothing else.
///
/// Dropping it ends the driver as a crash would, as soon as what the disk is doing for it is done.
pub(crate) struct Driving {
    ended: oneshot::Receiver<Result<(), CloseError>>,
    /// Dropped with this.
    _stop: oneshot::Sender<()>,
}

impl Driving {
    /// Starts the thread. Must be called in a tokio runtime with its timer, which the driver uses.
    pub(crate) fn start(driver: Driver) -> io::Result<Driving> {
        let runtime = Runtime::current();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, ended) = oneshot::channel();
        let body = move || {
            helping::wait_here();
            let end = runtime.block_on(async {
                tokio::select! {
                    biased;
                    // Nobody sends: the other side was dropped.
                    _ = stopped => None,
                    end = Helped::new(driver.run()) => Some(end),
                }
            });
            if let Some(end) = end {
                // Nobody may want to know.
                let _ = tell.send(end);
            }
        };
        std::thread::Builder::new().name("disk".into()).spawn(body)?;
        Ok(Driving { ended, _stop: stop })
    }

    /// Waits until the driver has ended by itself; `None` if it panicked.
    pub(crate) async fn ended(&mut self) -> Option<Result<(), CloseError>> {
        (&mut self.ended).await.ok()
    }
}
