//! Rows that an exclusive mount knows: those of the service with everything on top that was journaled.
//!
//! Rows are kept by inode. What is known of an inode is either everything but its map (`whole`: the mount made it), or
//! ranges of keys. A row that lies in a known range and is not here does not exist. Nothing here ever replaces a known
//! row by one that was fetched: what is known may be newer.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use namespace::{Batch, Home, Write};
use types::Ino;

use super::ranges::Ranges;

/// Bytes that a row costs beside its key and value.
const ROW_BYTES: usize = 96;

/// Bytes that an inode costs beside its rows.
const GROUP_BYTES: usize = 256;

/// What an overfull cache keeps, in eighths of its budget.
const KEEP_EIGHTHS: usize = 7;

/// Rows that are not at the service yet are kept beyond the budget up to so many more bytes, and as much again.
const BEYOND: usize = 256 << 10;

/// A place in the order of journaled commands; the first is 1.
pub(super) type Seq = u64;

/// What is known of one inode.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Everything but map rows is known.
    pub(super) whole: bool,
    pub(super) ranges: Ranges,
    /// The last journaled command that changed it.
    pub(super) changed: Seq,
    /// The last of them that may have changed its data, or its size.
    pub(super) content: Seq,
    /// A journaled command whose effect on it is not known here; 0: there is none. The rows are those before it: worth
    /// nothing, unless it is withdrawn.
    pub(super) blocked: Seq,
    bytes: usize,
    used: Cell<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    groups: HashMap<Ino, Group>,
    /// Rows of no inode: value, and the last journaled command that changed it. Those that do not exist are not here.
    shared: BTreeMap<Vec<u8>, (Vec<u8>, Seq)>,
    bytes: usize,
    budget: usize,
    /// Above this size it is worth looking again for what can go.
    look_above: usize,
    clock: Cell<u64>,
}

impl Cache {
    /// An empty one that tries to stay below `budget` bytes.
    pub(super) fn new(budget: usize) -> Cache {
        let (groups, shared) = (HashMap::new(), BTreeMap::new());
        Cache { groups, shared, bytes: 0, budget, look_above: budget, clock: Cell::new(0) }
    }

    /// What is known of an inode; it counts as used. While it is blocked it is there, and says so.
    pub(super) fn group(&self, ino: Ino, settled: Seq) -> Option<&Group> {
        let group = self.groups.get(&ino).filter(|group| !group.is_stale(settled))?;
        self.clock.set(self.clock.get() + 1);
        group.used.set(self.clock.get());
        Some(group)
    }

    pub(super) fn shared(&self, key: &[u8]) -> Option<&Vec<u8>> {
        self.shared.get(key).map(|(value, _)| value)
    }

    /// Takes in rows of an inode, which are all that the service has in `from..to`.
    pub(super) fn learn(
        &mut self,
        ino: Ino,
        settled: Seq,
        from: &[u8],
        to: &[u8],
        rows: Vec<(Vec<u8>, Vec<u8>)>,
    ) {
        if self.groups.get(&ino).is_some_and(|group| group.is_stale(settled)) {
            self.empty(ino).blocked = 0;
        }
        let group = self.groups.entry(ino).or_default();
        let before = group.bytes;
        for (key, value) in rows {
            if !group.knows(&key) {
                group.put(key, value);
            }
        }
        group.ranges.add(from, to);
        self.bytes = (self.bytes + group.bytes).saturating_sub(before);
    }

    /// Takes in a row of no inode.
    pub(super) fn learn_shared(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.shared.entry(key).or_insert((value, 0));
    }

    /// Makes the changes of the journaled command `seq`.
    pub(super) fn change(&mut self, seq: Seq, batch: Batch) {
        for (key, write) in batch {
            match namespace::home(&key) {
                Home::Inode(ino) => self.change_inode(seq, ino, key, write),
                Home::Shared => match write {
                    Write::Put(value) => {
                        self.shared.insert(key, (value, seq));
                    }
                    Write::Delete => {
                        self.shared.remove(&key);
                    }
                },
                // Never known: reclaim changes them too.
                Home::Map(_) | Home::Extent(_) | Home::Reclaim => {}
            }
        }
    }

    fn change_inode(&mut self, seq: Seq, ino: Ino, key: Vec<u8>, write: Write) {
        let group = self.groups.entry(ino).or_default();
        let before = group.bytes;
        group.changed = seq;
        let known = group.knows(&key);
        match write {
            Write::Put(value) => {
                // Whoever changes an inode has read it. One that was not read is new, and all of it is known.
                group.whole |= !known && group.blocked == 0 && namespace::is_inode_row(&key);
                if !group.knows(&key) {
                    group.ranges.add_one(&key);
                }
                group.put(key, value);
            }
            Write::Delete => {
                if !known {
                    group.ranges.add_one(&key);
                }
                group.remove(&key);
            }
        }
        self.bytes = (self.bytes + group.bytes).saturating_sub(before);
    }

