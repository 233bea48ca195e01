//! Several copies: disks that fail, come back, are replaced and filled.

use std::collections::BTreeMap;
use std::sync::Arc;

use extents::memory::MemoryStore;
use extents::{BadCopy, Extents, Group, Placement};
use meta_client::Session;
use namespace::{ExtentRow, NewExtent, SlotState};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use store::{DiskId, FragmentStore};
use tokio::sync::mpsc;
use types::SessionId;

use super::{Cluster, LEN, Mount, row};
use crate::verify::{self, Problem};
use crate::{
    Figures, Fill, FillStep, Keeper, KeeperError, Reclaim, Repair, Repaired, Scrub, ScrubState, Scrubbed,
    Sweep,
};

/// Metadata, and disks that outlive a keeper.
struct Bench {
    cluster: Cluster,
    disks: BTreeMap<DiskId, Arc<MemoryStore>>,
    keeper: Arc<Keeper>,
    bad: mpsc::Receiver<BadCopy>,
    figures: Arc<Figures>,
}

fn id(n: u8) -> DiskId {
    DiskId([n; 16])
}

fn dyn_stores(disks: &BTreeMap<DiskId, Arc<MemoryStore>>) -> Vec<(DiskId, Arc<dyn FragmentStore>)> {
    disks.iter().map(|(id, store)| (*id, Arc::clone(store) as Arc<dyn FragmentStore>)).collect()
}

impl Bench {
    /// `count` disks with two copies.
    async fn new(count: u8) -> Bench {
        let cluster = Cluster::bare().await;
        let disks: BTreeMap<_, _> =
            (1..=count).map(|n| (id(n), Arc::new(MemoryStore::new(64 << 20)))).collect();
        let (keeper, bad) = Keeper::start(cluster.service(), dyn_stores(&disks), 2).await.expect("started");
        Bench { cluster, disks, keeper, bad, figures: Arc::default() }
    }

    /// A new start of the program with these disks; those that were broken work again.
    async fn restart(&mut self, with: &[u8]) -> Result<(), KeeperError> {
        for n in with {
            let made = self.disks.entry(id(*n)).or_insert_with(|| Arc::new(MemoryStore::new(64 << 20)));
            made.set_broken(false);
        }
        let here = self.disks.iter().filter(|(disk, _)| with.iter().any(|n| id(*n) == **disk));
        let here = here.map(|(disk, store)| (*disk, Arc::clone(store))).collect();
        let (keeper, bad) = Keeper::start(self.cluster.service(), dyn_stores(&here), 2).await?;
        (self.keeper, self.bad) = (keeper, bad);
        Ok(())
    }

    async fn mount(&self) -> Mount {
        self.mount_of(1).await
    }

    /// The mount of a start of the node; sessions of earlier ones are closed.
    async fn mount_of(&self, incarnation: u64) -> Mount {
        let service = self.cluster.service();
        let session = Session::open(service, self.cluster.volume, 1, incarnation).await.expect("a session");
        let placement = Arc::clone(&self.keeper) as Arc<dyn Placement>;
        let extents = Extents::new(self.cluster.volume, session.info().session, 1, placement);
        Mount { session, extents }
    }

    fn reader(&self) -> Extents {
        let placement = Arc::clone(&self.keeper) as Arc<dyn Placement>;
        Extents::new(self.cluster.volume, SessionId(99), 1, placement)
    }

    async fn fill(&self) {
        let mut fill = self.filler();
        while fill.step().await.expect("filled") != FillStep::Nothing {}
    }

    fn filler(&self) -> Fill {
        Fill::new(Arc::clone(&self.keeper), self.cluster.service(), Arc::clone(&self.figures))
    }

    async fn sweep(&self) {
        let placement = Arc::clone(&self.keeper) as Arc<dyn Placement>;
        let mut sweep = Sweep::new(placement, self.cluster.service(), Arc::clone(&self.figures));
        sweep.round().await.expect("a round");
    }

    async fn reclaim(&self) {
        let placement = Arc::clone(&self.keeper) as Arc<dyn Placement>;
        let reclaim = Reclaim::new(placement, self.cluster.service(), Arc::clone(&self.figures));
        while reclaim.step().await.expect("reclaimed") > 0 {}
    }

    fn states(&self) -> Vec<Vec<(u8, SlotState)>> {
        let slots = |group: &Group| group.slots.iter().map(|slot| (slot.disk.0[0], slot.state)).collect();
        self.keeper.snapshot().iter().map(slots).collect()
    }

    fn is_whole(&self) -> bool {
        self.states().iter().flatten().all(|(_, state)| *state == SlotState::In)
    }

    async fn problems(&self, row: &ExtentRow) -> Vec<Problem> {
        verify::extent(&self.keeper.snapshot(), row).await
    }

