//! What was run, in the arena: stored before it shows, and read again by the next engine.
//!
//! The order of stores is that of docs/decisions/2026-11-21-takeover-model.md. A store that the kernel has no memory for is
//! tried again until it has: by then its effect is promised, and waiting loses nothing.

use std::sync::Arc;
use std::time::Duration;

use arena::{AppendError, Entry, Journal, MemoryFailed};
use clock::Clock;
use namespace::{Journaled, Reply};

use super::cache::Seq;
use crate::{CallError, SessionError};

/// Until a store is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Room for the reply to a command that only the service runs: that to a journaled command has two attributes at most.
const REPLY_ROOM: usize = 512;

/// The journal of the arena, and time to wait for it. Places in the queue are the `jseq` of its entries.
#[derive(Clone)]
pub(super) struct Kept {
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    /// The last entry of an engine before this one.
    found: Seq,
}

impl Kept {
    pub(super) fn new(journal: Arc<Journal>, clock: Arc<dyn Clock>) -> Kept {
        let found = journal.last();
        Kept { journal, clock, found }
    }

    pub(super) fn reply_to(&self, unique: u64) -> Result<Option<Reply>, SessionError> {
        let unreadable = |error: &dyn std::error::Error| {
            SessionError::from(CallError::Stopped(format!("the journal cannot be read: {error}")))
        };
        let ran = self.journal.find_unique(unique).map_err(|error| unreadable(&error))?;
        let Some(reply) = ran.and_then(|ran| ran.reply) else { return Ok(None) };
        namespace::decode_reply(&reply).map(Some).map_err(|error| unreadable(&error))
    }

    pub(super) fn answered(&self, unique: u64) -> bool {
        self.journal.answered(unique)
    }

    pub(super) fn all_have_come(&self, running: &[u64]) {
        self.journal.answered_through(self.found, running);
    }

    /// Whether there is no room for a command of so many bytes.
    pub(super) fn is_full_for(&self, bytes: usize) -> bool {
        self.journal.is_full_for(bytes + 2 * REPLY_ROOM)
    }

    /// Stores a command that was run, or is to be run by the service, behind all others: its effect and what shows that
    /// it was run, in one. `reply` is what the request `unique` is answered; nobody asks for that of none.
    pub(super) async fn append(&self, unique: u64, command: &Journaled, reply: Option<&Reply>) -> Seq {
        let command = namespace::encode_journaled(command);
        let reply = match reply {
            Some(reply) if unique != 0 => namespace::encode_reply(reply),
            _ => Vec::new(),
        };
        let reply_room = if unique != 0 { reply.len().max(REPLY_ROOM) } else { 0 };
        loop {
            match self.journal.append(Entry { unique, command: &command, reply: &reply, reply_room }) {
                Ok(jseq) => return jseq,
                Err(AppendError::Full) => {}
                Err(AppendError::Memory(error)) => tracing::warn!(%error, "a command waits for memory"),
            }
            self.pause().await;
        }
    }

    /// The commands `first` to `last` are about to be sent under the sequence `seq`.
    pub(super) async fn sends(&self, seq: u64, first: Seq, last: Seq) {
        self.store(|| self.journal.set_busy(seq, first, last)).await;
    }

    /// What was sent under `seq` is at the service up to `last`, and these requests have their replies.
    pub(super) async fn settled(&self, seq: u64, last: Seq, replies: &[(Seq, Reply)]) {
        for (jseq, reply) in replies {
            let mut reply = namespace::encode_reply(reply);
            if reply.len() > REPLY_ROOM {
                tracing::error!(jseq, bytes = reply.len(), "a reply does not fit the journal: this is a bug");
                reply = namespace::encode_reply(&Reply::Failed(types::Errno::EIO));
            }
            self.store(|| self.journal.set_reply(*jseq, &reply)).await;
        }
        self.store(|| self.journal.settle(last)).await;
        self.store(|| self.journal.set_free(seq)).await;
        if let Err(error) = self.journal.reclaim() {
            // The next batch does it.
            tracing::debug!(%error, "the journal keeps room that is not used");
        }
    }

    /// What was to be sent under `seq` was refused without being logged: the sequence was not used.
    pub(super) async fn refused(&self, seq: u64) {
        self.store(|| self.journal.set_free(seq - 1)).await;
    }

    /// A command is taken out of the order, whose batch was refused before. Whether it is: if not, it stays.
    pub(super) fn withdraw(&self, seq: Seq) -> bool {
        let withdrawn = self.journal.withdraw(seq);
        withdrawn.inspect_err(|error| tracing::warn!(%error, "a refused command stays in order")).is_ok()
    }

    async fn store(&self, store: impl Fn() -> Result<(), MemoryFailed>) {
        while let Err(error) = store() {
            tracing::warn!(%error, "the journal waits for memory");
            self.pause().await;
        }
    }

    async fn pause(&self) {
        self.clock.sleep(RETRY).await;
        // With a clock that does not make anybody wait, others shall have their turn all the same.
        tokio::task::yield_now().await;
    }
}
