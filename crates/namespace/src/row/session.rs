//! `S`, `T`, `W`, `O`: mounts, their slots, what they write and what they hold open.

use alloc::vec::Vec;
use types::{Epoch, Grant, SessionId, VolumeId};

use crate::command::Reply;
use crate::query::SessionInfo;
use crate::wire::wire_struct;

/// `S`, by session; it is open as long as the row is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Session {
    pub(crate) epoch: Epoch,
    pub(crate) node: u64,
    pub(crate) incarnation: u64,
    /// Extent counters below are committed or given up.
    pub(crate) settled: u64,
}
wire_struct!(Session { epoch, node, incarnation, settled });

impl Session {
    pub(crate) fn info(&self, volume: VolumeId, session: SessionId) -> SessionInfo {
        SessionInfo { volume, session, epoch: self.epoch, node: self.node }
    }
}

/// `T`, by session and slot: the last command and its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) seq: u64,
    pub(crate) digest: u64,
    pub(crate) reply: Reply,
}
wire_struct!(Slot { seq, digest, reply });

/// `W`, by inode: who may commit data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Writer {
    pub(crate) session: SessionId,
    pub(crate) grant: Grant,
}
wire_struct!(Writer { session, grant });

/// `O`, by inode: it has no name, but these sessions have it open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pinned {
    pub(crate) sessions: Vec<SessionId>,
}
wire_struct!(Pinned { sessions });