    fn break_disk(&self, n: u8) {
        self.disks[&id(n)].set_broken(true);
    }
}

#[tokio::test]
async fn a_scrub_finds_what_is_bad_or_missing_in_any_slot_and_has_it_repaired() {
    let mut bench = Bench::new(2).await;
    let mount = bench.mount().await;
    let mut bad = Vec::new();
    for n in 0..200 {
        let extent = mount.seal().await;
        mount.file(&format!("f{n}"), &extent).await;
        bad.push(extent);
    }
    let group = bench.keeper.snapshot()[0].clone();
    let copy = |n: usize, index: usize| group.fragment(bad[n].id, bad[n].layout, index);
    let store = |index: usize| &bench.disks[&group.slots[index].disk];
    // Two rotten ones, one missing in each slot; a file that is removed and one that is bad everywhere.
    store(0).rot(copy(3, 0), 5000);
    store(1).rot(copy(90, 1), 1);
    store(0).delete(vec![copy(7, 0)]).await.expect("deleted");
    store(1).delete(vec![copy(199, 1)]).await.expect("deleted");
    store(1).rot(copy(11, 1), 1);
    store(0).rot(copy(12, 0), 1);
    store(1).rot(copy(12, 1), 1);
    mount.remove(&bench.cluster, "f11").await;
    let placement = Arc::clone(&bench.keeper) as Arc<dyn Placement>;
    let mut scrub = Scrub::new(placement, bench.cluster.service(), ScrubState::default());
    while scrub.step(1).await.expect("a step") != Scrubbed::Pass {}
    assert_eq!(scrub.state().bad_in_pass, 6);
    let repair = Repair::new(Arc::clone(&bench.keeper), bench.cluster.service(), Arc::clone(&bench.figures));
    let mut done = Vec::new();
    while let Ok(heard) = bench.bad.try_recv() {
        done.push(repair.mend(heard).await.expect("mended"));
    }
    let count = |what: Repaired| done.iter().filter(|done| **done == what).count();
    assert_eq!((count(Repaired::Written), count(Repaired::NoSource), done.len()), (4, 2, 6));
    for n in [3, 7, 90, 199] {
        assert_eq!(bench.problems(&row(&bad[n])).await, vec![]);
    }
    while scrub.step(1).await.expect("a step") != Scrubbed::Pass {}
    assert_eq!(scrub.state().bad_in_pass, 2, "only what has no good copy");
}

#[tokio::test]
async fn a_scrub_passes_over_slots_that_are_away_or_filled() {
    let mut bench = Bench::new(2).await;
    let mount = bench.mount().await;
    for n in 0..10 {
        mount.file(&format!("f{n}"), &mount.seal().await).await;
    }
    bench.break_disk(2);
    bench.keeper.look().await.expect("looked");
    let placement = Arc::clone(&bench.keeper) as Arc<dyn Placement>;
    let mut scrub = Scrub::new(placement, bench.cluster.service(), ScrubState::default());
    while scrub.step(1).await.expect("a step") != Scrubbed::Pass {}
    assert_eq!(scrub.state().bad_in_pass, 0);
    bench.restart(&[1, 3]).await.expect("a new disk takes over");
    assert!(!bench.is_whole());
    let placement = Arc::clone(&bench.keeper) as Arc<dyn Placement>;
    let mut scrub = Scrub::new(placement, bench.cluster.service(), scrub.state().clone());
    while scrub.step(1).await.expect("a step") != Scrubbed::Pass {}
    assert_eq!((scrub.state().passes, scrub.state().bad_in_pass), (2, 0));
}

#[tokio::test]
async fn a_disk_that_fails_is_given_up_and_filled_when_it_is_back() {
    let mut bench = Bench::new(2).await;
    let mount = bench.mount().await;
    let early = mount.seal().await;
    mount.file("early", &early).await;
    bench.break_disk(2);
    let late = mount.seal().await;
    mount.file("late", &late).await;
    assert_eq!(bench.states(), [[(1, SlotState::In), (2, SlotState::Absent)]]);
    let lacks = |extent| vec![Problem::Lacks { extent, disk: id(2) }];
    assert_eq!(bench.problems(&row(&late)).await, lacks(late.id));
    let first = mount.extents.read(&row(&early), 0..LEN as u32).await;
    assert_eq!(first.expect("the other copy serves"), [7; LEN]);

    // While it was away a file went, whose copy it still has.
    mount.remove(&bench.cluster, "early").await;
    bench.reclaim().await;
    bench.restart(&[1, 2]).await.expect("started");
    assert_eq!(bench.states(), [[(1, SlotState::In), (2, SlotState::Filling)]]);
    mount.settle().await;
    bench.fill().await;
    assert!(bench.is_whole());
    assert_eq!(bench.problems(&row(&late)).await, []);
    bench.sweep().await;
    assert_eq!(bench.disks[&id(2)].fragments(), 1, "what metadata calls dead goes");
    bench.break_disk(1);
    let read = bench.reader().read(&row(&late), 0..LEN as u32).await;
    assert_eq!(read.expect("from the filled one"), [7; LEN]);
}

