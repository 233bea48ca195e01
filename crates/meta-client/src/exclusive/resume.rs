//! A mount goes on where an engine died.
//!
//! The batch that was on its way is sent again first, with the same sequence and the same bytes, then everything else that is
//! not at the service; only then are rows fetched. So there is nothing to be run again here, and what commits refer
//! to is known at the service before anybody asks.

use std::sync::Arc;

use arena::{FoundEntry, FoundJournal, Journal};
use clock::Clock;
use namespace::{DecodeError, Expected, Journaled, Reply, SessionInfo};

use super::kept::Kept;
use super::queue::{Queue, nothing};
use super::{Exclusive, ExclusiveOptions, applied_time};
use crate::{MetaService, Session, SessionError};

/// Why a mount does not go on. What is in its arena stays there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResumeError {
    /// The session has ended, or the service gives no answer.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// An entry is not what this release writes.
    #[error("entry {jseq} of the journal cannot be read: {source}")]
    Entry {
        /// Its place in the order.
        jseq: u64,
        /// Why.
        source: DecodeError,
    },
}

impl Exclusive {
    /// A mount over the session and the journal of an engine that is dead. On return all that it answered is at the
    /// service: records of its arena that are not above `applied` of their inode's row are mapped.
    ///
    /// Waits for a service that refuses changes. Dropping the future is a death like any other.
    pub async fn resume(
        service: Arc<dyn MetaService>,
        info: SessionInfo,
        clock: Arc<dyn Clock>,
        options: ExclusiveOptions,
        (journal, found): (Arc<Journal>, FoundJournal),
    ) -> Result<Exclusive, ResumeError> {
        let FoundJournal { entries, settled, seq, busy } = found;
        let answered = seq - u64::from(busy.is_some());
        let session = Arc::new(Session::resume(service, info, answered).await?);
        let queue = Queue::new(settled, busy.map(|(_, last)| last));
        let mut last = applied_time(&session).await?;
        for entry in &entries {
            let journaled = read(entry)?;
            last = last.max(journaled.time);
            if entry.jseq > settled {
                queue.push(entry.jseq, entry.unique, journaled, None);
            }
        }
        let kept = Kept::new(journal, Arc::clone(&clock));
        let mount = Exclusive::with(session, queue, kept, clock, options, last);
        let end = mount.queue.last();
        mount.queue.want(end);
        mount.queue.passed(end).await;
        match mount.queue.over() {
            Some(over) => Err(over.into()),
            None => Ok(mount),
        }
    }

    /// What the request `unique` is to be answered: it was run, by this engine or by one before. `None` if its effect is
    /// in no journal, or the reply to it is not known yet.
    ///
    /// # Errors
    /// If the arena cannot be read.
    pub fn reply_to(&self, unique: u64) -> Result<Option<Reply>, SessionError> {
        self.kept.reply_to(unique)
    }

    /// The request `unique` has its reply, or will not come again for another reason: what is kept of it may go. Whoever
    /// calls with a `unique` has to say so at last, or the journal fills up and everybody waits.
    pub fn answered(&self, unique: u64) {
        if self.kept.answered(unique) {
            self.queue.room.notify_waiters();
        }
    }

    /// No request of an earlier engine comes again but those that came by now and are not [`Exclusive::answered`]:
    /// `running` are those.
    pub fn all_have_come(&self, running: &[u64]) {
        self.kept.all_have_come(running);
        self.queue.room.notify_waiters();
    }
}

fn read(entry: &FoundEntry) -> Result<Journaled, ResumeError> {
    let read = namespace::decode_journaled(&entry.command);
    let journaled = read.map_err(|source| ResumeError::Entry { jseq: entry.jseq, source })?;
    Ok(match entry.is_withdrawn {
        true => Journaled { expected: Expected::Reply, command: nothing(), ..journaled },
        false => journaled,
    })
}
