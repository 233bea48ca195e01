//! Many ranges of a file in one extent: pure.

use std::ops::Range;

use namespace::{NewExtent, Segment};
use types::EXTENT_MAX;

/// Ascending ranges of at most an extent each, together where they fit into one. An extent of its own costs a page
/// that is written alone as much again for its header, an entry in a disk's index, and a row.
pub(crate) fn packs(ranges: &[Range<u64>]) -> Vec<Vec<Range<u64>>> {
    let mut packs: Vec<Vec<Range<u64>>> = Vec::new();
    let mut room = 0;
    for range in ranges {
        let len = range.end - range.start;
        match packs.last_mut() {
            Some(pack) if len <= room => pack.push(range.clone()),
            _ => {
                packs.push(vec![range.clone()]);
                room = EXTENT_MAX;
            }
        }
        room = room.saturating_sub(len);
    }
    packs
}

/// What becomes of ranges whose bytes, one behind the other, lie in these extents. Neighbours stay one where an extent
/// holds both.
pub(crate) fn segments(ranges: &[Range<u64>], extents: &[NewExtent]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let (mut extents, mut offset) = (extents.iter(), 0);
    let mut current = extents.next();
    for range in ranges {
        let mut start = range.start;
        while start < range.end {
            let Some(extent) = current else { return segments };
            let left = u64::from(extent.plain_len - offset);
            // It is not more than is left of an extent, whose length has 32 bits.
            let len = left.min(range.end - start) as u32;
            match segments.last_mut() {
                Some(last) if last.extent == extent.id && last.start + u64::from(last.len) == start => {
                    last.len += len;
                }
                _ => segments.push(Segment { start, len, extent: extent.id, offset }),
            }
            start += u64::from(len);
            offset += len;
            if offset == extent.plain_len {
                (current, offset) = (extents.next(), 0);
            }
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use namespace::{NewExtent, Segment};
    use types::{EXTENT_MAX, ExtentId, GroupId, LayoutId, SessionId, VolumeId};

    use super::{packs, segments};

    fn extent(counter: u64, len: u32) -> NewExtent {
        NewExtent {
            id: ExtentId { volume: VolumeId(1), session: SessionId(1), counter },
            group: GroupId(1),
            layout: LayoutId(0),
            codec: 0,
            plain_len: len,
            stored_len: len,
            content_crc: 0,
        }
    }

    #[test]
    fn small_ranges_share_and_large_ones_stay_alone() {
        let whole = |n: u64| n * EXTENT_MAX..(n + 1) * EXTENT_MAX;
        let page = |n: u64| n * 8192..n * 8192 + 4096;
        assert_eq!(packs(&[whole(0), whole(1)]), [vec![whole(0)], vec![whole(1)]]);
        let pages: Vec<_> = (0..300).map(page).collect();
        let packed = packs(&pages);
        assert_eq!(packed.iter().map(Vec::len).collect::<Vec<_>>(), [256, 44]);
        assert!(packed.concat() == pages);
        let mixed = [page(0), whole(1), page(300), page(301)];
        assert_eq!(packs(&mixed).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2]);
        assert!(packs(&[]).is_empty());
    }

    #[test]
    fn segments_follow_the_bytes_through_the_extents() {
        let (one, two) = (extent(1, 5000), extent(2, 3000));
        let found = segments(&[0..4000, 4000..4100, 9000..12_900], &[one.clone(), two.clone()]);
        let at = |start, len, extent: &NewExtent, offset| Segment { start, len, extent: extent.id, offset };
        assert_eq!(found, [at(0, 4100, &one, 0), at(9000, 900, &one, 4100), at(9900, 3000, &two, 0)]);
    }
}
