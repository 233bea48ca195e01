//! What a mount has done and holds.

use fuse::OpFigures;

/// Figures of one mount, for status and metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figures {
    /// Operations since the mount, by kind.
    pub operations: Vec<OpFigures>,
    /// Operations that are being run.
    pub running: u64,
    /// Nodes, open handles, dirty bytes, flushes.
    pub files: vfs::Figures,
    /// Commands that were answered and are not at the metadata service yet.
    pub pending: u64,
    /// Bytes of memory that accepted writes take.
    pub arena_used: u64,
    /// The most that they may take.
    pub arena_capacity: u64,
}
