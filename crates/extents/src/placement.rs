//! Placement groups as a process sees them now, and who changes them when disks fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use namespace::{ExtentRow, SlotState};
use store::{DiskId, FragmentStore, Space, StoreFuture};
use types::{Epoch, ExtentId, FragmentId, FragmentKind, GroupId, LayoutId};

/// A slot of a placement group.
#[derive(Clone)]
pub struct Slot {
    /// The disk whose it is.
    pub disk: DiskId,
    /// What it is for.
    pub state: SlotState,
    /// The disk's fragments; `None` while this process cannot reach it.
    pub store: Option<Arc<dyn FragmentStore>>,
}

/// A placement group.
#[derive(Clone)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its epoch, as this process knows it.
    pub epoch: Epoch,
    /// A whole copy goes to each present one; at least one, at most 256.
    pub slots: Vec<Slot>,
}

/// A copy that is not what it should be, although another one is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadCopy {
    /// Of which extent.
    pub row: ExtentRow,
    /// In which slot of its group.
    pub index: usize,
    /// On which disk.
    pub disk: DiskId,
}

/// The groups of a process, and who looks after them.
pub trait Placement: Send + Sync + 'static {
    /// The groups as they are now. The same `Arc` as long as nothing changes.
    fn groups(&self) -> Arc<Vec<Group>>;

    /// These disks did not take a put. Resolves when their slots are Absent, as far as others have what is on them, and
    /// [`Placement::groups`] shows it. Dropping the future is safe.
    fn lost(&self, disks: Vec<DiskId>) -> StoreFuture<()>;

    /// A copy is bad and another one served. Does not wait; may be forgotten when there are too many.
    fn bad_copy(&self, copy: BadCopy);
}

/// Groups that never change: for a look at a stopped cluster, and for tests.
pub struct FixedPlacement(Arc<Vec<Group>>);

impl FixedPlacement {
    /// Just these.
    pub fn of(groups: Vec<Group>) -> Arc<FixedPlacement> {
        Arc::new(FixedPlacement(Arc::new(groups)))
    }
}

impl Placement for FixedPlacement {
    fn groups(&self) -> Arc<Vec<Group>> {
        Arc::clone(&self.0)
    }

    fn lost(&self, _: Vec<DiskId>) -> StoreFuture<()> {
        Box::pin(std::future::ready(()))
    }

    fn bad_copy(&self, _: BadCopy) {}
}

impl Slot {
    /// A slot that holds everything, on a store that can be reached.
    pub fn held(disk: DiskId, store: Arc<dyn FragmentStore>) -> Slot {
        Slot { disk, state: SlotState::In, store: Some(store) }
    }

    /// Whether it must be written.
    pub fn is_present(&self) -> bool {
        self.state != SlotState::Absent
    }
}

impl Group {
    /// A group whose slots all hold everything, on `stores`; their disks are numbered. For tests.
    pub fn numbered(id: GroupId, stores: Vec<Arc<dyn FragmentStore>>) -> Group {
        let slot = |(at, store)| Slot::held(DiskId([at as u8; 16]), store);
        Group { id, epoch: Epoch(1), slots: stores.into_iter().enumerate().map(slot).collect() }
    }

    /// The slots that must be written, each with its index.
    pub fn present(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.is_present())
    }

    /// How many slots hold everything, on disks that are here and work.
    pub fn held(&self) -> usize {
        let works = |slot: &&Slot| slot.store.as_ref().is_some_and(|store| !store.has_failed());
        self.slots.iter().filter(|slot| slot.state == SlotState::In).filter(works).count()
    }

    /// Whether no slot is Absent.
    pub fn is_whole(&self) -> bool {
        self.slots.iter().all(Slot::is_present)
    }

    /// Whether every slot that must be written has its disk here, failed or not.
    pub fn is_reachable(&self) -> bool {
        self.present().all(|(_, slot)| slot.store.is_some())
    }

    /// Whether the disk of a slot that must be written has failed: a put will fail, and say so.
    fn has_failed(&self) -> bool {
        self.present().any(|(_, slot)| slot.store.as_ref().is_some_and(|store| store.has_failed()))
    }

    /// With fewer present slots than this nothing is written: one for up to two copies, else more than half.
    pub fn min_present(&self) -> usize {
        if self.slots.len() <= 2 { 1 } else { self.slots.len() / 2 + 1 }
    }

    /// The name of the copy of an extent in the slot at `index`.
    ///
    /// # Panics
    /// If `index` is over 255.
    pub fn fragment(&self, extent: ExtentId, layout: LayoutId, index: usize) -> FragmentId {
        let index = u8::try_from(index).expect("a group has at most 256 slots");
        FragmentId { group: self.id, extent, layout, index, kind: FragmentKind::Data }
    }

    /// What the group can take, as much as its fullest slot; and what its slots have free in all, which tells groups
    /// apart that share their fullest disk.
    fn free(&self) -> (u64, u64) {
        let stores = self.present().filter_map(|(_, slot)| slot.store.as_ref());
        let free: Vec<u64> = stores.map(|store| store.space().free).collect();
        (free.iter().copied().min().unwrap_or(0), free.iter().sum())
    }
}

