//! Which blocks of the data region are taken: a bitmap without locks, rebuilt from the index at each open, so that
//! it cannot leak.
//!
//! The region is cut into shards. A claim searches a shard for a run of free blocks and takes it word by word with
//! compare-and-swap; where another claim was faster it gives back what it took and searches on. Small fragments have
//! their own shards when there are several, so that they do not cut up the room for large ones.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::index::Run;

/// Fragments below this many blocks are small.
const SMALL_BLOCKS: u32 = 16;
/// One in so many shards is for small fragments.
const SMALL_ONE_IN: usize = 8;

/// How far ahead of small claims fresh blocks are looked for, in words of 64 blocks: 16 MiB.
const FRESH_AHEAD: usize = 64;
/// The most words of fresh blocks that are taken at once: 1 MiB.
const FRESH_ONCE: usize = 4;

/// The blocks of a data region. Blocks count from the start of the region.
pub(crate) struct Allocator {
    words: Vec<AtomicU64>,
    /// A bit for each of `words`: some block of it was taken since the open.
    touched: Vec<AtomicU64>,
    shards: Vec<Shard>,
    shard_words: usize,
    blocks: u64,
    reserve: u64,
    used: AtomicU64,
    next: AtomicU32,
}

struct Shard {
    /// Where the next search starts: a word of the shard.
    cursor: AtomicU32,
    used: AtomicU64,
    blocks: u64,
}

