//! Disks, and the placement groups that are drawn over them.
//!
//! A slot's state says who must be written: *In* and *Filling* slots are, *Absent* ones are not. Every change of that
//! raises the group's epoch, and stores refuse puts below it. An In slot has every acknowledged fragment of the group
//! that its disk has not lost; so the last In slot of a group never turns Absent, whatever becomes of its disk: as long
//! as it is away nothing can be written to the group that it would lack.

use alloc::vec::Vec;
use types::{Epoch, Errno, GroupId};

use crate::command::Reply;
use crate::keys::{self, kind};
use crate::overlay::Overlay;
use crate::query::{GroupSlot, SlotState};
use crate::row;
use crate::row::cluster::{Counters, Disk, Group};
use crate::rows::RowsError;
use crate::tx::Outcome;

/// Most slots of a group, so most copies of an extent.
pub(crate) const SLOTS_MAX: usize = 16;

/// Most groups of a cluster: commands that touch every group of a disk stay small.
const GROUPS_MAX: usize = 1_024;

/// Most disks of a cluster, retired ones included.
const DISKS_MAX: usize = 4_096;

/// A disk joins, or changed its size. `ESTALE` if it was retired: its slots are others' now.
pub(crate) fn add_disk(over: &mut Overlay<'_>, disk: &[u8; 16], bytes: u64) -> Outcome<Reply> {
    let key = keys::disk(disk);
    match row::get::<Disk>(over, &key)? {
        Some(known) if known.retired => return Err(Errno::ESTALE.into()),
        Some(_) => {}
        None if count(over, kind::DISK)? >= DISKS_MAX => return Err(Errno::ENOSPC.into()),
        None => {}
    }
    over.put(key, row::value(&Disk { bytes, retired: false }));
    Ok(Reply::Done)
}

/// A group over these disks, one slot each, all In. If one has just these disks its id is answered.
pub(crate) fn add_group(over: &mut Overlay<'_>, disks: &[[u8; 16]]) -> Outcome<Reply> {
    let repeated = disks.iter().enumerate().any(|(at, disk)| disks[..at].contains(disk));
    if disks.is_empty() || disks.len() > SLOTS_MAX || repeated {
        return Err(Errno::EINVAL.into());
    }
    for disk in disks {
        usable(over, disk)?;
    }
    let groups = all(over)?;
    let same = |group: &Group| {
        group.slots.len() == disks.len() && disks.iter().all(|disk| group.place_of(disk).is_some())
    };
    if let Some((id, _)) = groups.iter().find(|(_, group)| same(group)) {
        return Ok(Reply::Group(*id));
    }
    if groups.len() >= GROUPS_MAX {
        return Err(Errno::ENOSPC.into());
    }
    let mut counters: Counters = crate::cluster::counters(over)?;
    let id = counters.group;
    counters.group = GroupId(id.0.checked_add(1).ok_or(Errno::ENOSPC)?);
    over.put(keys::counters(), row::value(&counters));
    let slots = disks.iter().map(|disk| GroupSlot { disk: *disk, state: SlotState::In }).collect();
    let epoch = crate::restored::row(over)?.map_or(Epoch(1), |restored| restored.first_epoch);
    over.put(keys::group(id), row::value(&Group { epoch, slots }));
    Ok(Reply::Group(id))
}

/// A disk is away: its slots need not be written any more, but for those that are the last In slot of their group.
pub(crate) fn disk_absent(over: &mut Overlay<'_>, disk: &[u8; 16]) -> Outcome<Reply> {
    known(over, disk)?;
    for (id, mut group) in all(over)? {
        let Some(at) = group.place_of(disk) else { continue };
        if group.slots[at].state != SlotState::Absent && !group.is_last_in(at) {
            group.slots[at].state = SlotState::Absent;
            changed(over, id, group)?;
        }
    }
    Ok(Reply::Done)
}

/// A disk is back: its Absent slots are written again, and filled with what they lack.
pub(crate) fn disk_back(over: &mut Overlay<'_>, disk: &[u8; 16]) -> Outcome<Reply> {
    usable(over, disk)?;
    for (id, mut group) in all(over)? {
        let Some(at) = group.place_of(disk) else { continue };
        if group.slots[at].state == SlotState::Absent {
            group.slots[at].state = SlotState::Filling;
            changed(over, id, group)?;
        }
    }
    Ok(Reply::Done)
}

