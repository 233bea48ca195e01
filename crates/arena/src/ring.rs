//! Where the entries of a journal lie.

use crate::layout::JOURNAL;

/// Where the first entry of a new journal lies: behind the page of the marks.
pub(crate) const RING_START: u64 = JOURNAL.0 + crate::layout::PAGE;
/// One past the last byte for entries.
pub(crate) const RING_END: u64 = JOURNAL.0 + JOURNAL.1;
/// Bytes behind the last entry that say that nothing follows.
pub(crate) const END: u64 = 8;

/// A ring: entries behind one another from `head` to `tail`, and behind them the end mark. No entry wraps; one that does
/// not fit before the ring's end lies at its start. Head and tail are the same place only while there is no entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ring {
    pub(crate) head: u64,
    pub(crate) tail: u64,
}

impl Ring {
    /// Where an entry of `size` bytes can be laid, if there is room. Nothing is taken until `tail` is moved behind it.
    pub(crate) fn place(&self, size: u64) -> Option<u64> {
        let needed = size + END;
        if self.tail < self.head {
            return (self.tail + needed <= self.head).then_some(self.tail);
        }
        if self.tail + needed <= RING_END {
            return Some(self.tail);
        }
        (RING_START + needed <= self.head).then_some(RING_START)
    }
}

#[cfg(test)]
mod tests {
    use super::{END, RING_END, RING_START, Ring};

    #[test]
    fn an_entry_never_wraps_and_never_reaches_the_head() {
        let (first, last) = (RING_START, RING_END);
        let place = |head, tail, size| Ring { head, tail }.place(size);
        assert_eq!(place(first, first, 100), Some(first));
        assert_eq!(place(first, last - 108, 100), Some(last - 108), "just before the end");
        assert_eq!(place(first, last - 107, 100), None, "the first entry is in its way");
        assert_eq!(place(first + 107, last - 100, 100), None);
        assert_eq!(place(first + 108, last - 100, 100), Some(first));
        assert_eq!(place(last - 100, last - 100, 100), Some(first), "an empty one");
        assert_eq!(place(first + 300, first + 100, 200 - END), Some(first + 100));
        assert_eq!(place(first + 300, first + 100, 201 - END), None, "head and tail would be one place");
    }
}
