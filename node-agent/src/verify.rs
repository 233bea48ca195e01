//! The offline check of what rows and disks say of each other: the stores' half of fsck.
//!
//! Nothing is changed. The caller reads the rows, for nobody else may have them open.

use std::collections::{BTreeSet, HashMap};

use checksum::{block_crcs, content_crc};
use extents::Group;
use namespace::{ExtentRow, SlotState};
use store::{DiskId, FragmentInfo, ListError, ReadError};
use types::{ExtentId, FragmentId, GroupId};

/// Fragments that are listed at once.
const BATCH: usize = 4096;

/// What is wrong with a fragment that a live extent needs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// None of its disks is here.
    #[error("extent {extent} is in group {group}, which has no disk here")]
    NoGroup {
        /// Which extent.
        extent: ExtentId,
        /// Which group.
        group: GroupId,
    },
    /// A disk that is being filled, or is away, has no copy yet; others have.
    #[error("disk {disk} lacks a copy of extent {extent}")]
    Lacks {
        /// Which extent.
        extent: ExtentId,
        /// Which disk.
        disk: DiskId,
    },
    /// A disk that should hold a copy is not here.
    #[error("disk {disk} is not here, with a copy of extent {extent}")]
    Away {
        /// Which extent.
        extent: ExtentId,
        /// Which disk.
        disk: DiskId,
    },
    /// The fragment is not there, or cannot be read as it was written.
    #[error("fragment {fragment} of a live extent cannot be read")]
    Unreadable {
        /// Which.
        fragment: FragmentId,
        /// Why.
        source: ReadError,
    },
    /// The fragment is whole, but it is not what its extent's row says.
    #[error("fragment {fragment} holds other content than its extent's row says")]
    OtherContent {
        /// Which.
        fragment: FragmentId,
    },
}

/// Fragments that no live extent needs: of dead extents, of writers that died. They are freed when the cluster runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Garbage {
    /// How many.
    pub fragments: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

/// Reads every copy of a live extent and compares it with the extent's row.
pub async fn extent(groups: &[Group], row: &ExtentRow) -> Vec<Problem> {
    let Some(group) = groups.iter().find(|group| group.id == row.group) else {
        return vec![Problem::NoGroup { extent: row.id, group: row.group }];
    };
    let mut problems = Vec::new();
    for (index, slot) in group.slots.iter().enumerate() {
        let (extent, disk) = (row.id, slot.disk);
        let fragment = group.fragment(extent, row.layout, index);
        let Some(store) = slot.store.as_ref().filter(|_| slot.is_present()) else {
            let is_held = slot.state == SlotState::In;
            problems.push(match is_held {
                true => Problem::Away { extent, disk },
                false => Problem::Lacks { extent, disk },
            });
            continue;
        };
        match store.read(fragment, 0..row.stored_len).await {
            Err(ReadError::NotFound(_)) if slot.state == SlotState::Filling => {
                problems.push(Problem::Lacks { extent, disk });
            }
            Err(source) => problems.push(Problem::Unreadable { fragment, source }),
            Ok(verified) => {
                let bytes: Vec<u8> = verified.blocks.iter().flat_map(|buf| buf.iter().copied()).collect();
                let stored = bytes.get(verified.range).unwrap_or_default();
                if content_crc(&block_crcs(stored)) != row.content_crc {
                    problems.push(Problem::OtherContent { fragment });
                }
            }
        }
    }
    problems
}

/// Counts the fragments of `groups` that no live extent needs. `live` answers the rows of those extents that have one
/// and are alive, for at most 4,096 ids at once.
pub async fn garbage<E: From<ListError>>(
    groups: &[Group],
    mut live: impl FnMut(Vec<ExtentId>) -> Result<Vec<ExtentRow>, E>,
) -> Result<Garbage, E> {
    let mut garbage = Garbage::default();
    for group in groups {
        let stores = group.present().filter_map(|(_, slot)| slot.store.as_ref());
        for store in stores {
            let mut after = None;
            loop {
                let listed = store.list(group.id, after, BATCH).await?;
                let Some(last) = listed.last() else { break };
                after = Some(last.id);
                let ids: BTreeSet<ExtentId> = listed.iter().map(|fragment| fragment.id.extent).collect();
                let rows: HashMap<ExtentId, ExtentRow> =
                    live(ids.into_iter().collect())?.into_iter().map(|row| (row.id, row)).collect();
                for fragment in listed.iter().filter(|fragment| !is_needed(fragment, &rows)) {
                    garbage.fragments += 1;
                    garbage.bytes += u64::from(fragment.stored_len);
                }
            }
        }
    }
    Ok(garbage)
}

fn is_needed(fragment: &FragmentInfo, rows: &HashMap<ExtentId, ExtentRow>) -> bool {
    let FragmentId { group, extent, layout, .. } = fragment.id;
    rows.get(&extent).is_some_and(|row| row.group == group && row.layout == layout)
}
