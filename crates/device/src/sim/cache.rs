//! What a simulated disk holds: durable blocks, and newer versions that a power cut may lose.

use super::pages::{Page, Pages};
use super::rng::Rng;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use types::BLOCK;

const SECTOR: usize = 512;

/// What a power cut leaves of the blocks that are not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Nothing: every block is as it was when it was last durable.
    Nothing,
    /// Everything that was written, in flight or not.
    Everything,
    /// Any of its versions for each block, some torn at sectors of 512 bytes, as the seed says.
    Any,
}

/// A version of a block that is not durable.
#[derive(Clone)]
struct Version {
    op: u64,
    page: Page,
    /// Its write has been answered, so a flush covers it.
    complete: bool,
}

#[derive(Clone)]
pub(super) struct Cache {
    durable: Pages,
    blocks: u64,
    /// By block, oldest version first; never an empty list.
    dirty: BTreeMap<u64, Vec<Version>>,
    /// Flushes under way, each with the versions `(block, op)` that it covers.
    flushes: HashMap<u64, Vec<(u64, u64)>>,
    unreadable: BTreeSet<u64>,
}

impl Cache {
    pub(super) fn new(blocks: u64) -> Cache {
        Cache {
            durable: Pages::new(blocks),
            blocks,
            dirty: BTreeMap::new(),
            flushes: HashMap::new(),
            unreadable: BTreeSet::new(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.blocks * BLOCK
    }

    pub(super) fn at_risk(&self) -> usize {
        self.dirty.len()
    }

    /// What a read finds; `None` is zeros.
    pub(super) fn latest(&self, block: u64) -> Option<&Page> {
        match self.dirty.get(&block).and_then(|versions| versions.last()) {
            Some(version) => Some(&version.page),
            None => self.durable.get(block),
        }
    }

    pub(super) fn write(&mut self, op: u64, block: u64, page: Page) {
        self.unreadable.remove(&block);
        self.dirty.entry(block).or_default().push(Version { op, page, complete: false });
    }

    /// The write `op` has been answered. Its blocks are found among the dirty ones: there are few.
    pub(super) fn complete(&mut self, op: u64) {
        for version in self.dirty.values_mut().flatten().filter(|version| version.op == op) {
            version.complete = true;
        }
    }

    /// Everything that the write `op` wrote becomes durable.
    pub(super) fn persist_write(&mut self, op: u64) {
        let blocks =
            self.versions().filter(|(_, version)| version.op == op).map(|(block, _)| block).collect();
        self.persist(blocks, |_| op);
    }

    /// A flush starts: it covers what has completed by now.
    pub(super) fn note_flush(&mut self, flush: u64) {
        let covered = self.versions().filter(|(_, version)| version.complete);
        let covered = covered.map(|(block, version)| (block, version.op)).collect();
        self.flushes.insert(flush, covered);
    }

    /// A flush is done: what it covers is durable.
    pub(super) fn persist_flushed(&mut self, flush: u64) {
        // In the order of versions, so the last one of a block stands.
        let covered: BTreeMap<u64, u64> =
            self.flushes.remove(&flush).unwrap_or_default().into_iter().collect();
        self.persist(covered.keys().copied().collect(), |block| covered[&block]);
    }

    fn versions(&self) -> impl Iterator<Item = (u64, &Version)> {
        self.dirty.iter().flat_map(|(block, versions)| versions.iter().map(|version| (*block, version)))
    }

    /// Makes the version of each block durable that `upto` names, which ends the older ones; newer ones stay.
    fn persist(&mut self, blocks: Vec<u64>, upto: impl Fn(u64) -> u64) {
        for block in blocks {
            let Some(versions) = self.dirty.get_mut(&block) else { continue };
            let covered = versions.iter().take_while(|version| version.op <= upto(block)).count();
            if let Some(last) = versions.drain(..covered).next_back() {
                self.durable.set(block, last.page);
            }
            if versions.is_empty() {
                self.dirty.remove(&block);
            }
        }
    }

    /// Changes every copy of a block.
    pub(super) fn overwrite(&mut self, block: u64, mut change: impl FnMut(&mut [u8; 4096])) {
        let mut page = self.durable.get(block).cloned().unwrap_or_else(|| Arc::new([0; 4096]));
        change(Arc::make_mut(&mut page));
        self.durable.set(block, page);
        for version in self.dirty.get_mut(&block).into_iter().flatten() {
            change(Arc::make_mut(&mut version.page));
        }
    }

    pub(super) fn spoil(&mut self, block: u64) {
        self.unreadable.insert(block);
    }

    pub(super) fn is_unreadable(&self, block: u64) -> bool {
        self.unreadable.contains(&block)
    }

    /// The same content for another run, whose operations count anew: all of it came before the first of them.
    pub(super) fn settled(&self) -> Cache {
        let mut cache = self.clone();
        cache.flushes.clear();
        for version in cache.dirty.values_mut().flatten() {
            version.op = 0;
            version.complete = true;
        }
        cache
    }

    /// What is there after a power cut, all of it durable.
    pub(super) fn cut(&self, seed: u64, keep: Keep) -> Cache {
        let mut rng = Rng::new(seed);
        // Some cuts keep nearly all and some nearly nothing, else long writes would never survive whole.
        let newest_of_8 = [0, 1, 4, 7][rng.below(4) as usize];
        let mut durable = self.durable.clone();
        for (block, versions) in &self.dirty {
            let page = match keep {
                Keep::Nothing => None,
                Keep::Everything => versions.last().map(|version| Arc::clone(&version.page)),
                Keep::Any => survivor(&mut rng, newest_of_8, self.durable.get(*block), versions),
            };
            if let Some(page) = page {
                durable.set(*block, page);
            }
        }
        let unreadable = self.unreadable.clone();
        Cache { durable, blocks: self.blocks, dirty: BTreeMap::new(), flushes: HashMap::new(), unreadable }
    }
}

/// Draws what a block holds after a cut: `None` if what was durable.
fn survivor(rng: &mut Rng, newest_of_8: u64, durable: Option<&Page>, versions: &[Version]) -> Option<Page> {
    if rng.below(8) < newest_of_8 {
        return versions.last().map(|version| Arc::clone(&version.page));
    }
    let choices = versions.len() as u64 + 1;
    let pick = |n: u64| n.checked_sub(1).map(|n| &versions[n as usize].page);
    let first = pick(rng.below(choices));
    if rng.below(4) != 0 {
        return first.cloned();
    }
    // Torn: each sector is of one of two versions.
    let second = pick(rng.below(choices));
    let zeros = Arc::new([0; 4096]);
    let (one, other) = (first.or(durable).unwrap_or(&zeros), second.or(durable).unwrap_or(&zeros));
    let mut torn = **one;
    let sectors = rng.next();
    for (n, sector) in torn.chunks_mut(SECTOR).enumerate() {
        if sectors >> n & 1 == 1 {
            sector.copy_from_slice(&other[n * SECTOR..(n + 1) * SECTOR]);
        }
    }
    Some(Arc::new(torn))
}
