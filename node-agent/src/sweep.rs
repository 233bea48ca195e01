//! Fragments that no row names are found and deleted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use extents::Placement;
use meta_client::{CallError, MetaService};
use namespace::{Answer, ExtentRow, Query};
use store::{DeleteError, FragmentInfo, ListError};
use types::{ExtentId, FragmentId};

use crate::figures::{Figures, add};

/// Fragments that one step lists, asks about and deletes at most.
const BATCH: usize = 512;

/// Why a step of a sweep failed. It can be repeated.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SweepError {
    /// A store did not list its fragments.
    #[error("listing fragments failed")]
    List(#[from] ListError),
    /// A store did not delete fragments.
    #[error("deleting fragments failed")]
    Delete(#[from] DeleteError),
    /// The metadata service did not answer.
    #[error(transparent)]
    Ask(#[from] CallError),
    /// The metadata service answered something else than was asked.
    #[error("the metadata service does not speak our protocol")]
    Protocol,
}

/// Walks over all fragments of some groups, step by step, again and again.
///
/// A fragment goes if the metadata service, asked *after* it was listed, says that its extent has no row and its
/// session can give it none any more; or that its extent lives, in the same encoding, in another group: then this is
/// what is left of a put that failed before the extent was put there. Everything else stays. A step that is cut off
/// anywhere leaves nothing to undo.
pub struct Sweep {
    placement: Arc<dyn Placement>,
    service: Arc<dyn MetaService>,
    figures: Arc<Figures>,
    /// Group, slot, and the last fragment that was looked at.
    at: (usize, usize, Option<FragmentId>),
}

impl Sweep {
    /// A sweep over the groups of `placement` that begins at their first fragment.
    pub fn new(placement: Arc<dyn Placement>, service: Arc<dyn MetaService>, figures: Arc<Figures>) -> Sweep {
        Sweep { placement, service, figures, at: (0, 0, None) }
    }

    /// Looks at some more fragments. `true` if that was the end of a round; the next step begins a new one.
    ///
    /// After an error the same fragments are looked at again.
    pub async fn step(&mut self) -> Result<bool, SweepError> {
        let (group_at, slot_at, after) = self.at;
        let groups = self.placement.groups();
        let Some(group) = groups.get(group_at) else {
            self.at = (0, 0, None);
            add(&self.figures.sweeps, 1);
            return Ok(true);
        };
        let Some(slot) = group.slots.get(slot_at) else {
            self.at = (group_at + 1, 0, None);
            return Ok(false);
        };
        let Some(store) = slot.store.as_ref().filter(|_| slot.is_present()) else {
            self.at = (group_at, slot_at + 1, None);
            return Ok(false);
        };
        let listed = store.list(group.id, after, BATCH).await?;
        let Some(last) = listed.last() else {
            self.at = (group_at, slot_at + 1, None);
            return Ok(false);
        };
        let last = last.id;
        add(&self.figures.listed, listed.len() as u64);
        let orphans = orphans(self.service.as_ref(), &listed).await?;
        if !orphans.is_empty() {
            store.delete(orphans.iter().map(|orphan| orphan.id).collect()).await?;
            add(&self.figures.orphans, orphans.len() as u64);
            add(&self.figures.orphan_bytes, orphans.iter().map(|orphan| u64::from(orphan.stored_len)).sum());
            tracing::info!(group = %group.id, fragments = orphans.len(), "deleted fragments that no row names");
        }
        self.at = (group_at, slot_at, Some(last));
        Ok(false)
    }

    /// Finishes the round that is begun, or a whole one.
    pub async fn round(&mut self) -> Result<(), SweepError> {
        while !self.step().await? {}
        Ok(())
    }
}

/// Which of the listed fragments may go.
pub(crate) async fn orphans(
    service: &dyn MetaService,
    listed: &[FragmentInfo],
) -> Result<Vec<FragmentInfo>, SweepError> {
    let ids: BTreeSet<ExtentId> = listed.iter().map(|fragment| fragment.id.extent).collect();
    let ids: Vec<ExtentId> = ids.into_iter().collect();
    let garbage: BTreeSet<ExtentId> = match service.read(Query::Garbage { ids: ids.clone() }).await? {
        Answer::Garbage(garbage) => garbage.into_iter().collect(),
        _ => return Err(SweepError::Protocol),
    };
    let named = ids.into_iter().filter(|id| !garbage.contains(id)).collect();
    let rows: HashMap<ExtentId, ExtentRow> = match service.read(Query::ExtentRows { ids: named }).await? {
        Answer::Extents(rows) => rows.into_iter().map(|row| (row.id, row)).collect(),
        _ => return Err(SweepError::Protocol),
    };
    let orphan = |fragment: &&FragmentInfo| {
        let id = fragment.id;
        let moved = rows.get(&id.extent).is_some_and(|row| row.layout == id.layout && row.group != id.group);
        garbage.contains(&id.extent) || moved
    };
    Ok(listed.iter().filter(orphan).copied().collect())
}
