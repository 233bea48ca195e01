//! Slots that lack copies get them from those that have everything.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::IoError;
use extents::{Group, Slot};
use meta_client::MetaService;
use namespace::SlotState;
use store::{DiskId, FragmentInfo, FragmentStore, ListError, PutError};
use types::{Epoch, FragmentId, GroupId};

use crate::copies;
use crate::figures::{Figures, add};
use crate::keeper::{Keeper, KeeperError};
use crate::sweep::{self, SweepError};

/// Fragments that are compared at once.
const BATCH: usize = 512;

/// Bytes that one step copies, and at most one fragment more.
const STEP_BYTES: u64 = 4 << 20;

/// Why a step failed. It can be repeated; what was copied stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FillError {
    /// A store did not list its fragments.
    #[error("listing fragments failed")]
    List(#[from] ListError),
    /// A store of the group did not take its new epoch.
    #[error("a disk did not take the epoch of its group")]
    Fence(#[from] IoError),
    /// The disk that is filled did not take a copy.
    #[error("disk {disk} does not take the copies that it lacks")]
    Put {
        /// Which.
        disk: DiskId,
        /// Why.
        source: PutError,
    },
    /// What was copied could not be compared with the rows.
    #[error(transparent)]
    Compare(#[from] SweepError),
    /// The groups could not be changed.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FillStep {
    /// There is nothing to fill, or no one to fill it from.
    Nothing,
    /// There is more to do.
    More,
    /// A slot has everything now.
    Filled,
}

/// Fills one slot after the other.
///
/// First every present store of the group is fenced: after that whoever writes knows the slot and writes it too, so
/// what it lacks is among what the others list now. The list is compared anew whenever it is begun, also after a
/// restart: that takes no I/O, so no cursor is kept that could be wrong. A copy that was read before its extent died
/// is asked for after it was written, and deleted if nobody needs it.
pub struct Fill {
    keeper: Arc<Keeper>,
    service: Arc<dyn MetaService>,
    figures: Arc<Figures>,
    current: Option<Current>,
}

/// The slot that is being filled.
struct Current {
    group: GroupId,
    epoch: Epoch,
    index: usize,
    /// Which of the slots that have everything is listed.
    source: usize,
    after: Option<FragmentId>,
}

impl Fill {
    /// Fills what `keeper` knows to lack copies.
    pub fn new(keeper: Arc<Keeper>, service: Arc<dyn MetaService>, figures: Arc<Figures>) -> Fill {
        Fill { keeper, service, figures, current: None }
    }

    /// Copies some more.
    pub async fn step(&mut self) -> Result<FillStep, FillError> {
        let groups = self.keeper.snapshot();
        let waiting = groups.iter().map(|group| filling(group).count() as u64).sum();
        self.figures.fill_slots.store(waiting, Ordering::Relaxed);
        let current = self.current.take().filter(|current| is_still(current, &groups));
        let mut current = match current {
            Some(current) => current,
            None => match self.begin(&groups).await? {
                Some(current) => current,
                None => return Ok(FillStep::Nothing),
            },
        };
        let Some(group) = groups.iter().find(|group| group.id == current.group) else {
            return Ok(FillStep::Nothing);
        };
        let Some((_, from)) = sources(group).nth(current.source) else {
            let disk = group.slots[current.index].disk;
            if self.keeper.filled(group, disk).await? {
                tracing::info!(group = %group.id, %disk, "a slot has all copies again");
                return Ok(FillStep::Filled);
            }
            return Ok(FillStep::More);
        };
        let (ended, after) = self.copy_some(group, &current, from).await?;
        current.after = after;
        if ended {
            (current.source, current.after) = (current.source + 1, None);
        }
        self.current = Some(current);
        Ok(FillStep::More)
    }

    /// The next slot to fill; its group is fenced.
    async fn begin(&self, groups: &[Group]) -> Result<Option<Current>, FillError> {
        let ready = |group: &&Group| group.is_reachable() && sources(group).next().is_some();
        let next = groups.iter().filter(ready).find_map(|group| Some((group, filling(group).next()?)));
        let Some((group, (index, slot))) = next else { return Ok(None) };
        for (_, present) in group.present() {
            if let Some(store) = &present.store {
                store.fence(group.id, group.epoch).await?;
            }
        }
        let current = Current { group: group.id, epoch: group.epoch, index, source: 0, after: None };
        let mut lacking = 0;
        if let (Some((_, from)), Some(to)) = (sources(group).next(), &slot.store) {
            let mut after = None;
            loop {
                let listed = list(from, group.id, after).await?;
                let Some(last) = listed.last() else { break };
                after = Some(last.id);
                let missing = missing(to.as_ref(), &listed, index).await?;
                lacking += missing.iter().map(|fragment| u64::from(fragment.stored_len)).sum::<u64>();
            }
        }
        self.figures.fill_done.store(0, Ordering::Relaxed);
        self.figures.fill_total.store(lacking, Ordering::Relaxed);
        tracing::info!(group = %group.id, disk = %slot.disk, bytes = lacking, "filling a slot with what it lacks");
        Ok(Some(current))
    }

    /// Copies what the slot lacks of the next fragments of a source. Answers whether that was the source's end, and up
    /// to where all is there.
    async fn copy_some(
        &self,
        group: &Group,
        current: &Current,
        from: &Slot,
    ) -> Result<(bool, Option<FragmentId>), FillError> {
        let slot = &group.slots[current.index];
        let Some(to) = &slot.store else { return Ok((false, current.after)) };
        let listed = list(from, group.id, current.after).await?;
        let Some(last) = listed.last() else { return Ok((true, None)) };
        let mut after = Some(last.id);
        let (mut bytes, mut copied) = (0, Vec::new());
        for fragment in missing(to.as_ref(), &listed, current.index).await? {
            if bytes >= STEP_BYTES {
                after =
                    copied.last().map(|(source, _): &(FragmentId, FragmentInfo)| *source).or(current.after);
                break;
            }
            bytes += u64::from(fragment.stored_len);
            let id = group.fragment(fragment.id.extent, fragment.id.layout, current.index);
            match whole(group, &fragment).await {
                Some(whole) => {
                    let (put, data) = copies::put(id, group.epoch, &whole);
                    let put = to.put(put, data).await;
                    put.map_err(|source| FillError::Put { disk: slot.disk, source })?;
                    add(&self.figures.filled_fragments, 1);
                    add(&self.figures.filled_bytes, u64::from(fragment.stored_len));
                }
                None => {
                    add(&self.figures.unfillable, 1);
                    tracing::error!(extent = %fragment.id.extent, "no copy can be read, so none is made");
                }
            }
            add(&self.figures.fill_done, u64::from(fragment.stored_len));
            copied.push((fragment.id, FragmentInfo { id, ..fragment }));
        }
        // Asked after the copies are there: what died while they were made goes again.
        let made: Vec<FragmentInfo> = copied.into_iter().map(|(_, made)| made).collect();
        let orphans = sweep::orphans(self.service.as_ref(), &made).await?;
        if !orphans.is_empty() {
            let ids = orphans.into_iter().map(|orphan| orphan.id).collect();
            to.delete(ids).await.map_err(SweepError::from)?;
        }
        Ok((false, after))
    }
}

fn filling(group: &Group) -> impl Iterator<Item = (usize, &Slot)> {
    group.present().filter(|(_, slot)| slot.state == SlotState::Filling)
}

/// The slots that have everything and can be reached.
fn sources(group: &Group) -> impl Iterator<Item = (usize, &Slot)> {
    group.present().filter(|(_, slot)| slot.state == SlotState::In && slot.store.is_some())
}

fn is_still(current: &Current, groups: &[Group]) -> bool {
    let same = |group: &&Group| group.id == current.group && group.epoch == current.epoch;
    groups
        .iter()
        .find(same)
        .is_some_and(|group| group.is_reachable() && group.slots[current.index].state == SlotState::Filling)
}

async fn list(
    from: &Slot,
    group: GroupId,
    after: Option<FragmentId>,
) -> Result<Vec<FragmentInfo>, ListError> {
    match &from.store {
        Some(store) => store.list(group, after, BATCH).await,
        None => Err(IoError::Gone.into()),
    }
}

/// Which of the fragments of another slot the slot at `index` lacks.
async fn missing(
    to: &dyn FragmentStore,
    listed: &[FragmentInfo],
    index: usize,
) -> Result<Vec<FragmentInfo>, ListError> {
    let index = u8::try_from(index).expect("a group has at most 256 slots");
    let ids = listed.iter().map(|fragment| FragmentId { index, ..fragment.id }).collect();
    let there = to.have(ids).await?;
    Ok(listed.iter().zip(there).filter(|(_, there)| !there).map(|(fragment, _)| *fragment).collect())
}

/// A fragment's bytes from any slot that has everything.
async fn whole(group: &Group, fragment: &FragmentInfo) -> Option<Vec<u8>> {
    for (index, slot) in sources(group) {
        let Some(store) = &slot.store else { continue };
        let id = group.fragment(fragment.id.extent, fragment.id.layout, index);
        match copies::read(store.as_ref(), id, fragment.stored_len).await {
            Ok(bytes) => return Some(bytes),
            Err(error) => tracing::warn!(%id, disk = %slot.disk, %error, "a copy cannot be read"),
        }
    }
    None
}
