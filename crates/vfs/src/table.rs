//! The nodes that are remembered, by inode number.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use namespace::Attr;
use types::Ino;

use crate::node::{Asked, Node};

const SHARDS: usize = 16;

/// How many nodes are remembered of which all can be asked for again: the kernel may refer to millions of inodes, and
/// forgets them only when it is short of memory itself.
const NODES_MAX: usize = 16 * 1024;

/// How many of the oldest nodes of a shard are looked at for each new one.
const LOOKS: usize = 4;

/// Inode numbers to nodes: of inodes that are in use or have work left, and of some that the kernel refers to.
pub(crate) struct Table {
    shards: [Mutex<Shard>; SHARDS],
    /// How many nodes a shard remembers before it drops those that can be asked for again.
    shard_max: usize,
    /// Counts the changes that [`NodeRef::change`] began and that have ended, and the nodes that were forgotten.
    changes: AtomicU64,
    /// No answer that was asked for before this count is as new as what was known of a forgotten node.
    forgotten: AtomicU64,
}

#[derive(Default)]
struct Shard {
    nodes: HashMap<Ino, Remembered>,
    /// The order in which nodes are looked at for dropping. What has another number than the node has gone meanwhile.
    order: VecDeque<(u64, Ino)>,
    /// The last number.
    last: u64,
    /// Nodes were dropped that the kernel refers to.
    dropped: bool,
}

struct Remembered {
    node: Arc<Node>,
    /// Its number in the order.
    number: u64,
    /// The count when its last use ended: nothing newer is known of it.
    used: Asked,
}

/// A node in use. When the last use ends and nothing else refers to the inode, the table forgets it.
pub(crate) struct NodeRef<'a> {
    table: &'a Table,
    node: Option<Arc<Node>>,
}

impl Table {
    pub(crate) fn new() -> Table {
        Table::of(NODES_MAX)
    }

    /// A table that remembers about `nodes_max` nodes of inodes that are not in use.
    pub(crate) fn of(nodes_max: usize) -> Table {
        Table {
            shards: std::array::from_fn(|_| Mutex::default()),
            shard_max: nodes_max.div_ceil(SHARDS),
            changes: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        }
    }

    /// The node of an inode; a new one if it was not remembered.
    pub(crate) fn node(&self, ino: Ino) -> NodeRef<'_> {
        let mut shard = self.shard(ino);
        if let Some(found) = shard.nodes.get(&ino) {
            return NodeRef { table: self, node: Some(Arc::clone(&found.node)) };
        }
        self.make_room(&mut shard);
        let node = Node::new(ino);
        {
            let mut state = node.state();
            state.unsure = Asked(self.forgotten.load(Ordering::SeqCst));
            state.may_be_referred_to = shard.dropped;
        }
        let node = Arc::new(node);
        shard.put(ino, Arc::clone(&node), self.asked());
        NodeRef { table: self, node: Some(node) }
    }

    /// Drops the oldest nodes of a full shard as far as nothing but memory is lost by it.
    fn make_room(&self, shard: &mut Shard) {
        // More than one look for each new node, or a shard that was filled with nodes in use would never shrink again.
        for _ in 0..LOOKS {
            if shard.nodes.len() < self.shard_max {
                return;
            }
            let Some((number, ino)) = shard.order.pop_front() else { return };
            let Some(oldest) = shard.nodes.get(&ino).filter(|found| found.number == number) else {
                continue;
            };
            if Arc::strong_count(&oldest.node) > 1 || !oldest.node.state().is_unused() {
                shard.order.push_back((number, ino));
                continue;
            }
            self.was_forgotten(oldest.used);
            shard.nodes.remove(&ino);
            shard.dropped = true;
        }
    }

    /// With a node goes the knowledge of how new an answer must be: one that was asked for after its last `used` will
    /// do. A walk over many inodes forgets old nodes all the time, and answers of this moment must be remembered.
    fn was_forgotten(&self, used: Asked) {
        self.next_moment();
        self.forgotten.fetch_max(used.0 + 1, Ordering::SeqCst);
    }

    /// Remembers what a change answered of a node that was not held while it ran. If that cannot be remembered, nothing
    /// that was asked before now can.
    pub(crate) fn store_change(&self, node: &Node, asked: Asked, attr: Attr) {
        let mut state = node.state();
        if !state.store(asked, attr) {
            state.forget_attr(self.next_moment());
        }
    }

    /// What is remembered of attributes is no longer true of some node.
    pub(crate) fn forget_attrs(&self) {
        for shard in &self.shards {
            let shard = lock(shard);
            // As at the end of a change: what was asked before now may be old.
            let now = self.next_moment();
            self.forgotten.fetch_max(now.0, Ordering::SeqCst);
            shard.nodes.values().for_each(|found| found.node.state().forget_attr(now));
        }
    }

    /// The node of an inode, if it is remembered.
    pub(crate) fn find(&self, ino: Ino) -> Option<NodeRef<'_>> {
        let node = Arc::clone(&self.shard(ino).nodes.get(&ino)?.node);
        Some(NodeRef { table: self, node: Some(node) })
    }

    /// The moment before something is asked.
    pub(crate) fn asked(&self) -> Asked {
        Asked(self.changes.load(Ordering::SeqCst))
    }

    /// A moment after which every answer was asked for later than all that were asked for so far.
    fn next_moment(&self) -> Asked {
        Asked(self.changes.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn end_use(&self, node: Arc<Node>) {
        let ino = node.ino;
        let mut shard = self.shard(ino);
        // Only now: of two uses that end at once, the last one sees that nothing is left, and nobody finds the node out
        // of use before it is noted when that was.
        drop(node);
        let Some(found) = shard.nodes.get_mut(&ino) else { return };
        found.used = self.asked();
        // A new reference can only be had from this shard, which is locked: one left is the shard's own.
        if Arc::strong_count(&found.node) == 1 && found.node.state().is_idle() {
            self.was_forgotten(found.used);
            shard.nodes.remove(&ino);
            shard.tidy();
        }
    }

    /// How many nodes are remembered.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).nodes.len()).sum()
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, Shard> {
        lock(&self.shards[ino.0 as usize % SHARDS])
    }
}

impl Shard {
    fn put(&mut self, ino: Ino, node: Arc<Node>, used: Asked) {
        self.last += 1;
        self.nodes.insert(ino, Remembered { node, number: self.last, used });
        self.order.push_back((self.last, ino));
    }

    /// What has gone stays in the order until it is looked at, but must not outgrow what is there.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.nodes.len() + LOOKS {
            let nodes = &self.nodes;
            self.order.retain(|(number, ino)| nodes.get(ino).is_some_and(|found| found.number == *number));
        }
    }
}

impl NodeRef<'_> {
    /// Begins a change of another inode that changes this one too, as a new name changes its directory. Its end makes
    /// the attributes of this one unknown.
    pub(crate) fn change(&self) -> Changing<'_> {
        self.state().changing += 1;
        Changing(self)
    }
}

/// A change in flight whose outcome for the node will not be told.
pub(crate) struct Changing<'a>(&'a NodeRef<'a>);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.changing -= 1;
        state.forget_attr(self.0.table.next_moment());
    }
}

impl Deref for NodeRef<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.node.as_ref().expect("only drop takes it")
    }
}

impl Drop for NodeRef<'_> {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            self.table.end_use(node);
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
