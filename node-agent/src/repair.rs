//! Copies that were found bad are written anew from a good one.

use std::sync::Arc;

use extents::{BadCopy, Group};
use meta_client::{CallError, MetaService};
use namespace::{Answer, ExtentRow, Query};
use store::PutError;

use crate::copies;
use crate::figures::{Figures, add};
use crate::keeper::Keeper;

/// Why a bad copy was not replaced. It is found again by the next read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RepairError {
    /// The metadata service did not answer.
    #[error(transparent)]
    Ask(#[from] CallError),
    /// The disk did not take the new copy.
    #[error("the disk did not take a new copy")]
    Put(#[from] PutError),
    /// The metadata service answered something else than was asked.
    #[error("the metadata service does not speak our protocol")]
    Protocol,
}

/// What became of a bad copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repaired {
    /// It is good now.
    Written,
    /// It is good already, or its extent or its slot is not what it was.
    NotNeeded,
    /// No good copy is here.
    NoSource,
}

/// Replaces bad copies.
pub struct Repair {
    keeper: Arc<Keeper>,
    service: Arc<dyn MetaService>,
    figures: Arc<Figures>,
}

impl Repair {
    /// Of the groups of `keeper`.
    pub fn new(keeper: Arc<Keeper>, service: Arc<dyn MetaService>, figures: Arc<Figures>) -> Repair {
        Repair { keeper, service, figures }
    }

    /// Looks at the copy, and if it is bad and its extent alive, writes it anew, elsewhere on the same disk. Durable
    /// on return; until then the old one stays.
    pub async fn mend(&self, bad: BadCopy) -> Result<Repaired, RepairError> {
        let BadCopy { row, index, disk } = bad;
        let groups = self.keeper.snapshot();
        let group = groups.iter().find(|group| group.id == row.group);
        let slot = group.and_then(|group| group.slots.get(index));
        let (Some(group), Some(slot)) = (group, slot.filter(|slot| slot.disk == disk && slot.is_present()))
        else {
            return Ok(Repaired::NotNeeded);
        };
        let Some(store) = &slot.store else { return Ok(Repaired::NotNeeded) };
        // Not what is remembered of it: a header may be bad on the disk and good in memory.
        let there = store.check(group.fragment(row.id, row.layout, index)).await;
        if there.is_ok_and(|copy| copies::is_of(&copy, &row)) || !self.is_alive(&row).await? {
            return Ok(Repaired::NotNeeded);
        }
        let mut good = None;
        for (other, _) in group.present().filter(|(other, _)| *other != index) {
            good = read(group, other, &row).await;
            if good.is_some() {
                break;
            }
        }
        let Some(bytes) = good else { return Ok(Repaired::NoSource) };
        let (put, data) = copies::put(group.fragment(row.id, row.layout, index), group.epoch, &bytes);
        store.replace(put, data).await?;
        add(&self.figures.repaired, 1);
        tracing::info!(extent = %row.id, %disk, "a bad copy was replaced by a good one");
        Ok(Repaired::Written)
    }

    /// A row still says that the extent is there: a copy of a dead one would never be found.
    async fn is_alive(&self, row: &ExtentRow) -> Result<bool, RepairError> {
        match self.service.read(Query::ExtentRows { ids: vec![row.id] }).await? {
            Answer::Extents(rows) => Ok(rows.contains(row)),
            _ => Err(RepairError::Protocol),
        }
    }
}

/// The copy at `index`, if it is what the extent's row says.
async fn read(group: &Group, index: usize, row: &ExtentRow) -> Option<Vec<u8>> {
    let store = group.slots[index].store.as_ref()?;
    let id = group.fragment(row.id, row.layout, index);
    let bytes = copies::read(store.as_ref(), id, row.stored_len).await.ok()?;
    (bytes.len() == row.stored_len as usize && copies::content(&bytes) == row.content_crc).then_some(bytes)
}