impl Allocator {
    /// All of `blocks` free, `reserve` of them never handed out; a shard has `shard_blocks`, rounded up to 64.
    pub(crate) fn new(blocks: u64, shard_blocks: u64, reserve: u64) -> Allocator {
        let shard_words = shard_blocks.div_ceil(64).max(1) as usize;
        let words: Vec<AtomicU64> = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        // The last word may reach over the end: what lies there is taken for good.
        if !blocks.is_multiple_of(64) {
            words[words.len() - 1].store(!0 << (blocks % 64), Ordering::Relaxed);
        }
        let touched = (0..words.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let shard_count = words.len().div_ceil(shard_words);
        let shards = (0..shard_count as u64)
            .map(|n| Shard {
                cursor: AtomicU32::new(0),
                used: AtomicU64::new(0),
                blocks: (blocks - n * shard_words as u64 * 64).min(shard_words as u64 * 64),
            })
            .collect();
        Allocator { words, touched, shards, shard_words, blocks, reserve, used: 0.into(), next: 0.into() }
    }

    /// Blocks in all.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Blocks that claims never take.
    pub(crate) fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Blocks that are taken.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Blocks that claims may still take, if runs are found.
    pub(crate) fn free(&self) -> u64 {
        (self.blocks - self.reserve).saturating_sub(self.used())
    }

    /// Takes a run of `blocks`; answers its first one. `None`: no room, or no run of that length.
    pub(crate) fn claim(&self, blocks: u32) -> Option<u64> {
        assert!(blocks > 0, "a claim of no blocks");
        let limit = self.blocks - self.reserve;
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used + u64::from(blocks)).filter(|used| *used <= limit)
            })
            .ok()?;
        let found = self.order(blocks).find_map(|shard| self.claim_in(shard, blocks));
        if found.is_none() {
            self.used.fetch_sub(u64::from(blocks), Ordering::Relaxed);
        }
        found
    }

    /// Gives a run back.
    pub(crate) fn free_run(&self, run: Run) {
        self.give_back(run.block, u64::from(run.blocks));
        self.used.fetch_sub(u64::from(run.blocks), Ordering::Relaxed);
    }

    /// Takes just this run, as the index has it; `false` if it is out of the region or any block of it is taken.
    pub(crate) fn mark(&self, run: Run) -> bool {
        let blocks = u64::from(run.blocks);
        if run.block.checked_add(blocks).is_none_or(|end| end > self.blocks) || !self.take(run.block, blocks)
        {
            return false;
        }
        self.used.fetch_add(blocks, Ordering::Relaxed);
        true
    }

    /// Takes blocks that small claims will come to soon and of which none was ever taken, as far as is known. They count
    /// as free, and must be given back by [`Allocator::give_back_fresh`]; none while room is scarce.
    pub(crate) fn take_fresh(&self) -> Option<Run> {
        let ahead = FRESH_AHEAD as u64 * 64;
        let shard = self.order(1).next().filter(|_| self.free() > 8 * ahead)?;
        let first = shard * self.shard_words;
        let end = (first + self.shard_words).min(self.words.len());
        let cursor = first + self.shards[shard].cursor.load(Ordering::Relaxed) as usize;
        let window = cursor..end.min(cursor + FRESH_AHEAD);
        let is_fresh =
            |word: &usize| !self.is_touched(*word) && self.words[*word].load(Ordering::Relaxed) == 0;
        let from = window.clone().find(is_fresh)?;
        let words = (from..window.end).take(FRESH_ONCE).take_while(is_fresh).count();
        let run = Run { block: from as u64 * 64, blocks: words as u32 * 64 };
        self.take(run.block, u64::from(run.blocks)).then_some(run)
    }

    /// Gives back what [`Allocator::take_fresh`] took.
    pub(crate) fn give_back_fresh(&self, run: Run) {
        self.give_back(run.block, u64::from(run.blocks));
    }

    fn is_touched(&self, word: usize) -> bool {
        self.touched[word / 64].load(Ordering::Relaxed) & (1 << (word % 64)) != 0
    }

    /// Whether every block of a run is taken.
    pub(crate) fn is_taken(&self, run: Run) -> bool {
        run.block + u64::from(run.blocks) <= self.blocks
            && pieces(run.block, u64::from(run.blocks))
                .all(|(word, mask)| self.words[word].load(Ordering::Relaxed) & mask == mask)
    }

    /// The shards in the order in which a claim of this size tries them: its own kind first.
    fn order(&self, blocks: u32) -> impl Iterator<Item = usize> + '_ {
        let count = self.shards.len();
        let small_count = if count > 1 { count.div_ceil(SMALL_ONE_IN) } else { 0 };
        let small = blocks < SMALL_BLOCKS;
        let (own_at, own) = match (small, small_count) {
            (_, 0) => (0, count),
            (true, n) => (count - n, n),
            (false, n) => (0, count - n),
        };
        let other_at = if own_at == 0 { own } else { 0 };
        // A shard is filled before the next one is started: neighbours in time are neighbours on the disk.
        let first = self.next.load(Ordering::Relaxed) as usize;
        let own_shards = (0..own).map(move |n| own_at + (first + n) % own);
        let other_shards = (0..count - own).map(move |n| other_at + n);
        own_shards.chain(other_shards).filter(move |shard| {
            let shard = &self.shards[*shard];
            shard.used.load(Ordering::Relaxed) + u64::from(blocks) <= shard.blocks
        })
    }

    fn claim_in(&self, shard: usize, blocks: u32) -> Option<u64> {
        let first = shard * self.shard_words;
        let end = (first + self.shard_words).min(self.words.len());
        let cursor = first + self.shards[shard].cursor.load(Ordering::Relaxed) as usize;
        // From the cursor to the end, then all of it: a run may lie across the cursor.
        let found = self.search(cursor, end, blocks).or_else(|| self.search(first, end, blocks))?;
        let word = (found + u64::from(blocks)) / 64;
        let next = if (word as usize) < end { word as usize - first } else { 0 };
        self.shards[shard].cursor.store(next as u32, Ordering::Relaxed);
        if blocks >= SMALL_BLOCKS {
            self.next.store(shard as u32, Ordering::Relaxed);
        }
        Some(found)
    }

    /// Searches the words `from..end` for a free run and takes it.
    fn search(&self, from: usize, end: usize, blocks: u32) -> Option<u64> {
        let want = u64::from(blocks);
        let (mut start, mut len) = (from as u64 * 64, 0_u64);
        let mut at = start;
        let stop = end as u64 * 64;
        while at < stop {
            let rest = self.words[(at / 64) as usize].load(Ordering::Relaxed) >> (at % 64);
            let left = 64 - at % 64;
            let free = u64::from(rest.trailing_zeros()).min(left);
            len += free;
            at += free;
            if len >= want {
                if self.take(start, want) {
                    return Some(start);
                }
                // Somebody was faster: look again from where the run began, at what is free now.
                (at, len) = (start, 0);
                continue;
            }
            if free < left {
                at += u64::from((rest >> free).trailing_ones()).min(left - free);
                (start, len) = (at, 0);
            }
        }
        None
    }

    /// Takes a run, or none of it.
    fn take(&self, block: u64, blocks: u64) -> bool {
        for (word, mask) in pieces(block, blocks) {
            let taken = self.words[word].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                (old & mask == 0).then_some(old | mask)
            });
            if taken.is_err() {
                let done = (word as u64 * 64).max(block) - block;
                self.clear(block, done);
                return false;
            }
            let (at, bit) = (word / 64, 1 << (word % 64));
            if self.touched[at].load(Ordering::Relaxed) & bit == 0 {
                self.touched[at].fetch_or(bit, Ordering::Relaxed);
            }
        }
        self.count(block, blocks, |used, n| {
            used.fetch_add(n, Ordering::Relaxed);
        });
        true
    }

    fn give_back(&self, block: u64, blocks: u64) {
        self.clear(block, blocks);
        self.count(block, blocks, |used, n| {
            used.fetch_sub(n, Ordering::Relaxed);
        });
    }

    fn clear(&self, block: u64, blocks: u64) {
        for (word, mask) in pieces(block, blocks) {
            let old = self.words[word].fetch_and(!mask, Ordering::Relaxed);
            assert!(old & mask == mask, "blocks are freed that were not taken");
        }
    }

    /// Tells the shards of a run of their part; a run that was marked may lie across two.
    fn count(&self, block: u64, blocks: u64, change: impl Fn(&AtomicU64, u64)) {
        let shard_blocks = self.shard_words as u64 * 64;
        let (mut at, end) = (block, block + blocks);
        while at < end {
            let shard = at / shard_blocks;
            let stop = end.min((shard + 1) * shard_blocks);
            change(&self.shards[shard as usize].used, stop - at);
            at = stop;
        }
    }
}

/// A run of blocks as words of the bitmap and the bits in them.
fn pieces(block: u64, blocks: u64) -> impl Iterator<Item = (usize, u64)> {
    let end = block + blocks;
    let first = block / 64;
    let words = if blocks == 0 { 0 } else { end.div_ceil(64) - first };
    (first..first + words).map(move |word| {
        let low = block.max(word * 64) - word * 64;
        let high = end.min(word * 64 + 64) - word * 64;
        let ones = if high - low == 64 { !0 } else { (1 << (high - low)) - 1 };
        (word as usize, ones << low)
    })
}

#[cfg(test)]
mod tests;
