//! The service is told which extents can no longer be in flight.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use extents::Extents;
use meta_client::{Exclusive, SessionError};
use tokio::task::JoinHandle;

/// How often it is told.
const BEAT: Duration = Duration::from_secs(1);

/// Tells it once a second, if there is something new, until the session is over. Aborting the task is safe: the mark
/// only grows, and the next one says the same.
pub(crate) fn spawn(session: Arc<Exclusive>, extents: Arc<Extents>, clock: Arc<dyn Clock>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut told = extents.settled();
        loop {
            clock.sleep(BEAT).await;
            let mark = extents.settled();
            if mark == told {
                continue;
            }
            match session.session().settle(mark).await {
                Ok(()) => told = mark,
                // The mark is only worth telling: without it garbage stays a while longer.
                Err(SessionError::Call(_)) => {}
                Err(_) => return,
            }
        }
    })
}
