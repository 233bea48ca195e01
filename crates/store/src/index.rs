//! Which fragments a disk has, and where: in memory, no I/O.
//!
//! Cut into 256 shards by a mix of the extent's id, each an ordered map under its own short lock, so that a
//! checkpoint copies one while puts go on in the others. An id starts with its group, so within a shard the
//! fragments of a group are one run. A shard also counts who reads which run of blocks: a run that is freed while
//! it is read is handed back by its last reader.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use types::{Epoch, FragmentId, GroupId};

use crate::bytes::{array_at, put, u32_at};
use crate::fragments::FragmentInfo;
use crate::header::{STORED_MAX, blocks_of};

/// How many shards an index has.
pub const SHARDS: usize = 256;
/// Bytes of an entry with its id, in a checkpoint.
pub const ENTRY_BYTES: usize = 48;
/// The bytes of an id that are not zero by definition.
const KEY: usize = 26;

/// Where a fragment is, and what its header must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The block of the disk where its header is; 48 bits.
    pub block: u64,
    /// Its bytes, 1 to [`STORED_MAX`].
    pub stored_len: u32,
    /// CRC-32C of its header's block.
    pub header_crc: u32,
    /// The group's epoch when it was written.
    pub epoch: Epoch,
    /// Decayed count of reads; 0 as long as nothing is tiered.
    pub heat: u32,
}

impl Entry {
    /// Whether its numbers are in range; not whether its blocks are in a disk's data region.
    pub(crate) fn is_sound(&self) -> bool {
        self.block < 1 << 48 && (1..=STORED_MAX).contains(&self.stored_len)
    }

    /// The blocks of the disk that the fragment takes: the first, and how many.
    pub fn run(&self) -> Run {
        Run { block: self.block, blocks: blocks_of(self.stored_len) }
    }
}

/// Blocks behind one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first block of the disk.
    pub block: u64,
    /// How many.
    pub blocks: u32,
}

type Key = [u8; KEY];

fn key_of(id: &FragmentId) -> Key {
    array_at(&id.to_bytes(), 0)
}

fn id_of(key: &Key) -> FragmentId {
    let mut bytes = [0; 32];
    bytes[..KEY].copy_from_slice(key);
    FragmentId::from_bytes(&bytes).expect("only ids are made into keys")
}

/// The bytes of an entry in a checkpoint: `id[0..26] | block u48 | stored_len, header_crc, epoch, heat u32`.
pub fn encode_entry(id: &FragmentId, entry: &Entry) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    put(&mut bytes, 0, &key_of(id));
    put(&mut bytes, 26, &entry.block.to_le_bytes()[..6]);
    for (n, number) in [entry.stored_len, entry.header_crc, entry.epoch.0, entry.heat].iter().enumerate() {
        put(&mut bytes, 32 + n * 4, &number.to_le_bytes());
    }
    bytes
}

/// Reads what [`encode_entry`] wrote; `None` if a field is out of range.
pub fn decode_entry(bytes: &[u8; ENTRY_BYTES]) -> Option<(FragmentId, Entry)> {
    let mut id = [0; 32];
    id[..KEY].copy_from_slice(&bytes[..KEY]);
    let mut block = [0; 8];
    block[..6].copy_from_slice(&bytes[26..32]);
    let entry = Entry {
        block: u64::from_le_bytes(block),
        stored_len: u32_at(bytes, 32),
        header_crc: u32_at(bytes, 36),
        epoch: Epoch(u32_at(bytes, 40)),
        heat: u32_at(bytes, 44),
    };
    FragmentId::from_bytes(&id).filter(|_| entry.is_sound()).map(|id| (id, entry))
}

/// The shard that an id belongs to. Nothing on disk depends on it.
fn shard_of(id: &FragmentId) -> usize {
    let mixed = (id.extent.counter ^ id.extent.session.0.rotate_left(24))
        .wrapping_add(u64::from(id.extent.volume.0) << 7)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as usize
}

#[derive(Default)]
struct Shard {
    tree: BTreeMap<Key, Entry>,
    pins: HashMap<u64, Pin>,
}

struct Pin {
    readers: u32,
    freed: Option<Run>,
}

