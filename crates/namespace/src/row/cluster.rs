//! Rows of volume 0: the cluster itself.

use alloc::vec::Vec;
use types::{Epoch, GroupId, Nanos, SessionId, VolumeId};

use crate::query::{GroupSlot, SlotState};
use crate::wire::{wire_enum, wire_struct};

/// `t`: the time of the last entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Clock {
    pub(crate) last: Nanos,
}
wire_struct!(Clock { last });

/// `c`: the next ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    pub(crate) volume: VolumeId,
    pub(crate) group: GroupId,
}
wire_struct!(Counters { volume, group });

/// `r`: what the last restore from a backup left, if there was one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Restored {
    /// Until then fragments of older sessions stay, named by a row or not.
    pub(crate) keep_until: Nanos,
    /// The epoch of new groups: stores may know lower ones of a group with the same id.
    pub(crate) first_epoch: Epoch,
    /// The first session of each volume after the restore.
    pub(crate) first_sessions: Vec<(VolumeId, SessionId)>,
}
wire_struct!(Restored { keep_until, first_epoch, first_sessions });

/// `n`, by node: its newest start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub(crate) incarnation: u64,
}
wire_struct!(Node { incarnation });

/// `g`, by group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    /// Raised whenever it changes who must be written.
    pub(crate) epoch: Epoch,
    /// A slot's place is the index in the names of its fragments. 1 to 16, of distinct disks; at least one is In.
    pub(crate) slots: Vec<GroupSlot>,
}
wire_struct!(Group { epoch, slots });
wire_struct!(GroupSlot { disk, state });
wire_enum!(SlotState {
    1 => In,
    2 => Filling,
    3 => Absent,
});

/// `d`, by disk uuid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Disk {
    /// What fragments may take of it.
    pub(crate) bytes: u64,
    /// It will not be used again.
    pub(crate) retired: bool,
}
wire_struct!(Disk { bytes, retired });

/// `v`, by volume name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct VolumeName {
    pub(crate) volume: VolumeId,
}
wire_struct!(VolumeName { volume });
