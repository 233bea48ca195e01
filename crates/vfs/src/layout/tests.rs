#![allow(clippy::single_range_in_vec_init)] // a list of one range is meant where it stands

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::proptest;
use types::{BLOCK, EXTENT_MAX, Grant};

use super::{BATCH_BYTES, BATCH_RECORDS, Dirty, batch, block_bytes, extents, gaps, union};

fn writes(count: usize, len: u64) -> Vec<Dirty> {
    (0..count as u64).map(|n| Dirty { range: n * len..(n + 1) * len, grant: Grant(1) }).collect()
}

#[test]
fn a_batch_is_bounded_and_of_one_grant() {
    assert_eq!(batch(&writes(5, 100)), 5);
    assert_eq!(batch(&writes(1000, 10)), BATCH_RECORDS);
    let stream = writes(200, 128 << 10);
    assert_eq!(batch(&stream) as u64 * (128 << 10), BATCH_BYTES, "a stream is cut where an extent ends");
    let shifted: Vec<Dirty> = stream[3..].to_vec();
    let cut = batch(&shifted);
    assert!(shifted[cut - 1].range.end.is_multiple_of(EXTENT_MAX), "{:?}", shifted[cut - 1]);
    let mut two = writes(9, 10);
    two[4..].iter_mut().for_each(|write| write.grant = Grant(2));
    assert_eq!(batch(&two), 4);
    assert_eq!(batch(&writes(1, 9 * EXTENT_MAX)), 1, "one at least, however large");
}

#[test]
fn extents_are_whole_blocks_up_to_the_end_of_the_file() {
    let mib = EXTENT_MAX;
    type Ranges<'a> = &'a [Range<u64>];
    let cases: [(Ranges<'_>, u64, u64, Ranges<'_>); 6] = [
        (&[100..200], 10_000, 0, &[0..4096]),
        (&[9_000..9_500], 9_500, 0, &[8192..9500]),
        (&[0..10, 8000..8200], 20_000, 0, &[0..4096, 4096..12_288]),
        (&[4000..4001], 8000, 3000, &[0..4096]),
        (&[10..11], 8000, 3000, &[0..4096]),
        (&[mib - 1..2 * mib + 1], 3 * mib, 0, &[mib - 4096..mib, mib..2 * mib, 2 * mib..2 * mib + 4096]),
    ];
    for (dirty, size, whole, expect) in cases {
        let joined: Vec<Range<u64>> = union(extents(dirty, size, whole));
        assert_eq!(joined, union(expect.to_vec()), "{dirty:?} of {size}");
        for extent in extents(dirty, size, whole) {
            assert!(extent.start.is_multiple_of(BLOCK) && extent.end - extent.start <= mib);
            assert_eq!(extent.start / mib, (extent.end - 1) / mib);
        }
    }
}

#[test]
fn gaps_are_what_no_range_covers() {
    assert_eq!(gaps(&(0..10), &[]), [0..10]);
    assert_eq!(gaps(&(0..10), &[0..10]), []);
    assert_eq!(gaps(&(5..20), &[0..6, 8..10, 19..30, 40..50]), [6..8, 10..19]);
}

#[test]
fn blocks_of_a_range() {
    assert_eq!(block_bytes(&(0..1)), BLOCK);
    assert_eq!(block_bytes(&(4095..4097)), 2 * BLOCK);
    assert_eq!(block_bytes(&(4096..8192)), BLOCK);
}

proptest! {
    #[test]
    fn nothing_dirty_is_left_out(
        ranges in vec((0_u64..3 << 20, 1_u64..300_000), 1..20),
        whole in 0_u64..4096,
    ) {
        let ranges: Vec<Range<u64>> = ranges.into_iter().map(|(start, len)| start..start + len).collect();
        let dirty = union(ranges.clone());
        let size = ranges.iter().map(|range| range.end).max().unwrap_or(0).max(4097);
        let extents = extents(&dirty, size, whole);
        for pair in extents.windows(2) {
            assert!(pair[0].end <= pair[1].start, "{extents:?}");
        }
        let covered = union(extents.clone());
        for range in &ranges {
            assert_eq!(gaps(range, &covered), [], "{range:?} in {covered:?}");
        }
        for extent in &extents {
            assert!(extent.end.is_multiple_of(BLOCK) || extent.end == size, "{extent:?} of {size}");
            let gap: u64 = gaps(extent, &dirty).iter().map(|gap| gap.end - gap.start).sum();
            assert!(gap < extent.end - extent.start, "an extent without anything dirty: {extent:?}");
        }
        if ranges.iter().any(|range| range.start < whole) {
            assert_eq!(gaps(&(0..whole), &covered), [], "the inline bytes go together");
        }
    }
}