    /// The journaled command `seq` may have changed the data or the size of an inode.
    pub(super) fn changed_content(&mut self, ino: Ino, seq: Seq) {
        self.groups.entry(ino).or_default().content = seq;
    }

    /// The effect of the journaled command `seq` on an inode is not known until it is answered.
    pub(super) fn block(&mut self, ino: Ino, seq: Seq) {
        if self.groups.get(&ino).is_some_and(|group| group.blocked != 0) {
            // Not even a withdrawal makes these rows true again.
            self.empty(ino);
        }
        self.groups.entry(ino).or_default().blocked = seq;
    }

    /// The journaled command `seq`, which is about this inode, was taken out of the order: it changes nothing.
    pub(super) fn withdraw(&mut self, ino: Ino, seq: Seq) {
        let Some(group) = self.groups.get_mut(&ino) else { return };
        if group.blocked == seq {
            // Without any row what others did before it is unknown too, until it is at the service.
            group.blocked = if group.whole || !group.ranges.is_empty() { 0 } else { group.changed };
        }
    }

    /// Forgets the rows of an inode.
    fn empty(&mut self, ino: Ino) -> &mut Group {
        let group = self.groups.entry(ino).or_default();
        self.bytes = self.bytes.saturating_sub(group.bytes);
        let Group { changed, content, blocked, .. } = *group;
        *group = Group { changed, content, blocked, ..Group::default() };
        group
    }

    /// Forgets everything that no journaled command after `settled` has changed.
    pub(super) fn forget_settled(&mut self, settled: Seq) {
        self.groups.retain(|_, group| group.is_busy(settled));
        self.bytes = self.groups.values().map(|group| group.bytes).sum();
        self.forget_shared(settled);
    }

    /// As [`Cache::forget_settled`], only of rows of no inode.
    pub(super) fn forget_shared(&mut self, settled: Seq) {
        self.shared.retain(|_, (_, changed)| *changed > settled);
    }

    /// Makes room if the budget is used up: what was not used for long goes, if it is all at the service.
    pub(super) fn make_room(&mut self, settled: Seq) {
        if self.size() <= self.look_above {
            return;
        }
        let mut idle: Vec<(u64, Ino)> = self
            .groups
            .iter()
            .filter(|(_, group)| !group.is_busy(settled))
            .map(|(ino, group)| (group.used.get(), *ino))
            .collect();
        idle.sort_unstable();
        for (_, ino) in idle {
            if self.size() <= self.budget / 8 * KEEP_EIGHTHS {
                break;
            }
            if let Some(group) = self.groups.remove(&ino) {
                self.bytes = self.bytes.saturating_sub(group.bytes);
            }
        }
        // What could not go now is not looked through again for each command.
        self.look_above = self.budget.max(self.size() + self.budget / 8);
    }

    /// Whether so much is not at the service yet that it has to come there before more is added.
    pub(super) fn is_overfull(&self) -> bool {
        self.size() > self.budget.saturating_mul(2).saturating_add(BEYOND)
    }

    /// As [`Cache::make_room`], after a wait that it should be worth.
    pub(super) fn make_room_now(&mut self, settled: Seq) {
        self.look_above = 0;
        self.make_room(settled);
    }

    fn size(&self) -> usize {
        self.bytes + self.groups.len() * GROUP_BYTES
    }
}

impl Group {
    /// Whether it is known if there is such a row.
    pub(super) fn knows(&self, key: &[u8]) -> bool {
        self.whole || self.ranges.has(key)
    }

    /// The end of what is known from `key` on, at most `to`; `None` if `key` is not known.
    pub(super) fn known_until<'a>(&'a self, key: &[u8], to: &'a [u8]) -> Option<&'a [u8]> {
        if self.whole {
            return Some(to);
        }
        Some(self.ranges.end_of(key)?.min(to))
    }

    /// Known rows of a range.
    pub(super) fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> std::collections::btree_map::Range<'_, Vec<u8>, Vec<u8>> {
        self.rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
    }

    fn is_busy(&self, settled: Seq) -> bool {
        self.changed > settled || self.blocked > settled
    }

    /// Whether a command that is answered by now has made the rows worth nothing.
    fn is_stale(&self, settled: Seq) -> bool {
        self.blocked != 0 && self.blocked <= settled
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += value.len();
        let key_bytes = key.len() + ROW_BYTES;
        match self.rows.insert(key, value) {
            Some(old) => self.bytes = self.bytes.saturating_sub(old.len()),
            None => self.bytes += key_bytes,
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(old) = self.rows.remove(key) {
            self.bytes = self.bytes.saturating_sub(old.len() + key.len() + ROW_BYTES);
        }
    }
}