/// What became of the blocks of a fragment that left the index.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// The id was not there.
    Nothing,
    /// Nobody reads the blocks: the caller frees them.
    Free(Run),
    /// Readers have them; the last one is told to free them.
    Pinned,
}

/// The fragments of a disk.
pub(crate) struct Index {
    shards: Vec<Mutex<Shard>>,
    count: AtomicU64,
}

impl Index {
    pub(crate) fn new() -> Index {
        Index { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), count: AtomicU64::new(0) }
    }

    fn shard(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many fragments there are.
    pub(crate) fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn get(&self, id: &FragmentId) -> Option<Entry> {
        self.shard(shard_of(id)).tree.get(&key_of(id)).copied()
    }

    /// Finds a fragment and keeps its blocks from being handed out until [`Index::unpin`].
    pub(crate) fn pin(&self, id: &FragmentId) -> Option<Entry> {
        let mut shard = self.shard(shard_of(id));
        let entry = *shard.tree.get(&key_of(id))?;
        shard.pins.entry(entry.block).or_insert(Pin { readers: 0, freed: None }).readers += 1;
        Some(entry)
    }

    /// Ends a reader's hold; answers the blocks to be freed if it was the last one of a fragment that left.
    pub(crate) fn unpin(&self, id: &FragmentId, entry: &Entry) -> Option<Run> {
        let mut shard = self.shard(shard_of(id));
        let pin = shard.pins.get_mut(&entry.block).expect("who unpins has pinned");
        pin.readers -= 1;
        if pin.readers > 0 {
            return None;
        }
        shard.pins.remove(&entry.block).and_then(|pin| pin.freed)
    }

    /// Puts a fragment in; what it replaces has left.
    pub(crate) fn insert(&self, id: &FragmentId, entry: Entry) -> Left {
        let mut shard = self.shard(shard_of(id));
        let old = shard.tree.insert(key_of(id), entry);
        if old.is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        leave(&mut shard, old)
    }

    pub(crate) fn remove(&self, id: &FragmentId) -> Left {
        let mut shard = self.shard(shard_of(id));
        let old = shard.tree.remove(&key_of(id));
        if old.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        leave(&mut shard, old)
    }

    /// The fragments of a group behind `after`, in order, at most `max`.
    pub(crate) fn list(&self, group: GroupId, after: Option<&FragmentId>, max: usize) -> Vec<FragmentInfo> {
        let mut first = [0; KEY];
        put(&mut first, 0, &group.0.to_be_bytes());
        let mut last = [0xff; KEY];
        put(&mut last, 0, &group.0.to_be_bytes());
        let after = after.map(key_of).filter(|after| *after >= first);
        let mut found: Vec<(Key, Entry)> = Vec::new();
        if max == 0 || after.is_some_and(|after| after >= last) {
            return Vec::new();
        }
        let from = after.map_or(std::ops::Bound::Included(first), std::ops::Bound::Excluded);
        for shard in 0..SHARDS {
            let shard = self.shard(shard);
            // Nothing behind the max-th of what was found so far can be in the answer.
            let bound = if found.len() < max { None } else { found.last().map(|(key, _)| *key) };
            let range = shard.tree.range((from, std::ops::Bound::Included(last)));
            let fresh = range.take(max).take_while(|(key, _)| bound.is_none_or(|bound| **key < bound));
            let before = found.len();
            found.extend(fresh.map(|(key, entry)| (*key, *entry)));
            if found.len() > before {
                found.sort_unstable_by_key(|(key, _)| *key);
                found.truncate(max);
            }
        }
        let info = |(key, entry): &(Key, Entry)| FragmentInfo {
            id: id_of(key),
            stored_len: entry.stored_len,
            epoch: entry.epoch,
        };
        found.iter().map(info).collect()
    }

    /// A copy of one shard.
    pub(crate) fn copy_shard(&self, shard: usize) -> Vec<(FragmentId, Entry)> {
        self.shard(shard).tree.iter().map(|(key, entry)| (id_of(key), *entry)).collect()
    }
}

fn leave(shard: &mut Shard, old: Option<Entry>) -> Left {
    let Some(old) = old else { return Left::Nothing };
    match shard.pins.get_mut(&old.block) {
        None => Left::Free(old.run()),
        Some(pin) => {
            pin.freed = Some(old.run());
            Left::Pinned
        }
    }
}

#[cfg(test)]
mod tests;