/// The groups that an extent may be put into: whole ones, and only where there is none, the others.
fn writable(groups: &[Group]) -> Vec<&Group> {
    let writable = |group: &&Group| group.is_reachable() && group.present().count() >= group.min_present();
    let mut writable: Vec<&Group> = groups.iter().filter(writable).collect();
    if writable.iter().any(|group| group.is_whole()) {
        writable.retain(|group| group.is_whole());
    }
    writable
}

/// The groups that an extent may be put into, the best one first: those with the most present slots, then by free
/// space. Those that are known to fail come last: they are tried, so that it is told.
pub(crate) fn candidates(groups: &[Group]) -> Vec<&Group> {
    let mut candidates = writable(groups);
    candidates.sort_by_cached_key(|group| {
        let best = (group.present().count(), group.free());
        (group.has_failed(), std::cmp::Reverse(best), group.id)
    });
    candidates
}

/// How much plaintext the groups that are written now can hold in all, and still take.
///
/// Groups share disks, so their sums say nothing: with `n` copies each on another disk, `x` bytes fit if the disks
/// together have `n * x` where none counts for more than `x`. Groups that failed count only where all have: a put will
/// say what is wrong with them, and it is not that they are full.
pub fn space(groups: &[Group]) -> Space {
    let mut written = writable(groups);
    if written.iter().any(|group| !group.has_failed()) {
        written.retain(|group| !group.has_failed());
    }
    let Some(copies) = written.iter().map(|group| group.present().count()).max() else {
        return Space::default();
    };
    let mut disks = BTreeMap::new();
    for group in written.iter().filter(|group| group.present().count() == copies) {
        for (_, slot) in group.present() {
            if let Some(store) = &slot.store {
                disks.entry(slot.disk).or_insert_with(|| store.space());
            }
        }
    }
    Space {
        total: capacity(disks.values().map(|space| space.total).collect(), copies),
        free: capacity(disks.values().map(|space| space.free).collect(), copies),
    }
}

/// How many bytes fit on disks of these sizes in so many copies, each on another disk: the largest `x` with
/// `copies * x <= sum(min(disk, x))`.
pub fn capacity(mut disks: Vec<u64>, copies: usize) -> u64 {
    disks.sort_unstable_by(|a, b| b.cmp(a));
    let mut copies = copies as u64;
    let mut rest: u64 = disks.iter().sum();
    // A disk larger than its share of what is left takes one copy of everything, whatever its size.
    for disk in disks {
        if copies <= 1 || disk <= rest / copies {
            break;
        }
        rest -= disk;
        copies -= 1;
    }
    rest.checked_div(copies).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::capacity;
    use proptest::prelude::{prop_assert, proptest};

    #[test]
    fn copies_share_unequal_disks() {
        assert_eq!(capacity(vec![10, 20, 30], 1), 60);
        assert_eq!(capacity(vec![10, 10, 10], 2), 15);
        assert_eq!(capacity(vec![100, 10, 10], 2), 20);
        assert_eq!(capacity(vec![100, 30], 2), 30);
        assert_eq!(capacity(vec![7], 2), 0);
        assert_eq!(capacity(vec![], 1), 0);
    }

    proptest! {
        #[test]
        fn what_fits_is_the_most_that_fits(
            disks in proptest::collection::vec(0..1000_u64, 1..7), copies in 1..5_usize
        ) {
            let holds = |x: u64| disks.iter().map(|disk| (*disk).min(x)).sum::<u64>() >= copies as u64 * x;
            let most = capacity(disks.clone(), copies);
            prop_assert!(holds(most), "{most}");
            prop_assert!(!holds(most + 1), "{most}");
        }
    }
}
