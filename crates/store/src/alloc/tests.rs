use super::Allocator;
use crate::index::Run;
use proptest::collection::vec;
use proptest::prelude::{any, proptest};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

proptest! {
    #[test]
    fn runs_never_overlap_and_counts_agree(
        blocks in 1..700_u64,
        shard_blocks in 1..300_u64,
        ops in vec((any::<bool>(), 1..40_u32, any::<usize>()), 1..200),
    ) {
        let allocator = Allocator::new(blocks, shard_blocks, 0);
        let mut taken = vec![false; blocks as usize];
        let mut runs: Vec<Run> = Vec::new();
        for (claim, len, which) in ops {
            if claim {
                if let Some(block) = allocator.claim(len) {
                    for at in block..block + u64::from(len) {
                        assert!(!std::mem::replace(&mut taken[at as usize], true), "block {at} twice");
                    }
                    runs.push(Run { block, blocks: len });
                } else {
                    // It may only fail if no shard has such a run.
                    let size = (shard_blocks.div_ceil(64) * 64) as usize;
                    for shard in taken.chunks(size) {
                        let longest = shard.split(|t| *t).map(<[bool]>::len).max().unwrap_or(0);
                        assert!(longest < len as usize, "a run of {longest} is free, {len} were asked for");
                    }
                }
            } else if !runs.is_empty() {
                let run = runs.swap_remove(which % runs.len());
                allocator.free_run(run);
                taken[run.block as usize..][..run.blocks as usize].fill(false);
            }
            assert_eq!(allocator.used(), taken.iter().filter(|t| **t).count() as u64);
        }
        // The same from the runs alone, as an open does it.
        let rebuilt = Allocator::new(blocks, shard_blocks, 0);
        assert!(runs.iter().all(|run| rebuilt.mark(*run)));
        assert!(runs.iter().all(|run| !rebuilt.mark(*run)), "a run can be marked only once");
        assert!(runs.iter().all(|run| rebuilt.is_taken(*run)));
        assert_eq!(rebuilt.used(), allocator.used());
        for run in runs {
            rebuilt.free_run(run);
        }
        assert_eq!(rebuilt.used(), 0);
    }
}

#[test]
fn a_run_out_of_the_region_is_not_marked() {
    let allocator = Allocator::new(100, 64, 0);
    for run in [Run { block: 99, blocks: 2 }, Run { block: u64::MAX, blocks: 2 }] {
        assert!(!allocator.mark(run), "{run:?}");
    }
    assert!(allocator.mark(Run { block: 98, blocks: 2 }));
    assert_eq!(allocator.used(), 2);
}

#[test]
fn the_reserve_is_never_handed_out() {
    let allocator = Allocator::new(100, 64, 5);
    assert_eq!(allocator.free(), 95);
    let claimed = std::iter::from_fn(|| allocator.claim(1)).count();
    assert_eq!((claimed, allocator.free(), allocator.used()), (95, 0, 95));
}

#[test]
fn small_and_large_runs_lie_in_different_shards() {
    let allocator = Allocator::new(16 * 1024, 1024, 0);
    let small = allocator.claim(2).expect("room");
    let large = allocator.claim(257).expect("room");
    assert_ne!(small / 1024, large / 1024);
    while let Some(block) = allocator.claim(2) {
        assert!(block < 16 * 1024, "small ones may fill every shard");
    }
    assert_eq!(allocator.free(), 16 * 1024 - 257 - (16 * 1024 - 257) / 2 * 2);
}

#[test]
fn claims_from_many_threads_do_not_overlap() {
    const BLOCKS: u64 = 4096;
    let allocator = Allocator::new(BLOCKS, 1024, 0);
    let owners: Vec<AtomicU32> = (0..BLOCKS).map(|_| AtomicU32::new(0)).collect();
    std::thread::scope(|scope| {
        for thread in 1..=4_u32 {
            let (allocator, owners) = (&allocator, &owners);
            scope.spawn(move || {
                let mut mine = Vec::new();
                for round in 0..20_000_u32 {
                    let blocks = 1 + (round.wrapping_mul(thread)) % 90;
                    if let Some(block) = allocator.claim(blocks) {
                        for owner in &owners[block as usize..][..blocks as usize] {
                            assert_eq!(owner.swap(thread, Ordering::SeqCst), 0, "a block has two owners");
                        }
                        mine.push(Run { block, blocks });
                    }
                    if mine.len() > 8 {
                        let run = mine.swap_remove(round as usize % 8);
                        for owner in &owners[run.block as usize..][..run.blocks as usize] {
                            assert_eq!(owner.swap(0, Ordering::SeqCst), thread);
                        }
                        allocator.free_run(run);
                    }
                }
                for run in mine {
                    owners[run.block as usize..][..run.blocks as usize]
                        .iter()
                        .for_each(|owner| owner.store(0, Ordering::SeqCst));
                    allocator.free_run(run);
                }
            });
        }
    });
    assert_eq!(allocator.used(), 0);
    assert_eq!(allocator.claim(1000).map(|block| block % 1024 <= 24), Some(true));
}

#[test]
fn fresh_blocks_lie_ahead_of_small_claims_and_are_taken_once() {
    let allocator = Allocator::new(100_000, 50_000, 0);
    let filled = vec![Cell::new(false); 100_000];
    let fill = |allocator: &Allocator| {
        let mut runs = 0;
        while let Some(run) = allocator.take_fresh() {
            assert!(allocator.is_taken(run), "nobody else gets it meanwhile");
            assert_eq!(allocator.used() % 7, 0, "it counts as free");
            for block in run.block..run.block + u64::from(run.blocks) {
                assert!(!filled[block as usize].replace(true), "block {block} twice");
            }
            allocator.give_back_fresh(run);
            runs += 1;
        }
        runs
    };
    assert_eq!(fill(&allocator), 16, "16 MiB");
    // What is claimed from now on is filled, also after a large claim has gone elsewhere.
    let mut claimed = vec![allocator.claim(7 * 64).expect("room")];
    let mut small = Vec::new();
    for _ in 0..2_000 {
        small.push(allocator.claim(7).expect("room"));
        fill(&allocator);
    }
    assert_eq!(allocator.used(), 7 * 2_064);
    claimed.extend(&small);
    claimed.sort_unstable();
    claimed.dedup();
    assert_eq!(claimed.len(), 2_001);
    assert!(small.iter().all(|block| filled[*block as usize].get() && filled[*block as usize + 6].get()));
    // What was used once is not filled again.
    small.iter().for_each(|block| allocator.free_run(Run { block: *block, blocks: 7 }));
    assert_eq!(fill(&allocator), 0);
}

#[test]
fn fresh_blocks_are_left_alone_where_room_is_scarce() {
    let allocator = Allocator::new(40_000, 50_000, 0);
    assert!(allocator.take_fresh().is_some());
    assert!(allocator.claim(8_000).is_some());
    assert!(allocator.take_fresh().is_none());
}
