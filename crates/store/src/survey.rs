//! What a disk shows to have been given out: for a restore, which must not give it out again.

use types::{Epoch, FragmentId};

use crate::index::{Entry, SHARDS};
use crate::store::Store;

impl Store {
    /// Visits every fragment, in no order. Those that are put or deleted meanwhile are visited or not.
    pub fn each_fragment(&self, each: &mut dyn FnMut(&FragmentId, &Entry)) {
        for shard in 0..SHARDS {
            for (id, entry) in self.shared.index.copy_shard(shard) {
                each(&id, &entry);
            }
        }
    }

    /// The highest epoch below which puts of any group are refused; 0 if none was ever set.
    pub fn highest_epoch(&self) -> Epoch {
        self.shared.groups().values().map(|group| group.epoch).max().unwrap_or(Epoch(0))
    }
}
