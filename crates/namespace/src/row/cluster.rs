//! Rows of volume 0: the cluster itself.

use types::{GroupId, Nanos, VolumeId};

use crate::wire::wire_struct;

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

/// `n`, by node: its newest start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub(crate) incarnation: u64,
}
wire_struct!(Node { incarnation });

/// `g`, by group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    pub(crate) disk: [u8; 16],
    pub(crate) bytes: u64,
}
wire_struct!(Group { disk, bytes });

/// `d`, by disk uuid: the group that it is the slot of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Disk {
    pub(crate) group: GroupId,
}
wire_struct!(Disk { group });

/// `v`, by volume name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct VolumeName {
    pub(crate) volume: VolumeId,
}
wire_struct!(VolumeName { volume });
