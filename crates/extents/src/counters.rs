//! Extent counters of a session: which are handed out, and which are settled.

use std::collections::BTreeSet;

/// The largest counter that an extent id can carry.
const COUNTER_MAX: u64 = (1 << 48) - 1;

/// Counters in order, and those that somebody may still commit.
#[derive(Debug)]
pub(crate) struct Counters {
    next: u64,
    in_flight: BTreeSet<u64>,
}

impl Counters {
    /// Counters from `first` on.
    pub(crate) fn from(first: u64) -> Counters {
        assert!(first >= 1, "counters start at 1");
        Counters { next: first, in_flight: BTreeSet::new() }
    }

    /// The next counter, in flight from now on; `None` when 2^48 have been used.
    pub(crate) fn take(&mut self) -> Option<u64> {
        if self.next > COUNTER_MAX {
            return None;
        }
        let counter = self.next;
        self.next += 1;
        self.in_flight.insert(counter);
        Some(counter)
    }

    /// A counter is committed or given up for ever. Repeated, it has no effect.
    pub(crate) fn settle(&mut self, counter: u64) {
        assert!(counter < self.next, "an extent counter was settled before it was handed out");
        self.in_flight.remove(&counter);
    }

    /// Every counter below it is settled.
    pub(crate) fn settled(&self) -> u64 {
        self.in_flight.first().copied().unwrap_or(self.next)
    }

    /// How many are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{COUNTER_MAX, Counters};

    #[test]
    fn the_mark_is_the_smallest_in_flight() {
        let mut counters = Counters::from(1);
        assert_eq!(counters.settled(), 1);
        let taken: Vec<u64> = std::iter::from_fn(|| counters.take()).take(3).collect();
        assert_eq!(taken, [1, 2, 3]);
        counters.settle(2);
        assert_eq!((counters.settled(), counters.in_flight()), (1, 2));
        counters.settle(1);
        assert_eq!(counters.settled(), 3);
        counters.settle(3);
        counters.settle(3);
        assert_eq!((counters.settled(), counters.in_flight()), (4, 0));
    }

    #[test]
    fn counters_end_at_48_bits() {
        let mut counters = Counters::from(COUNTER_MAX);
        assert_eq!(counters.take(), Some(COUNTER_MAX));
        assert_eq!(counters.take(), None);
    }
}
