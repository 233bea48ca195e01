//! The nodes that are remembered, by inode number.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use types::Ino;

use crate::node::{Asked, Node};

const SHARDS: usize = 16;

/// Inode numbers to nodes. One entry for each inode that the kernel refers to or that has work left.
pub(crate) struct Table {
    shards: [Mutex<HashMap<Ino, Arc<Node>>>; SHARDS],
    /// Counts the changes that [`NodeRef::change`] began and that have ended, and the nodes that were forgotten.
    changes: AtomicU64,
    /// The count when the last node was forgotten.
    forgotten: AtomicU64,
}

/// A node in use. When the last use ends and nothing else refers to the inode, the table forgets it.
pub(crate) struct NodeRef<'a> {
    table: &'a Table,
    node: Option<Arc<Node>>,
}

impl Table {
    pub(crate) fn new() -> Table {
        Table {
            shards: std::array::from_fn(|_| Mutex::new(HashMap::new())),
            changes: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        }
    }

    /// The node of an inode; a new one if it was not remembered.
    pub(crate) fn node(&self, ino: Ino) -> NodeRef<'_> {
        let mut shard = self.shard(ino);
        let node = shard.entry(ino).or_insert_with(|| {
            let node = Node::new(ino);
            node.state().unsure = Asked(self.forgotten.load(Ordering::SeqCst));
            Arc::new(node)
        });
        NodeRef { table: self, node: Some(Arc::clone(node)) }
    }

    /// The node of an inode, if it is remembered.
    pub(crate) fn find(&self, ino: Ino) -> Option<NodeRef<'_>> {
        let node = self.shard(ino).get(&ino).cloned()?;
        Some(NodeRef { table: self, node: Some(node) })
    }

    /// The moment before something is asked.
    pub(crate) fn asked(&self) -> Asked {
        Asked(self.changes.load(Ordering::SeqCst))
    }

    fn drop_idle(&self, ino: Ino) {
        let mut shard = self.shard(ino);
        let Some(node) = shard.get(&ino) else { return };
        // A new reference can only be had from this shard, which is locked: one left is the shard's own.
        if Arc::strong_count(node) == 1 && node.state().is_idle() {
            // With it goes the knowledge of how new an answer must be: none that was asked for before now will do.
            let now = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
            self.forgotten.fetch_max(now, Ordering::SeqCst);
            shard.remove(&ino);
        }
    }

    /// How many nodes are remembered.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, HashMap<Ino, Arc<Node>>> {
        lock(&self.shards[ino.0 as usize % SHARDS])
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
        let now = self.0.table.changes.fetch_add(1, Ordering::SeqCst) + 1;
        state.forget_attr(Asked(now));
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
        let Some(node) = self.node.take() else { return };
        let ino = node.ino;
        drop(node);
        // Looked at after this use has ended: of two that end at once, the last one sees that nothing is left.
        self.table.drop_idle(ino);
    }
}

fn lock(shard: &Mutex<HashMap<Ino, Arc<Node>>>) -> MutexGuard<'_, HashMap<Ino, Arc<Node>>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
