//! What a group's records say, taken in order.

use std::collections::VecDeque;

use super::{LogError, Recovered};
use crate::raft_types::{EntryT, entry_of};
use crate::record::{Ballot, Position, Record};

/// An entry that is in the log.
#[derive(Clone)]
pub(crate) struct Logged {
    pub(crate) entry: EntryT,
    /// Where its batch begins; `u64::MAX` until it is durable.
    pub(crate) lsn: u64,
    /// Bytes of its record.
    pub(crate) bytes: u64,
}

/// What the log holds of one group.
#[derive(Clone, Default)]
pub(crate) struct Contents {
    /// The last entry that is gone because the synced rows hold it.
    pub(crate) purged: Option<Position>,
    /// All entries behind `purged`, in order without a gap.
    pub(crate) entries: VecDeque<Logged>,
    pub(crate) vote: Option<Ballot>,
    /// Where the last durable vote was written.
    pub(crate) vote_lsn: Option<u64>,
    /// Where the mark of `purged` was written; `None` if there is none, or it is on its way.
    pub(crate) purge_lsn: Option<u64>,
}

impl Contents {
    /// The index of the next entry.
    pub(crate) fn next(&self) -> u64 {
        self.first() + self.entries.len() as u64
    }

    /// The index of the first entry that is or would be there.
    pub(crate) fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    /// The last entry, purged ones included.
    pub(crate) fn last(&self) -> Option<Position> {
        self.entries.back().map(|logged| logged.entry.log_id.into()).or(self.purged)
    }

    /// Drops what is behind `keep`.
    pub(crate) fn truncate(&mut self, keep: Option<Position>) {
        let first = self.first();
        let keep = keep.map_or(0, |keep| keep.index + 1);
        self.entries.truncate(keep.saturating_sub(first) as usize);
    }

    /// Drops what is up to `upto`.
    pub(crate) fn purge(&mut self, upto: Position) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        let gone = (upto.index + 1 - self.first()).min(self.entries.len() as u64);
        self.entries.drain(..gone as usize);
        self.purged = Some(upto);
    }

    /// The first place in the log that this group still needs.
    pub(crate) fn needed_from(&self) -> u64 {
        let entries = self.entries.front().map_or(u64::MAX, |logged| logged.lsn);
        entries.min(self.vote_lsn.unwrap_or(u64::MAX)).min(self.purge_lsn.unwrap_or(u64::MAX))
    }

    /// Takes the records of the log, in order. `group` is the only one that may occur.
    pub(crate) fn read(
        group: u32,
        records: impl IntoIterator<Item = Recovered>,
    ) -> Result<Contents, LogError> {
        let mut contents = Contents::default();
        // Where the group's oldest records were reused, entries begin anywhere: the purge mark that licensed it
        // stands further on. Entries below a mark are gone whatever is left of them.
        let mut early: VecDeque<Logged> = VecDeque::new();
        // Entries that a mark names and that are not there; a later mark may say that they were purged.
        let mut lost = None;
        for Recovered { lsn, kind, body } in records {
            let (of, record) =
                Record::decode(kind, &body).map_err(|source| LogError::Format { lsn, source })?;
            if of != group {
                return Err(LogError::Group { lsn, group: of });
            }
            match record {
                Record::Vote(vote) => {
                    contents.vote = Some(vote);
                    contents.vote_lsn = Some(lsn);
                }
                Record::Entry { position, payload } => {
                    let logged = Logged { entry: entry_of(position, payload), lsn, bytes: body.len() as u64 };
                    put(&mut early, logged, lsn)?;
                }
                Record::Truncate(keep) => {
                    let keep = keep.map_or(0, |keep| keep.index + 1);
                    while early.back().is_some_and(|logged| logged.entry.log_id.index >= keep) {
                        early.pop_back();
                    }
                }
                Record::Purge { upto, last } => {
                    let found = early.back().map_or(upto.index, |logged| logged.entry.log_id.index);
                    if found.max(upto.index) < last {
                        lost = Some((lsn, last, found));
                    }
                    while early.front().is_some_and(|logged| logged.entry.log_id.index <= upto.index) {
                        early.pop_front();
                    }
                    contents.purged = contents.purged.max(Some(upto));
                    contents.purge_lsn = Some(lsn);
                }
            }
        }
        if let Some((lsn, expected, found)) = lost
            && expected >= contents.first()
        {
            return Err(LogError::Lost { lsn, expected, found });
        }
        let lsn = early.front().map_or(0, |logged| logged.lsn);
        let (expected, found) = (contents.first(), early.front().map(|logged| logged.entry.log_id.index));
        if let Some(found) = found
            && found != expected
        {
            return Err(LogError::Gap { lsn, expected, found });
        }
        contents.entries = early;
        Ok(contents)
    }
}

/// Puts an entry behind the others, or in the place of the one with its index.
fn put(entries: &mut VecDeque<Logged>, logged: Logged, lsn: u64) -> Result<(), LogError> {
    let index = logged.entry.log_id.index;
    let Some(first) = entries.front().map(|first| first.entry.log_id.index) else {
        entries.push_back(logged);
        return Ok(());
    };
    let expected = first + entries.len() as u64;
    match index.checked_sub(first) {
        Some(at) if index < expected => entries[at as usize] = logged,
        Some(_) if index == expected => entries.push_back(logged),
        _ => return Err(LogError::Gap { lsn, expected, found: index }),
    }
    Ok(())
}
