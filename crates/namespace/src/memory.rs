//! Rows in memory: for tests, here and in the crates above.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::rows::{Batch, Rows, RowsError, Write};

/// An ordered map that is [`Rows`].
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MemoryRows(pub BTreeMap<Vec<u8>, Vec<u8>>);

impl MemoryRows {
    /// Makes the changes of a batch.
    pub fn commit(&mut self, batch: &Batch) {
        for (key, write) in batch {
            match write {
                Write::Put(value) => self.0.insert(key.clone(), value.clone()),
                Write::Delete => self.0.remove(key),
            };
        }
    }
}

impl Rows for MemoryRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        backward: bool,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        if from >= to {
            return Ok(());
        }
        let mut range = self.0.range(from.to_vec()..to.to_vec());
        while let Some((key, value)) = if backward { range.next_back() } else { range.next() } {
            if !each(key, value) {
                break;
            }
        }
        Ok(())
    }
}
