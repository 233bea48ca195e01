//! The records that Raft puts into its log, as bytes (docs/FORMATS/raft-log.md).

use std::sync::Arc;

use crate::rows::{FormatError, Members};

/// A place in the log of a group. Orders by term first, as Raft compares logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// The term of the leader that wrote it.
    pub term: u64,
    /// Its number; consecutive, the first is 0.
    pub index: u64,
}

/// Whom a voter has chosen in a term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ballot {
    /// The term.
    pub term: u64,
    /// The node that the vote is for.
    pub node: u64,
    /// The node leads: a quorum has voted for it.
    pub committed: bool,
}

/// What an entry of the log carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Nothing: a leader's first entry.
    Blank,
    /// Commands, as `namespace` encodes them.
    Commands(Arc<[u8]>),
    /// Who votes from here on.
    Members(Members),
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// An entry. At an index that exists already it takes that one's place.
    Entry {
        /// Where it belongs.
        position: Position,
        /// What it carries.
        payload: Payload,
    },
    /// The voter's latest choice.
    Vote(Ballot),
    /// Entries behind this position, or all if there is none, are void.
    Truncate(Option<Position>),
    /// Entries are gone because the synced rows hold them.
    Purge {
        /// Up to this one.
        upto: Position,
        /// The index of the last entry that was written before this record: without it, entries between that were
        /// lost with all before them would pass for purged ones.
        last: u64,
    },
}

/// The type of entries.
pub(crate) const ENTRY: u16 = 1;
const VOTE: u16 = 2;
const TRUNCATE: u16 = 3;
const PURGE: u16 = 4;

/// Bytes of a record's body before an entry's payload.
pub(crate) const HEAD: usize = 24;

impl Record {
    /// Bytes of the record's body.
    pub fn bytes(&self) -> u64 {
        let payload = match self {
            Record::Entry { payload: Payload::Commands(bytes), .. } => bytes.len(),
            Record::Entry { payload: Payload::Members(members), .. } => members.encode().len(),
            Record::Purge { .. } => 8,
            _ => 0,
        };
        (HEAD + payload) as u64
    }

    /// The record's type and body, for `group`.
    pub fn encode(&self, group: u32) -> (u16, Vec<u8>) {
        let (kind, tag, first, second, tail): (u16, u8, u64, u64, &[u8]) = match self {
            Record::Entry { position, payload: Payload::Blank } => {
                (ENTRY, 0, position.term, position.index, &[])
            }
            Record::Entry { position, payload: Payload::Commands(bytes) } => {
                (ENTRY, 1, position.term, position.index, bytes)
            }
            Record::Entry { position, payload: Payload::Members(members) } => {
                (ENTRY, 2, position.term, position.index, &members.encode())
            }
            Record::Vote(ballot) => (VOTE, u8::from(ballot.committed), ballot.term, ballot.node, &[]),
            Record::Truncate(None) => (TRUNCATE, 0, 0, 0, &[]),
            Record::Truncate(Some(keep)) => (TRUNCATE, 1, keep.term, keep.index, &[]),
            Record::Purge { upto, last } => (PURGE, 0, upto.term, upto.index, &last.to_le_bytes()),
        };
        let mut body = Vec::with_capacity(HEAD + tail.len());
        body.extend_from_slice(&group.to_le_bytes());
        body.extend_from_slice(&[tag, 0, 0, 0]);
        body.extend_from_slice(&first.to_le_bytes());
        body.extend_from_slice(&second.to_le_bytes());
        body.extend_from_slice(tail);
        (kind, body)
    }

    /// The group and the record that `kind` and `body` stand for.
    pub fn decode(kind: u16, body: &[u8]) -> Result<(u32, Record), FormatError> {
        let (head, tail) = body.split_at_checked(HEAD).ok_or(FormatError::Short { what: "log record" })?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let group = u32::from_le_bytes(std::array::from_fn(|i| head[i]));
        let (tag, first, second) = (head[4], number(8), number(16));
        let position = Position { term: first, index: second };
        if head[5..8] != [0; 3] || (kind != ENTRY && kind != PURGE && !tail.is_empty()) {
            return Err(FormatError::Reserved { what: "log record" });
        }
        let record = match (kind, tag) {
            (ENTRY, 0) if tail.is_empty() => Record::Entry { position, payload: Payload::Blank },
            (ENTRY, 1) => Record::Entry { position, payload: Payload::Commands(tail.into()) },
            (ENTRY, 2) => Record::Entry { position, payload: Payload::Members(Members::decode(tail)?) },
            (VOTE, 0 | 1) => Record::Vote(Ballot { term: first, node: second, committed: tag == 1 }),
            (TRUNCATE, 0) if (first, second) == (0, 0) => Record::Truncate(None),
            (TRUNCATE, 1) => Record::Truncate(Some(position)),
            (PURGE, 0) => {
                let last = tail.try_into().map_err(|_| FormatError::Short { what: "log record" })?;
                Record::Purge { upto: position, last: u64::from_le_bytes(last) }
            }
            _ => {
                return Err(FormatError::Unknown {
                    what: "log record",
                    kind: u32::from(kind) << 8 | u32::from(tag),
                });
            }
        };
        Ok((group, record))
    }
}

#[cfg(test)]
mod tests;
