//! Disks come, go and come back; groups keep at least one slot that has everything.

use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::{prop_assert_eq, proptest};
use types::{Epoch, Errno, GroupId};

use super::World;
use crate::query::SlotState::{Absent, Filling, In};
use crate::{Answer, Command, DiskRow, GroupRow, GroupSlot, Query, Reply, SlotState};

const A: [u8; 16] = [0xa; 16];
const B: [u8; 16] = [0xb; 16];
const C: [u8; 16] = [0xc; 16];
const REFUSED: fn(Errno) -> Reply = Reply::Failed;

/// A world whose groups 2 and 3 are A B and B C; group 1 is that of the other tests.
fn three() -> World {
    let mut world = World::new();
    for disk in [A, B, C] {
        assert_eq!(world.service(Command::AddDisk { disk, bytes: 9 }), Reply::Done);
    }
    for (disks, id) in [(vec![A, B], 2), (vec![B, C], 3)] {
        assert_eq!(world.service(Command::AddGroup { disks }), Reply::Group(GroupId(id)));
    }
    world
}

fn group(world: &World, id: u32) -> (u32, Vec<([u8; 16], SlotState)>) {
    let Answer::Groups(groups) = world.ask(Query::Groups) else { panic!("no groups") };
    let group = groups.into_iter().find(|group| group.id == GroupId(id)).expect("the group");
    (group.epoch.0, group.slots.iter().map(|slot| (slot.disk, slot.state)).collect())
}

#[test]
fn groups_are_of_distinct_known_disks_and_made_once() {
    let mut world = three();
    assert_eq!(world.service(Command::AddDisk { disk: A, bytes: 10 }), Reply::Done, "it has grown");
    assert_eq!(world.service(Command::AddGroup { disks: vec![B, A] }), Reply::Group(GroupId(2)));
    for disks in [vec![], vec![A, A], (0..17).map(|n| [n; 16]).collect()] {
        assert_eq!(world.service(Command::AddGroup { disks }), REFUSED(Errno::EINVAL));
    }
    assert_eq!(world.service(Command::AddGroup { disks: vec![A, [9; 16]] }), REFUSED(Errno::ENOENT));
    let Answer::Disks(disks) = world.ask(Query::Disks) else { panic!("no disks") };
    assert_eq!(disks[1], DiskRow { disk: A, bytes: 10, retired: false });
    let Answer::Groups(groups) = world.ask(Query::Groups) else { panic!("no groups") };
    let slots = vec![GroupSlot { disk: A, state: In }, GroupSlot { disk: B, state: In }];
    assert_eq!(groups[1], GroupRow { id: GroupId(2), epoch: Epoch(1), slots });
    world.assert_sound();
}

#[test]
fn a_disk_that_goes_and_comes_back_is_filled_before_it_counts() {
    let mut world = three();
    for _ in 0..2 {
        assert_eq!(world.service(Command::DiskAbsent { disk: B }), Reply::Done);
        assert_eq!(group(&world, 2), (2, vec![(A, In), (B, Absent)]));
        assert_eq!(group(&world, 3), (2, vec![(B, Absent), (C, In)]));
    }
    // The last one that has everything stays In, gone or not.
    assert_eq!(world.service(Command::DiskAbsent { disk: A }), Reply::Done);
    assert_eq!(group(&world, 2), (2, vec![(A, In), (B, Absent)]));
    assert_eq!(world.service(Command::RetireDisk { disk: A }), REFUSED(Errno::EBUSY));
    for _ in 0..2 {
        assert_eq!(world.service(Command::DiskBack { disk: B }), Reply::Done);
        assert_eq!(group(&world, 2), (3, vec![(A, In), (B, Filling)]));
    }
    assert_eq!(world.service(Command::DiskAbsent { disk: A }), Reply::Done);
    assert_eq!(
        group(&world, 2),
        (3, vec![(A, In), (B, Filling)]),
        "a slot that is filled has not everything"
    );
    let filled = |epoch| Command::SlotFilled { group: GroupId(2), disk: B, epoch: Epoch(epoch) };
    assert_eq!(world.service(filled(2)), REFUSED(Errno::ESTALE), "filled before it went");
    for _ in 0..2 {
        assert_eq!(world.service(filled(3)), Reply::Done);
        assert_eq!(group(&world, 2), (3, vec![(A, In), (B, In)]));
    }
    assert_eq!(world.service(Command::DiskAbsent { disk: [9; 16] }), REFUSED(Errno::ENOENT));
    world.assert_sound();
}

#[test]
fn a_slot_is_taken_over_and_its_old_disk_is_retired() {
    let mut world = three();
    let replace = |group, old, new| Command::ReplaceSlot { group: GroupId(group), old, new };
    assert_eq!(world.service(replace(2, B, C)), REFUSED(Errno::EBUSY));
    assert_eq!(world.service(Command::DiskAbsent { disk: B }), Reply::Done);
    assert_eq!(world.service(replace(3, B, C)), REFUSED(Errno::EINVAL), "C is in it");
    for _ in 0..2 {
        assert_eq!(world.service(replace(2, B, C)), Reply::Done);
        assert_eq!(group(&world, 2), (3, vec![(A, In), (C, Filling)]));
    }
    assert_eq!(world.service(Command::AddDisk { disk: B, bytes: 9 }), Reply::Done, "it has a slot still");
    assert_eq!(world.service(replace(3, B, A)), Reply::Done);
    let stale = REFUSED(Errno::ESTALE);
    assert_eq!(world.service(Command::AddDisk { disk: B, bytes: 9 }), stale);
    assert_eq!(world.service(Command::DiskBack { disk: B }), stale);
    assert_eq!(world.service(Command::AddGroup { disks: vec![A, B] }), stale);
    assert_eq!(world.service(Command::RetireDisk { disk: B }), Reply::Done);
    world.assert_sound();
}

proptest! {
    #[test]
    fn no_order_of_commands_leaves_a_group_without_its_data(
        steps in proptest::collection::vec((0..6_u8, 0..3_usize, 0..3_usize, 2..4_u32), 1..40),
    ) {
        let mut world = three();
        for (what, one, other, id) in steps {
            let (disk, other, id) = ([A, B, C][one], [A, B, C][other], GroupId(id));
            let epoch = Epoch(group(&world, id.0).0);
            let command = match what {
                0 => Command::DiskAbsent { disk },
                1 => Command::DiskBack { disk },
                2 => Command::SlotFilled { group: id, disk, epoch },
                3 => Command::ReplaceSlot { group: id, old: disk, new: other },
                4 => Command::AddGroup { disks: vec![disk, other] },
                _ => Command::RetireDisk { disk },
            };
            let before = [group(&world, 2), group(&world, 3)];
            let reply = world.service(command.clone());
            let after = [group(&world, 2), group(&world, 3)];
            // Repeated, it changes nothing: a reply that was lost is asked for again.
            if reply == Reply::Done {
                prop_assert_eq!(world.service(command), Reply::Done);
                prop_assert_eq!([group(&world, 2), group(&world, 3)], after.clone());
            }
            for (before, after) in before.iter().zip(&after) {
                let present = |slots: &[([u8; 16], SlotState)]| {
                    slots.iter().map(|(disk, state)| (*disk, *state != Absent)).collect::<Vec<_>>()
                };
                let same = present(&before.1) == present(&after.1);
                prop_assert_eq!(same, before.0 == after.0, "who is written and the epoch change together");
                prop_assert_eq!(after.1.iter().any(|(_, state)| *state == In), true);
            }
            world.assert_sound();
        }
    }
}