#[tokio::test]
async fn a_failed_disk_is_noticed_without_writes_and_the_last_one_never_turns_absent() {
    let bench = Bench::new(2).await;
    bench.break_disk(1);
    bench.keeper.look().await.expect("looked");
    assert_eq!(bench.states(), [[(1, SlotState::Absent), (2, SlotState::In)]]);
    bench.break_disk(2);
    for _ in 0..2 {
        bench.keeper.look().await.expect("looked");
        assert_eq!(bench.states(), [[(1, SlotState::Absent), (2, SlotState::In)]]);
    }
    let mount = bench.mount().await;
    mount.extents.seal(&[1; 10]).await.expect_err("no disk works");
    assert_eq!(bench.keeper.retire(id(2)).await, Err(KeeperError::LastCopy(id(2))));
}

#[tokio::test]
async fn a_disk_with_the_only_copy_must_be_given() {
    let mut bench = Bench::new(2).await;
    let mount = bench.mount().await;
    bench.restart(&[1]).await.expect("one copy is here");
    let before = bench.states();
    assert_eq!(bench.restart(&[2]).await.map(|()| bench.states()), Err(KeeperError::Away(vec![id(1)])));
    assert_eq!(bench.states(), before, "nothing was changed");
    drop(mount);
    bench.restart(&[1, 2]).await.expect("started");
    bench.fill().await;
    bench.restart(&[2]).await.expect("it has everything now");
}

#[tokio::test]
async fn a_new_disk_takes_over_and_the_old_one_is_refused() {
    let mut bench = Bench::new(3).await;
    assert_eq!(bench.states().len(), 3, "every pair");
    let mount = bench.mount().await;
    let mut made = Vec::new();
    for n in 0..12 {
        let extent = mount.seal().await;
        mount.file(&format!("f{n}"), &extent).await;
        made.push(extent);
    }
    bench.restart(&[1, 2, 4]).await.expect("a disk left out, a blank one given");
    bench.fill().await;
    assert!(bench.is_whole());
    let disks: Vec<u8> = bench.states().iter().flatten().map(|(disk, _)| *disk).collect();
    assert!(!disks.contains(&3) && disks.contains(&4));
    for extent in &made {
        assert_eq!(bench.problems(&row(extent)).await, []);
    }
    assert_eq!(bench.restart(&[1, 2, 3, 4]).await, Err(KeeperError::Retired(id(3))));
    assert!(bench.figures.counts().filled_fragments > 0);
}

#[tokio::test]
async fn a_disk_that_is_said_to_have_failed_is_healed_onto_the_others() {
    let bench = Bench::new(3).await;
    let mount = bench.mount().await;
    let mut made = Vec::new();
    for n in 0..9 {
        made.push(mount.seal().await);
        mount.file(&format!("f{n}"), &made[n]).await;
    }
    bench.break_disk(3);
    assert_eq!(bench.keeper.retire(id(9)).await, Err(KeeperError::NoDisk(id(9))));
    for _ in 0..2 {
        bench.keeper.retire(id(3)).await.expect("retired");
    }
    let written = mount.seal().await;
    mount.file("meanwhile", &written).await;
    made.push(written);
    bench.fill().await;
    assert!(bench.is_whole());
    for extent in &made {
        assert_eq!(bench.problems(&row(extent)).await, []);
    }
}

