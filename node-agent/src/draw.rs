//! Which disks share a placement group.

use store::DiskId;

/// More groups than this are not drawn as every combination.
const COMBINATIONS_MAX: usize = 64;

/// The groups of `copies` distinct disks that there should be over `disks`; none if there are too few.
///
/// Every combination while those are few: writers choose the emptiest group, so disks of any sizes fill up evenly. With
/// many disks, runs of neighbours in the order of their ids, around: each disk is in as many groups as it has copies.
pub(crate) fn groups(disks: &[DiskId], copies: usize) -> Vec<Vec<DiskId>> {
    let mut disks = disks.to_vec();
    disks.sort_unstable();
    if copies == 0 || disks.len() < copies {
        return Vec::new();
    }
    let all = combinations(&disks, copies, COMBINATIONS_MAX);
    if all.len() <= COMBINATIONS_MAX {
        return all;
    }
    let run = |from: usize| (from..from + copies).map(|at| disks[at % disks.len()]).collect();
    (0..disks.len()).map(run).collect()
}

/// The combinations of `copies` disks, in order; given up soon when they are more than `max`.
fn combinations(disks: &[DiskId], copies: usize, max: usize) -> Vec<Vec<DiskId>> {
    if copies == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (at, first) in disks.iter().enumerate() {
        for mut rest in combinations(&disks[at + 1..], copies - 1, max) {
            rest.insert(0, *first);
            all.push(rest);
        }
        if all.len() > max {
            break;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use store::DiskId;

    use super::{COMBINATIONS_MAX, groups};

    #[test]
    fn groups_are_of_distinct_disks_and_every_disk_is_in_one() {
        for count in 0..40_u8 {
            let disks: Vec<DiskId> = (0..count).map(|n| DiskId([n; 16])).collect();
            for copies in 1..5 {
                let drawn = groups(&disks, copies);
                assert_eq!(drawn.is_empty(), disks.len() < copies, "{copies} of {count}");
                assert!(drawn.len() <= COMBINATIONS_MAX);
                let distinct = |group: &Vec<DiskId>| group.iter().collect::<BTreeSet<_>>().len() == copies;
                assert!(drawn.iter().all(distinct), "{drawn:?}");
                let sets: BTreeSet<BTreeSet<&DiskId>> =
                    drawn.iter().map(|group| group.iter().collect()).collect();
                assert_eq!(sets.len(), drawn.len(), "none twice");
                let used: BTreeSet<&DiskId> = drawn.iter().flatten().collect();
                assert_eq!(used.len(), if drawn.is_empty() { 0 } else { disks.len() });
            }
        }
        let three: Vec<DiskId> = (0..3).map(|n| DiskId([n; 16])).collect();
        assert_eq!(groups(&three, 2).len(), 3);
    }
}
