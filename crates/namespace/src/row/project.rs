//! `U`: a directory with a quota, and what counts for it.

use types::Ino;

use crate::query::{QuotaInfo, QuotaState};
use crate::wire::wire_struct;

/// The label of what counts for no quota, and what lies outside of the outermost.
pub(crate) const NONE: Ino = Ino(0);

/// The limit that nothing reaches.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// By the directory, whose inode number is also the label of what counts for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Project {
    /// The label of the directory around it: what counts here counts there too.
    pub(crate) outer: Ino,
    pub(crate) limit_bytes: u64,
    pub(crate) limit_inodes: u64,
    /// The sum of `allocated` of the inodes with this label or that of a project within.
    pub(crate) bytes: u64,
    /// How many those are, nameless ones included.
    pub(crate) inodes: u64,
    pub(crate) state: QuotaState,
}
wire_struct!(Project { outer, limit_bytes, limit_inodes, bytes, inodes, state });

/// What an inode, or all of a project, takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Use {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl Project {
    pub(crate) fn info(&self, dir: Ino) -> QuotaInfo {
        QuotaInfo {
            dir,
            outer: self.outer,
            limit_bytes: self.limit_bytes,
            limit_inodes: self.limit_inodes,
            used_bytes: self.bytes,
            inodes: self.inodes,
            state: self.state,
        }
    }

    pub(crate) fn used(&self) -> Use {
        Use { bytes: self.bytes, inodes: self.inodes }
    }

    /// Rows that were counted wrong are for `check` to find, not to stop at.
    pub(crate) fn add(&mut self, used: Use) {
        self.bytes = self.bytes.saturating_add(used.bytes);
        self.inodes = self.inodes.saturating_add(used.inodes);
    }

    pub(crate) fn sub(&mut self, used: Use) {
        self.bytes = self.bytes.saturating_sub(used.bytes);
        self.inodes = self.inodes.saturating_sub(used.inodes);
    }
}

/// `G` class 6, by directory: it has the new label, what it holds may have the old one still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unvisited {
    /// Names up to this cookie have been looked at.
    pub(crate) cursor: u64,
}
wire_struct!(Unvisited { cursor });
