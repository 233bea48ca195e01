//! The state machine, as openraft asks for it: entries in, row batches out.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt};
use namespace::{Batch, Entry, Reply, Rows, RowsError};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;

use crate::raft_types::{LogIdT, StoredMembershipT, Types, members_set_by, stored_membership};
use crate::record::Position;
use crate::rows::{Applied, RowStore, RowView};
use crate::stop::Stop;

/// What the entries of a group mean. Pure: equal entries over equal rows give equal rows and replies.
pub trait StateMachine: Send + Sync + 'static {
    /// The bytes that are logged for an entry.
    fn encode(&self, entry: &Entry) -> Vec<u8>;

    /// What an entry's bytes change, and one reply for each of its commands.
    fn apply(&self, rows: &dyn Rows, entry: &[u8]) -> Result<(Batch, Vec<Reply>), RowsError>;
}

/// The state machine of files and directories.
#[derive(Clone, Copy, Debug, Default)]
pub struct Namespace;

impl StateMachine for Namespace {
    fn encode(&self, entry: &Entry) -> Vec<u8> {
        namespace::encode_entry(entry)
    }

    fn apply(&self, rows: &dyn Rows, entry: &[u8]) -> Result<(Batch, Vec<Reply>), RowsError> {
        let entry =
            namespace::decode_entry(entry).map_err(|error| RowsError(format!("a log entry: {error}")))?;
        namespace::apply(rows, &entry)
    }
}

/// What applying, syncing and reporting share.
pub(crate) struct Progress {
    /// Entries are applied up to here.
    pub(crate) applied: watch::Sender<Option<Position>>,
    /// Rows are durable up to here: what licenses the purge of the log.
    pub(crate) synced: Mutex<Option<Applied>>,
    /// Commands that were applied since the partition was opened.
    pub(crate) commands: std::sync::atomic::AtomicU64,
}

impl Progress {
    pub(crate) fn synced(&self) -> Option<Applied> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Applies entries to rows.
pub(crate) struct Machine<R, M> {
    pub(crate) rows: Arc<R>,
    pub(crate) machine: Arc<M>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) stop: Stop,
}

impl<R: RowStore, M: StateMachine> Machine<R, M> {
    fn apply_one(&self, entry: &crate::raft_types::EntryT) -> Result<Vec<Reply>, RowsError> {
        let before = self.rows.applied();
        let position = Position::from(entry.log_id);
        let members = members_set_by(entry).unwrap_or(before.members);
        let (batch, replies) = match &entry.payload {
            EntryPayload::Normal(proposal) => loop {
                let view = self.rows.view();
                match self.machine.apply(&view, &proposal.0) {
                    Err(_) if view.is_ended() => {}
                    result => break result?,
                }
            },
            EntryPayload::Blank | EntryPayload::Membership(_) => (Batch::new(), Vec::new()),
        };
        self.rows.commit(batch, Applied { position: Some(position), members })?;
        self.progress.commands.fetch_add(replies.len() as u64, std::sync::atomic::Ordering::Relaxed);
        self.progress.applied.send_replace(Some(position));
        Ok(replies)
    }
}

/// Reports the synced rows as a snapshot. It holds no data: it only says how far the log may be purged.
pub(crate) struct SyncedReport(Applied);

impl RaftSnapshotBuilder<Types> for SyncedReport {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        Ok(report(&self.0))
    }
}

fn report(applied: &Applied) -> SnapshotOf<Types, ()> {
    SnapshotOf::<Types, ()> {
        meta: SnapshotMetaOf::<Types> {
            last_log_id: applied.position.map(Into::into),
            last_membership: stored_membership(&applied.members),
        },
        snapshot: (),
    }
}

impl<R: RowStore, M: StateMachine> RaftStateMachine<Types> for Machine<R, M> {
    type SnapshotData = ();
    type SnapshotBuilder = SyncedReport;

    async fn applied_state(&mut self) -> Result<(Option<LogIdT>, StoredMembershipT), io::Error> {
        let applied = self.rows.applied();
        Ok((applied.position.map(Into::into), stored_membership(&applied.members)))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            // The next entry sees this one's rows, so each has its own batch; none of them costs I/O.
            match self.apply_one(&entry) {
                Ok(replies) => {
                    if let Some(responder) = responder {
                        responder.send(replies);
                    }
                }
                Err(error) => {
                    self.stop.fail(format!("entry {} cannot be applied: {error}", entry.log_id));
                    return Err(io::Error::other(error));
                }
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SyncedReport> {
        if planted::is(planted::Bug::PurgePastSynced) {
            return Some(SyncedReport(self.rows.applied()));
        }
        self.progress.synced().map(SyncedReport)
    }

    async fn get_snapshot_builder(&mut self) -> SyncedReport {
        SyncedReport(self.progress.synced().unwrap_or_default())
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMetaOf<Types>, _data: ()) -> Result<(), io::Error> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a single voter has nobody to get a snapshot from"))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        let synced = self.progress.synced();
        Ok(synced.filter(|applied| applied.position.is_some()).map(|applied| report(&applied)))
    }
}
