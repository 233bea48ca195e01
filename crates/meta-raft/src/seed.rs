//! A group whose rows come from elsewhere: from a backup.

use std::collections::BTreeSet;

use crate::log::{JournalLog, LogBackend, LogError};
use crate::partition::NODE;
use crate::record::{Ballot, Position, Record};
use crate::rows::{Applied, Members};

/// What rows say that hold all up to `position`, in a group whose only voter is this node.
pub fn seeded(position: Position) -> Applied {
    let voters = BTreeSet::from([NODE]);
    let members = Members { set_at: Some(position), configs: vec![voters.clone()], nodes: voters };
    Applied { position: Some(position), members }
}

/// Writes into an empty log that everything up to `position` is in the rows and gone. Durable on return.
///
/// What the group decided behind `position` before is forgotten, so it goes on in a later term than that one.
pub async fn seed_log(log: &mut JournalLog, group: u32, position: Position) -> Result<(), LogError> {
    let vote = Record::Vote(Ballot { term: position.term + 1, node: NODE, committed: false });
    let purge = Record::Purge { upto: position, last: position.index };
    log.append(vec![vote.encode(group), purge.encode(group)]).await.map(|_| ())
}
