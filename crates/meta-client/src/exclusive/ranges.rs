//! Ranges of keys about which everything is known.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Ranges that do not touch: each ends before the next begins.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<Vec<u8>, Vec<u8>>);

impl Ranges {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The end of the range that `key` lies in.
    pub(super) fn end_of(&self, key: &[u8]) -> Option<&[u8]> {
        let (_, end) = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        (key < end.as_slice()).then_some(end)
    }

    /// Whether `key` lies in one.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.end_of(key).is_some()
    }

    /// Adds `from..to`, and joins it with those that it touches.
    pub(super) fn add(&mut self, from: &[u8], to: &[u8]) {
        if from >= to {
            return;
        }
        let (mut from, mut to) = (from.to_vec(), to.to_vec());
        // From the last that begins at or before the end, backwards to the first that reaches the beginning.
        while let Some((start, end)) =
            self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(to.as_slice()))).next_back()
        {
            if *end < from {
                break;
            }
            let (start, end) = (start.clone(), end.clone());
            self.0.remove(&start);
            from = from.min(start);
            to = to.max(end);
        }
        self.0.insert(from, to);
    }

    /// Adds a single key.
    pub(super) fn add_one(&mut self, key: &[u8]) {
        let mut after = key.to_vec();
        after.push(0);
        self.add(key, &after);
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;

    /// Against a set of single keys, over many orders of adding.
    #[test]
    fn ranges_hold_what_was_added_and_nothing_else() {
        let mut seed = 7_u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..300 {
            let (mut ranges, mut keys) = (Ranges::default(), [false; 40]);
            for _ in 0..next(12) {
                let (from, to) = (next(40) as u8, next(40) as u8);
                ranges.add(&[from], &[to]);
                for key in from..to {
                    keys[usize::from(key)] = true;
                }
            }
            for key in 0..40_u8 {
                assert_eq!(ranges.has(&[key]), keys[usize::from(key)]);
                if keys[usize::from(key)] {
                    let end = keys[usize::from(key)..].iter().position(|known| !known);
                    let end = end.map_or(40, |run| key + run as u8);
                    assert_eq!(ranges.end_of(&[key]), Some(&[end][..]));
                }
            }
        }
    }
}
