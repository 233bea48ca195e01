//! The rows of one moment, read to their end however long that takes.

use lsm_tree::{AbstractTree, Guard, IterGuardImpl};
use namespace::RowsError;

use super::{LsmRows, unreadable};
use crate::rows::{Applied, RowStore, RowView};

type Tables = Box<dyn DoubleEndedIterator<Item = IterGuardImpl> + Send>;

/// Rows as they were after one batch, once through, in key order.
///
/// Unlike a view it is never ended: it keeps the tables of its moment, and one memtable. The tables stay on the disk
/// until it is dropped, so it is for one reader at a time who comes to an end.
pub struct FrozenRows {
    applied: Applied,
    rows: Tables,
}

impl FrozenRows {
    /// How far they are.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }
}

impl Iterator for FrozenRows {
    type Item = Result<(Vec<u8>, Vec<u8>), RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?.into_inner().map_err(unreadable);
        Some(row.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }
}

impl LsmRows {
    /// The rows of `from..to` after the last batch.
    pub fn freeze(&self, from: &[u8], to: &[u8]) -> Result<FrozenRows, RowsError> {
        loop {
            let view = self.view();
            let applied = Applied::read(&view);
            // It takes what it needs of the tree here; the view is needed only until then.
            let rows = self.tree.range(from..to, view.key.0, None);
            if !view.is_ended() {
                return Ok(FrozenRows { applied: applied?, rows });
            }
        }
    }
}
