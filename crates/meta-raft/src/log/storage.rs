//! The log of one group, as openraft asks for it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use tokio::sync::{mpsc, oneshot};

use super::recover::{Contents, Logged};
use super::writer::{Done, Job, LogShared};
use crate::raft_types::{EntryT, LogIdT, Types, VoteT, payload_of};
use crate::record::{Position, Record};

/// The most entries that one read for replication answers.
const READ_ENTRIES: usize = 64;

/// The most bytes that one read for replication answers, but for a single entry.
const READ_BYTES: u64 = 1 << 20;

/// The log of one group.
#[derive(Clone)]
pub(crate) struct GroupLog {
    pub(crate) shared: Arc<LogShared>,
    pub(crate) queue: mpsc::Sender<Job>,
}

impl GroupLog {
    async fn send(&self, records: Vec<Record>, done: Done) -> io::Result<()> {
        let sent = self.queue.send(Job { records, done }).await;
        sent.map_err(|_| io::Error::other("the log has stopped"))
    }

    /// Queues records and waits until they are durable.
    async fn write(&self, records: Vec<Record>) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        self.send(records, Done::Waiter(done)).await?;
        durable.await.map_err(|_| io::Error::other("the log has stopped"))?
    }

    /// Writes the marks anew and frees all before them that is not needed. Not durable on return.
    pub(crate) async fn tidy(&self) -> io::Result<()> {
        let records = marks(&self.shared.contents());
        self.send(records, Done::Free).await
    }

    fn range(&self, range: impl RangeBounds<u64>, max: usize, max_bytes: u64) -> Vec<EntryT> {
        let contents = self.shared.contents();
        let first = contents.first();
        let from = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(at) => at + 1,
            Bound::Excluded(at) => *at,
            Bound::Unbounded => u64::MAX,
        };
        let from = (from.max(first) - first).min(contents.entries.len() as u64) as usize;
        let to = to.saturating_sub(first).min(contents.entries.len() as u64) as usize;
        let mut bytes = 0;
        let mut entries = Vec::with_capacity(to.saturating_sub(from).min(max));
        for logged in contents.entries.range(from..to.max(from)).take(max) {
            bytes += logged.bytes;
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(logged.entry.clone());
        }
        entries
    }
}

/// What is still to be known when everything before these records is freed: the purge, and the vote.
fn marks(contents: &Contents) -> Vec<Record> {
    let last = contents.last().map_or(0, |last| last.index);
    let purge = contents.purged.map(|upto| Record::Purge { upto, last });
    purge.into_iter().chain(contents.vote.map(Record::Vote)).collect()
}

impl RaftLogReader<Types> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<EntryT>, io::Error> {
        Ok(self.range(range, usize::MAX, u64::MAX))
    }

    async fn read_vote(&mut self) -> Result<Option<VoteT>, io::Error> {
        Ok(self.shared.contents().vote.map(Into::into))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<EntryT>, io::Error> {
        Ok(self.range(start..end, READ_ENTRIES, READ_BYTES))
    }
}

impl RaftLogStorage<Types> for GroupLog {
    type LogReader = GroupLog;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let contents = self.shared.contents();
        Ok(LogState {
            last_purged_log_id: contents.purged.map(Into::into),
            last_log_id: contents.last().map(Into::into),
        })
    }

    async fn get_log_reader(&mut self) -> GroupLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteT) -> Result<(), io::Error> {
        let ballot = vote.into();
        // `vote_lsn` stays at the older vote until this one is durable.
        self.shared.contents().vote = Some(ballot);
        self.write(vec![Record::Vote(ballot)]).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryT> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        {
            let mut contents = self.shared.contents();
            for entry in entries {
                let expected = contents.next();
                assert!(entry.log_id.index == expected, "openraft appends behind the last entry");
                let payload = payload_of(&entry);
                let record = Record::Entry { position: entry.log_id.into(), payload };
                contents.entries.push_back(Logged { entry, lsn: u64::MAX, bytes: record.bytes() });
                records.push(record);
            }
        }
        self.send(records, Done::Flushed(callback)).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdT>) -> Result<(), io::Error> {
        let keep = last_log_id.map(Position::from);
        self.shared.contents().truncate(keep);
        self.write(vec![Record::Truncate(keep)]).await
    }

    /// Not durable on return: until the mark is, the entries are still there.
    async fn purge(&mut self, log_id: LogIdT) -> Result<(), io::Error> {
        let upto = Position::from(log_id);
        self.shared.purges.fetch_add(1, Ordering::Relaxed);
        let records = {
            let mut contents = self.shared.contents();
            contents.purge(upto);
            contents.purge_lsn = None;
            marks(&contents)
        };
        self.send(records, Done::Free).await
    }
}