#[tokio::test]
async fn a_bad_copy_is_written_anew_from_the_good_one() {
    let mut bench = Bench::new(2).await;
    let mount = bench.mount().await;
    let extents = [mount.seal().await, mount.seal().await];
    mount.file("a", &extents[0]).await;
    mount.file("b", &extents[1]).await;
    // Reads begin with another slot for each extent: one of the two meets the rot.
    let group = &bench.keeper.snapshot()[0];
    let rotten = |extent: &NewExtent| group.fragment(extent.id, extent.layout, 0);
    for extent in &extents {
        bench.disks[&id(1)].rot(rotten(extent), 5000);
        let read = mount.extents.read(&row(extent), 0..LEN as u32).await;
        assert_eq!(read.expect("the other one serves"), [7; LEN]);
    }
    let bad = bench.bad.try_recv().expect("one was met");
    assert!(bench.bad.try_recv().is_err());
    assert_eq!((bad.index, bad.disk), (0, id(1)));
    let repair = || Repair::new(Arc::clone(&bench.keeper), bench.cluster.service(), Arc::default());
    assert_eq!(repair().mend(bad).await, Ok(Repaired::Written));
    assert_eq!(repair().mend(bad).await, Ok(Repaired::NotNeeded));
    let other = extents.iter().find(|extent| extent.id != bad.row.id).expect("two");
    let unmet = BadCopy { row: row(other), ..bad };
    bench.disks[&id(2)].rot(group.fragment(other.id, other.layout, 1), 8000);
    assert_eq!(repair().mend(unmet).await, Ok(Repaired::NoSource), "both are bad");
    bench.disks[&id(2)].set_broken(true);
    let read = mount.extents.read(&bad.row, 0..LEN as u32).await;
    assert_eq!(read.expect("the repaired one serves"), [7; LEN]);
    mount.extents.read(&row(other), 0..LEN as u32).await.expect_err("never bad bytes");

    // A copy of what is dead would never be found again, so none is made.
    bench.disks[&id(2)].set_broken(false);
    mount.remove(&bench.cluster, "b").await;
    let gone = BadCopy { row: row(&extents[1]), ..bad };
    let store = &bench.disks[&id(1)];
    store.delete(vec![rotten(&extents[1])]).await.expect("deleted");
    assert_eq!(repair().mend(gone).await, Ok(Repaired::NotNeeded));
}

#[tokio::test]
async fn what_died_while_it_was_copied_is_not_brought_back() {
    let mut bench = Bench::new(2).await;
    bench.restart(&[1]).await.expect("started");
    let mount = bench.mount().await;
    let extent = mount.seal().await;
    mount.file("a", &extent).await;
    mount.settle().await;
    bench.restart(&[1, 2]).await.expect("started");
    // The row goes, the fragment on the source stays: as a fill sees it that read just before.
    mount.remove(&bench.cluster, "a").await;
    let drop_row = namespace::Command::DropExtents { ids: vec![extent.id] };
    super::slotless(&bench.cluster.service, drop_row).await;
    mount.session.close().await.expect("closed");
    bench.fill().await;
    assert!(bench.is_whole());
    assert_eq!((bench.disks[&id(1)].fragments(), bench.disks[&id(2)].fragments()), (1, 0));
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Do {
    Write,
    Break(u8),
    Restart(u8),
    Fill,
    Remove,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    /// Whatever fails, comes back and is replaced in any order while files are written and removed: what was
    /// acknowledged is read, and when all disks are back and filled each file has two good copies.
    #[test]
    fn nothing_acknowledged_is_lost_while_disks_flap(
        steps in proptest::collection::vec((0..10_u8, any::<u8>()), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut bench = Bench::new(3).await;
            let mut mount = bench.mount().await;
            let mut fill = bench.filler();
            let mut live: Vec<(String, NewExtent)> = Vec::new();
            let mut starts = 1;
            for (n, (what, arg)) in steps.into_iter().enumerate() {
                let step = match what {
                    0..=3 => Do::Write,
                    4 => Do::Break(arg % 3 + 1),
                    5 | 6 => Do::Restart(arg % 7 + 1),
                    7 | 8 => Do::Fill,
                    _ => Do::Remove,
                };
                match step {
                    Do::Write => {
                        if let Ok(extent) = mount.extents.seal(&[7; LEN]).await {
                            mount.file(&format!("f{n}"), &extent).await;
                            live.push((format!("f{n}"), extent));
                        }
                    }
                    Do::Break(disk) => bench.break_disk(disk),
                    Do::Restart(mask) => {
                        let with: Vec<u8> = (1..=3).filter(|disk| mask & (1 << (disk - 1)) != 0).collect();
                        if bench.restart(&with).await.is_err() {
                            continue;
                        }
                        starts += 1;
                        let register = namespace::Command::RegisterNode { node: 1, incarnation: starts };
                        super::slotless(&bench.cluster.service, register).await;
                        mount = bench.mount_of(starts).await;
                        fill = bench.filler();
                    }
                    Do::Fill => {
                        // A disk that fails meanwhile fails the step, which loses nothing.
                        let _ = fill.step().await;
                    }
                    Do::Remove => {
                        if let Some((name, _)) = live.pop() {
                            mount.remove(&bench.cluster, &name).await;
                        }
                    }
                }
            }
            bench.restart(&[1, 2, 3]).await.expect("all are back");
            for (_, extent) in &live {
                let read = bench.reader().read(&row(extent), 0..LEN as u32).await;
                prop_assert_eq!(read, Ok(vec![7; LEN]));
            }
            bench.fill().await;
            prop_assert!(bench.is_whole());
            for (_, extent) in &live {
                prop_assert_eq!(bench.problems(&row(extent)).await, vec![]);
            }
            Ok(())
        })?;
    }
}
