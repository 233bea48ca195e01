//! The types that openraft is told to use, and their turn into ours. No other module's *formats* know openraft.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use namespace::Reply;
use openraft::{EmptyNode, EntryPayload, LogId, Membership, StoredMembership};

use crate::record::{Ballot, Payload, Position};
use crate::rows::Members;
use crate::runtime::Rt;

/// One entry's commands, encoded: what is logged is what is applied.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Arc<[u8]>);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of commands", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

openraft::declare_raft_types!(
    /// openraft's choices: terms alone order leaders, so that a log id is (term, index).
    pub Types:
        D = Proposal,
        R = Vec<Reply>,
        NodeId = u64,
        Node = EmptyNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Rt,
);

pub type LogIdT = openraft::alias::LogIdOf<Types>;
pub type EntryT = openraft::alias::EntryOf<Types>;
pub type VoteT = openraft::alias::VoteOf<Types>;
pub type StoredMembershipT = openraft::alias::StoredMembershipOf<Types>;

impl From<LogIdT> for Position {
    fn from(id: LogIdT) -> Position {
        Position { term: id.committed_leader_id().term, index: id.index() }
    }
}

impl From<Position> for LogIdT {
    fn from(position: Position) -> LogIdT {
        LogId::new_term_index(position.term, position.index)
    }
}

impl From<&VoteT> for Ballot {
    fn from(vote: &VoteT) -> Ballot {
        let leader = vote.leader_id();
        Ballot { term: leader.term, node: leader.voted_for, committed: vote.is_committed() }
    }
}

impl From<Ballot> for VoteT {
    fn from(ballot: Ballot) -> VoteT {
        if ballot.committed {
            VoteT::new_committed(ballot.term, ballot.node)
        } else {
            VoteT::new(ballot.term, ballot.node)
        }
    }
}

/// What an entry carries, in our terms.
pub fn payload_of(entry: &EntryT) -> Payload {
    match &entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(proposal) => Payload::Commands(proposal.0.clone()),
        EntryPayload::Membership(membership) => Payload::Members(members_of(membership, None)),
    }
}

/// The entry that a log record stands for.
pub fn entry_of(position: Position, payload: Payload) -> EntryT {
    let payload = match payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Commands(bytes) => EntryPayload::Normal(Proposal(bytes)),
        Payload::Members(members) => EntryPayload::Membership(membership_of(&members)),
    };
    EntryT { log_id: position.into(), payload }
}

fn members_of(membership: &Membership<u64, EmptyNode>, set_at: Option<Position>) -> Members {
    Members {
        set_at,
        configs: membership.get_joint_config().clone(),
        nodes: membership.nodes().map(|(id, _)| *id).collect(),
    }
}

fn membership_of(members: &Members) -> Membership<u64, EmptyNode> {
    let nodes: BTreeMap<u64, EmptyNode> = members.nodes.iter().map(|id| (*id, EmptyNode {})).collect();
    Membership::new_with_defaults(members.configs.clone(), nodes.into_keys())
}

/// Who votes, with where the log says so.
pub fn stored_membership(members: &Members) -> StoredMembershipT {
    StoredMembership::new(members.set_at.map(Into::into), membership_of(members))
}

/// The members that an entry at `position` sets, if it is such an entry.
pub fn members_set_by(entry: &EntryT) -> Option<Members> {
    match &entry.payload {
        EntryPayload::Membership(membership) => Some(members_of(membership, Some(entry.log_id.into()))),
        EntryPayload::Blank | EntryPayload::Normal(_) => None,
    }
}
