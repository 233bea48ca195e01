//! The fragments of extents that nothing names any more are deleted, then their rows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use extents::{Group, Placement};
use meta_client::{CallError, MetaService};
use namespace::{Answer, Command, Envelope, ExtentRow, Query, Reply};
use store::DeleteError;
use types::{Errno, ExtentId, FragmentId, VolumeId};

use crate::figures::{Figures, add};

/// Dead extents of one volume that one step deletes at most.
const BATCH: u32 = 512;

/// Why a step failed. It can be repeated.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReclaimError {
    /// A store did not delete fragments.
    #[error("deleting fragments failed")]
    Delete(#[from] DeleteError),
    /// The metadata service did not answer.
    #[error(transparent)]
    Ask(#[from] CallError),
    /// The metadata service did not drop the rows.
    #[error("the metadata service kept the rows of dead extents: {0}")]
    Refused(Errno),
    /// The metadata service answered something else than was asked.
    #[error("the metadata service does not speak our protocol")]
    Protocol,
}

/// Frees dead extents, volume by volume.
///
/// An extent is dead for ever: its fragments are deleted durably on every present slot of its group, and only then its
/// row goes, so a step that is cut off anywhere is found again and repeated. What an Absent slot has of it is found by
/// the sweep when its disk is back.
pub struct Reclaim {
    placement: Arc<dyn Placement>,
    service: Arc<dyn MetaService>,
    figures: Arc<Figures>,
}

impl Reclaim {
    /// For the dead extents of the groups of `placement`.
    pub fn new(
        placement: Arc<dyn Placement>,
        service: Arc<dyn MetaService>,
        figures: Arc<Figures>,
    ) -> Reclaim {
        Reclaim { placement, service, figures }
    }

    /// Frees at most 512 dead extents of each volume. Answers how many; 0 when there is nothing to do.
    pub async fn step(&self) -> Result<u64, ReclaimError> {
        let volumes = match self.service.read(Query::Volumes).await? {
            Answer::Volumes(volumes) => volumes,
            _ => return Err(ReclaimError::Protocol),
        };
        let groups = self.placement.groups();
        let in_reach =
            |row: &ExtentRow| groups.iter().any(|group| group.id == row.group && group.is_reachable());
        let (mut freed, mut out_of_reach) = (0, 0);
        for volume in volumes {
            let dead = self.dead(volume.id).await?;
            let (here, elsewhere): (Vec<ExtentRow>, Vec<ExtentRow>) = dead.into_iter().partition(in_reach);
            out_of_reach += elsewhere.len() as u64;
            for group in groups.iter() {
                delete(group, &here).await?;
            }
            let ids: Vec<ExtentId> = here.iter().map(|row| row.id).collect();
            freed += ids.len() as u64;
            if !ids.is_empty() {
                self.drop_rows(ids).await?;
            }
        }
        self.figures.out_of_reach.store(out_of_reach, Ordering::Relaxed);
        add(&self.figures.dead_extents, freed);
        Ok(freed)
    }

    async fn dead(&self, volume: VolumeId) -> Result<Vec<ExtentRow>, ReclaimError> {
        match self.service.read(Query::DeadExtents { volume, max: BATCH }).await? {
            Answer::Extents(rows) => Ok(rows),
            // Deleted meanwhile.
            Answer::Failed(Errno::ENOENT | Errno::ESTALE) => Ok(Vec::new()),
            _ => Err(ReclaimError::Protocol),
        }
    }

    async fn drop_rows(&self, ids: Vec<ExtentId>) -> Result<(), ReclaimError> {
        match self.service.call(Envelope { slot: None, command: Command::DropExtents { ids } }).await? {
            Reply::Done => Ok(()),
            Reply::Failed(errno) => Err(ReclaimError::Refused(errno)),
            _ => Err(ReclaimError::Protocol),
        }
    }
}

/// Deletes the fragments that `group` holds of these extents.
async fn delete(group: &Group, rows: &[ExtentRow]) -> Result<(), DeleteError> {
    for (index, slot) in group.present() {
        let Some(store) = &slot.store else { continue };
        let fragment = |row: &ExtentRow| group.fragment(row.id, row.layout, index);
        let ids: Vec<FragmentId> = rows.iter().filter(|row| row.group == group.id).map(fragment).collect();
        if !ids.is_empty() {
            store.delete(ids).await?;
        }
    }
    Ok(())
}