/// A Filling slot has all that the group had. `ESTALE` if the group has changed since its `epoch`: look again. What
/// must be written stays as it was, so the epoch stays too.
pub(crate) fn slot_filled(
    over: &mut Overlay<'_>,
    id: GroupId,
    disk: &[u8; 16],
    epoch: Epoch,
) -> Outcome<Reply> {
    let key = keys::group(id);
    let mut group: Group = row::get(over, &key)?.ok_or(Errno::ENOENT)?;
    let at = group.place_of(disk).filter(|_| group.epoch == epoch).ok_or(Errno::ESTALE)?;
    match group.slots[at].state {
        SlotState::In => return Ok(Reply::Done),
        SlotState::Absent => return Err(Errno::ESTALE.into()),
        SlotState::Filling => group.slots[at].state = SlotState::In,
    }
    over.put(key, row::value(&group));
    Ok(Reply::Done)
}

/// Another disk takes an Absent slot over and is filled. `EBUSY` if the slot is not Absent, `EINVAL` if the group has
/// the other disk already. A disk without a slot left is retired.
pub(crate) fn replace_slot(
    over: &mut Overlay<'_>,
    id: GroupId,
    old: &[u8; 16],
    new: &[u8; 16],
) -> Outcome<Reply> {
    usable(over, new)?;
    let mut group: Group = row::get(over, &keys::group(id))?.ok_or(Errno::ENOENT)?;
    let at = match (group.place_of(old), group.place_of(new)) {
        (None, Some(_)) => return Ok(Reply::Done),
        (Some(at), None) => at,
        _ => return Err(Errno::EINVAL.into()),
    };
    if group.slots[at].state != SlotState::Absent {
        return Err(Errno::EBUSY.into());
    }
    group.slots[at] = GroupSlot { disk: *new, state: SlotState::Filling };
    changed(over, id, group)?;
    if all(over)?.iter().all(|(_, group)| group.place_of(old).is_none()) {
        let row = known(over, old)?;
        over.put(keys::disk(old), row::value(&Disk { retired: true, ..row }));
    }
    Ok(Reply::Done)
}

/// A disk will not come back: its slots are Absent, and others may take them over. `EBUSY` if it is the last In slot of
/// a group: then nobody else has what is on it.
pub(crate) fn retire_disk(over: &mut Overlay<'_>, disk: &[u8; 16]) -> Outcome<Reply> {
    let row = known(over, disk)?;
    let last = |group: &Group| group.place_of(disk).is_some_and(|at| group.is_last_in(at));
    if all(over)?.iter().any(|(_, group)| last(group)) {
        return Err(Errno::EBUSY.into());
    }
    disk_absent(over, disk)?;
    over.put(keys::disk(disk), row::value(&Disk { retired: true, ..row }));
    Ok(Reply::Done)
}

impl Group {
    /// Which slot is the disk's.
    pub(crate) fn place_of(&self, disk: &[u8; 16]) -> Option<usize> {
        self.slots.iter().position(|slot| slot.disk == *disk)
    }

    /// Whether the slot is In and no other one is.
    fn is_last_in(&self, at: usize) -> bool {
        let is_in = |slot: &GroupSlot| slot.state == SlotState::In;
        is_in(&self.slots[at]) && self.slots.iter().filter(|slot| is_in(slot)).count() == 1
    }
}

/// Who must be written has changed.
fn changed(over: &mut Overlay<'_>, id: GroupId, mut group: Group) -> Outcome<()> {
    group.epoch = Epoch(group.epoch.0.checked_add(1).ok_or(Errno::ENOSPC)?);
    over.put(keys::group(id), row::value(&group));
    Ok(())
}

fn known(over: &Overlay<'_>, disk: &[u8; 16]) -> Outcome<Disk> {
    Ok(row::get::<Disk>(over, &keys::disk(disk))?.ok_or(Errno::ENOENT)?)
}

fn usable(over: &Overlay<'_>, disk: &[u8; 16]) -> Outcome<()> {
    if known(over, disk)?.retired { Err(Errno::ESTALE.into()) } else { Ok(()) }
}

/// Every group, in the order of their ids.
pub(crate) fn all(over: &Overlay<'_>) -> Result<Vec<(GroupId, Group)>, RowsError> {
    let prefix = keys::prefix(keys::CLUSTER, kind::GROUP);
    let mut groups = Vec::new();
    row::scan(over, &prefix, &keys::after(&prefix), false, &mut |key, group: Group| {
        groups.push((keys::group_of(key), group));
        true
    })?;
    Ok(groups)
}

fn count(over: &Overlay<'_>, kind: u8) -> Result<usize, RowsError> {
    use crate::rows::Rows;
    let prefix = keys::prefix(keys::CLUSTER, kind);
    let mut count = 0;
    over.scan(&prefix, &keys::after(&prefix), false, &mut |_, _| {
        count += 1;
        true
    })?;
    Ok(count)
}
