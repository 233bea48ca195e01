//! Changes that are not rows yet, laid over the rows, and taken back when a command fails.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::rows::{Batch, Rows, RowsError, Write};

/// Rows as they will be once the batch is in.
pub(crate) struct Overlay<'a> {
    rows: &'a dyn Rows,
    changes: BTreeMap<Vec<u8>, Write>,
    /// Since the last `settle`: keys with what `changes` had for them.
    undo: Vec<(Vec<u8>, Option<Write>)>,
    /// Nothing will be taken back.
    once: bool,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(rows: &'a dyn Rows) -> Overlay<'a> {
        Overlay { rows, changes: BTreeMap::new(), undo: Vec::new(), once: false }
    }

    /// For a single command, of which nothing is used if it fails.
    pub(crate) fn once(rows: &'a dyn Rows) -> Overlay<'a> {
        Overlay { once: true, ..Overlay::new(rows) }
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.change(key, Write::Put(value));
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.change(key, Write::Delete);
    }

    fn change(&mut self, key: Vec<u8>, write: Write) {
        if self.once {
            self.changes.insert(key, write);
            return;
        }
        let before = self.changes.insert(key.clone(), write);
        self.undo.push((key, before));
    }

    /// What was changed so far stays.
    pub(crate) fn settle(&mut self) {
        self.undo.clear();
    }

    /// What was changed since the last [`Overlay::settle`] is taken back.
    pub(crate) fn roll_back(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(write) => self.changes.insert(key, write),
                None => self.changes.remove(&key),
            };
        }
    }

    pub(crate) fn into_batch(self) -> Batch {
        self.changes.into_iter().collect()
    }
}

impl Rows for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        match self.changes.get(key) {
            Some(Write::Put(value)) => Ok(Some(value.clone())),
            Some(Write::Delete) => Ok(None),
            None => self.rows.get(key),
        }
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
        let range = self.changes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        let changes: Box<dyn Iterator<Item = (&Vec<u8>, &Write)>> =
            if backward { Box::new(range.rev()) } else { Box::new(range) };
        let mut changes = changes.peekable();
        let mut go_on = true;
        self.rows.scan(from, to, backward, &mut |key, value| {
            while go_on
                && let Some((changed, write)) = changes.next_if(|(changed, _)| {
                    changed.as_slice() != key && (changed.as_slice() < key) != backward
                })
            {
                if let Write::Put(value) = write {
                    go_on = each(changed, value);
                }
            }
            if !go_on {
                return false;
            }
            go_on = match changes.next_if(|(changed, _)| changed.as_slice() == key) {
                Some((_, Write::Put(value))) => each(key, value),
                Some((_, Write::Delete)) => true,
                None => each(key, value),
            };
            go_on
        })?;
        for (key, write) in changes {
            if !go_on {
                break;
            }
            if let Write::Put(value) = write {
                go_on = each(key, value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Overlay;
    use crate::memory::MemoryRows;
    use crate::rows::Rows;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::{any, prop, proptest};

    fn seen(rows: &dyn Rows, from: u8, to: u8, backward: bool, max: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut seen = Vec::new();
        rows.scan(&[from], &[to], backward, &mut |key, value| {
            seen.push((key.to_vec(), value.to_vec()));
            seen.len() < max
        })
        .unwrap();
        seen
    }

    proptest! {
        #[test]
        fn reads_through_an_overlay_are_those_of_the_rows_after_its_batch(
            base in prop::collection::vec((0u8..32, any::<u8>()), 0..20),
            kept in prop::collection::vec((0u8..32, any::<Option<u8>>()), 0..20),
            dropped in prop::collection::vec((0u8..32, any::<Option<u8>>()), 0..20),
            (from, to, max) in (0u8..32, 0u8..32, 1usize..8),
        ) {
            let mut rows = MemoryRows::default();
            for (key, value) in base {
                rows.0.insert(vec![key], vec![value]);
            }
            let before = rows.clone();
            let mut overlay = Overlay::new(&before);
            let change = |overlay: &mut Overlay<'_>, key: u8, value: Option<u8>| match value {
                Some(value) => overlay.put(vec![key], vec![value]),
                None => overlay.delete(vec![key]),
            };
            for (key, value) in kept {
                change(&mut overlay, key, value);
            }
            overlay.settle();
            for (key, value) in dropped {
                change(&mut overlay, key, value);
            }
            overlay.roll_back();
            let mut both = Vec::new();
            for backward in [false, true] {
                both.push(seen(&overlay, from, to, backward, max));
            }
            let batch = overlay.into_batch();
            assert!(batch.is_sorted_by(|a, b| a.0 < b.0));
            rows.commit(&batch);
            for (backward, through) in [false, true].into_iter().zip(both) {
                assert_eq!(through, seen(&rows, from, to, backward, max));
            }
        }
    }
}
