//! Sends what waits in the queue, one batch at a time.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use namespace::{Command, Reply};

use super::kept::Kept;
use super::queue::{Queue, Taken};
use crate::{CallError, Session, SessionError};

/// How long commands gather for which nobody waits.
const LINGER: Duration = Duration::from_millis(10);

/// How long until a batch is tried again that the service refused for want of space on its own disk.
const RETRY: Duration = Duration::from_millis(250);

/// Runs until the session is over. One batch is in flight at a time: its slot makes it apply once, and the next comes
/// after it. Without an answer it is repeated by the session; what a dropped future leaves behind is lost, as by a
/// death of the process.
pub(super) async fn run(session: Arc<Session>, queue: Arc<Queue>, kept: Kept, clock: Arc<dyn Clock>) {
    loop {
        let (any, wanted) = queue.due();
        if !any {
            queue.work.notified().await;
            continue;
        }
        if !wanted {
            gather(&queue, clock.as_ref()).await;
        }
        let Taken { commands, wanting, may_be_there, first, last } = queue.take();
        // Nobody else uses a slot of the session.
        let seq = session.next_sequence();
        kept.sends(seq, first, last).await;
        match session.call(Command::Journal { commands }).await {
            Ok(Reply::Journaled { replies, differs: None }) => {
                let replies: Vec<Reply> = replies.into_iter().map(|reply| *reply.0).collect();
                let asked = wanting.iter().zip(&replies).filter(|((_, unique), _)| *unique != 0);
                let asked: Vec<_> = asked.map(|((seq, _), reply)| (*seq, reply.clone())).collect();
                kept.settled(seq, last, &asked).await;
                queue.settle(last, replies);
            }
            Ok(other) => {
                let why = SessionError::Diverged(format!("{other:?}"));
                tracing::error!(error = %why, "changes of names and attributes are lost");
                return queue.end(&why);
            }
            Err(SessionError::Call(error @ CallError::ReadOnly(_))) => {
                if !may_be_there {
                    // The slot first: what it says is on its way must not change.
                    kept.refused(seq).await;
                    queue.refuse(&error, |seq| kept.withdraw(seq));
                }
                tokio::select! {
                    () = clock.sleep(RETRY) => {}
                    // Somebody asks.
                    () = queue.work.notified() => {}
                }
                // With a clock that does not make anybody wait, others shall have their turn all the same.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                let lost = queue.len();
                tracing::error!(%error, lost, "changes of names and attributes are lost");
                return queue.end(&error);
            }
        }
    }
}

/// Lets commands gather, until somebody waits for one.
async fn gather(queue: &Queue, clock: &dyn Clock) {
    let mut linger = clock.sleep(LINGER);
    loop {
        tokio::select! {
            () = &mut linger => return,
            () = queue.work.notified() => if queue.due().1 { return },
        }
    }
}
