//! The border to the rows: views that stand still, batches that are atomic, and a sync on its own beat.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use namespace::{Batch, Rows, RowsError, Write};

use crate::record::Position;

/// Key of the row that says how far the log is applied (docs/FORMATS/raft-log.md, "Rows of table 0").
pub(crate) const APPLIED_KEY: [u8; 6] = *b"\0\0\0\0\0A";

/// Key of the row that says who votes.
pub(crate) const MEMBERS_KEY: [u8; 6] = *b"\0\0\0\0\0M";

/// Key of the row that says which log the rows belong to.
pub(crate) const LOG_KEY: [u8; 6] = *b"\0\0\0\0\0L";

/// The version that rows of table 0 begin with.
const VERSION: u8 = 1;

/// Bytes that are not what this program writes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// It ends too early.
    #[error("a {what} is too short")]
    Short {
        /// What.
        what: &'static str,
    },
    /// A reserved field is not zero.
    #[error("a reserved field of a {what} is not zero")]
    Reserved {
        /// Of what.
        what: &'static str,
    },
    /// A kind or version that this program does not know.
    #[error("a {what} of kind {kind:#x} is from another version")]
    Unknown {
        /// What.
        what: &'static str,
        /// Its kind.
        kind: u32,
    },
}

/// Who votes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members {
    /// Where the log says so; `None` in the log itself and before the first.
    pub set_at: Option<Position>,
    /// The voters; two sets while they change.
    pub configs: Vec<BTreeSet<u64>>,
    /// Voters and learners.
    pub nodes: BTreeSet<u64>,
}

impl Members {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, u8::from(self.set_at.is_some()), 0, 0, 0, 0, 0, 0];
        let at = self.set_at.unwrap_or(Position { term: 0, index: 0 });
        bytes.extend_from_slice(&at.term.to_le_bytes());
        bytes.extend_from_slice(&at.index.to_le_bytes());
        bytes.extend_from_slice(&(self.configs.len() as u16).to_le_bytes());
        for set in self.configs.iter().chain([&self.nodes]) {
            bytes.extend_from_slice(&(set.len() as u16).to_le_bytes());
            for id in set {
                bytes.extend_from_slice(&id.to_le_bytes());
            }
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Members, FormatError> {
        const WHAT: &str = "list of members";
        let mut rest = bytes;
        let mut take = |len: usize| {
            let (head, tail) = rest.split_at_checked(len).ok_or(FormatError::Short { what: WHAT })?;
            rest = tail;
            let mut number = [0; 8];
            number[..len].copy_from_slice(head);
            Ok::<u64, FormatError>(u64::from_le_bytes(number))
        };
        let (version, some, reserved) = (take(1)?, take(1)?, take(6)?);
        if version != u64::from(VERSION) {
            return Err(FormatError::Unknown { what: WHAT, kind: version as u32 });
        }
        if some > 1 || reserved != 0 {
            return Err(FormatError::Reserved { what: WHAT });
        }
        let at = Position { term: take(8)?, index: take(8)? };
        let mut sets = Vec::new();
        for _ in 0..take(2)? + 1 {
            let len = take(2)?;
            sets.push((0..len).map(|_| take(8)).collect::<Result<BTreeSet<u64>, _>>()?);
        }
        if !rest.is_empty() {
            return Err(FormatError::Reserved { what: WHAT });
        }
        let nodes = sets.pop().unwrap_or_default();
        Ok(Members { set_at: (some == 1).then_some(at), configs: sets, nodes })
    }
}

/// How far rows are: everything up to a place in the log is in them, and nothing behind it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// The last applied entry; `None` before the first.
    pub position: Option<Position>,
    /// Who votes, by these rows.
    pub members: Members,
}

impl Applied {
    /// Adds to `batch` the rows of table 0 that make it a batch up to `self`; `before` is what the rows say now.
    pub(crate) fn add_to(&self, batch: &mut Batch, before: &Applied) {
        let mut rows = Vec::with_capacity(2);
        if let Some(position) = self.position {
            let mut value = vec![VERSION, 0, 0, 0, 0, 0, 0, 0];
            value.extend_from_slice(&position.term.to_le_bytes());
            value.extend_from_slice(&position.index.to_le_bytes());
            rows.push((APPLIED_KEY.to_vec(), Write::Put(value)));
        }
        if self.members != before.members {
            rows.push((MEMBERS_KEY.to_vec(), Write::Put(self.members.encode())));
        }
        // Table 0 sorts before every other, so the batch stays in key order.
        batch.splice(0..0, rows);
    }

    /// What `rows` say.
    pub(crate) fn read(rows: &dyn Rows) -> Result<Applied, RowsError> {
        let damaged = |error: FormatError| RowsError(format!("table 0: {error}"));
        let position = match rows.get(&APPLIED_KEY)? {
            None => None,
            Some(value) => {
                let bytes: [u8; 24] =
                    value.try_into().map_err(|_| damaged(FormatError::Short { what: "applied row" }))?;
                if bytes[..8] != [VERSION, 0, 0, 0, 0, 0, 0, 0] {
                    return Err(damaged(FormatError::Unknown {
                        what: "applied row",
                        kind: u32::from(bytes[0]),
                    }));
                }
                let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
                Some(Position { term: number(8), index: number(16) })
            }
        };
        let members = match rows.get(&MEMBERS_KEY)? {
            None => Members::default(),
            Some(value) => Members::decode(&value).map_err(damaged)?,
        };
        Ok(Applied { position, members })
    }
}

/// Why rows could not be made durable. What of them is on the disk is unknown: the store must not be used any more.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The filesystem failed.
    #[error("writing rows below {path} failed: {source}")]
    Io {
        /// The store's folder.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// Rows that were read for it are damaged.
    #[error("rows below {path} are damaged: {detail}")]
    Damaged {
        /// The store's folder.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// An earlier sync failed.
    #[error("an earlier sync of the rows failed")]
    Poisoned,
    /// A simulated power cut.
    #[error("the simulated machine is off")]
    Off,
}

/// Rows as they were after one batch.
pub trait RowView: Rows + Send + Sync + 'static {
    /// It lived for so long that the store gave it up: what it refused since can be asked of a new one.
    fn is_ended(&self) -> bool;
}

/// Ordered rows that change by whole batches.
///
/// A batch is memory until a sync; a crash loses the batches since the last one, whole and from the end. Raft's log
/// holds them, so nothing else needs to.
pub trait RowStore: Send + Sync + 'static {
    /// Rows as they were after one batch, for as long as it lives.
    type View: RowView;

    /// The rows after the last batch.
    fn view(&self) -> Self::View;

    /// How far the rows are: what [`RowStore::commit`] was last told, or what was on the disk.
    fn applied(&self) -> Applied;

    /// Changes rows, all at once for every view taken later. `applied` becomes theirs in the same batch.
    /// Not durable on return.
    fn commit(&self, batch: Batch, applied: Applied) -> Result<(), RowsError>;

    /// Makes every batch that was committed before the call durable, and answers how far that is. Blocks on the disk;
    /// commits and views go on meanwhile. After an error the store must be given up.
    fn sync(&self) -> Result<Applied, SyncError>;

    /// Bytes of changes that no sync has covered yet, about.
    fn unsynced_bytes(&self) -> u64;
}
