//! Keeps the placement groups true: which disks are here, which are away, who takes over.
//!
//! The rows of the metadata service say what every slot is for; a [`Keeper`] joins them with the disks of this process
//! and hands the result to readers and writers ([`Placement`]). It changes slots when a disk fails, comes back, or is
//! given up; one change at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, RwLock, Weak};

use extents::{BadCopy, Group, Placement, Slot};
use meta_client::{CallError, MetaService};
use namespace::{Answer, Command, DiskRow, Envelope, GroupRow, Query, Reply, SlotState};
use store::{DiskId, FragmentStore, StoreFuture};
use tokio::sync::{Mutex, mpsc};
use types::{Errno, GroupId};

use crate::draw;

/// Bad copies that wait for their repair; what does not fit is found again by the next read.
const BAD_COPIES: usize = 1_024;

/// Disks that can be reached, by their ids.
pub(crate) type Stores = BTreeMap<DiskId, Arc<dyn FragmentStore>>;

/// Why the groups could not be changed. What was changed before stays; it can be repeated.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeeperError {
    /// The metadata service did not answer.
    #[error(transparent)]
    Ask(#[from] CallError),
    /// A disk is given whose slots others have taken over.
    #[error(
        "disk {0} was given up and others hold its data now; leave it out, or erase it to use it as a new one"
    )]
    Retired(DiskId),
    /// Groups have all of their data on disks that are not here.
    #[error("{}", away(.0))]
    Away(Vec<DiskId>),
    /// The last whole copy of some files is on the disk.
    #[error("disk {0} holds files that are whole nowhere else; wait until the other copies are filled")]
    LastCopy(DiskId),
    /// There is no such disk.
    #[error("the cluster has no disk {0}")]
    NoDisk(DiskId),
    /// The metadata service refused a change of the groups.
    #[error("the metadata service refused to change the groups: {0}")]
    Refused(Errno),
    /// The metadata service answered something else than was asked.
    #[error("the metadata service does not speak our protocol")]
    Protocol,
}

fn away(disks: &[DiskId]) -> String {
    let names: Vec<String> = disks.iter().map(DiskId::to_string).collect();
    format!("files are on disk {} that are whole nowhere else; give it too", names.join(" and on disk "))
}

/// The groups of this process, and who looks after them.
pub struct Keeper {
    me: Weak<Keeper>,
    service: Arc<dyn MetaService>,
    stores: RwLock<Stores>,
    now: RwLock<Arc<Vec<Group>>>,
    /// Disks whose failure the groups know of.
    given_up: std::sync::Mutex<BTreeSet<DiskId>>,
    /// Held while slots are changed.
    changing: Mutex<()>,
    bad_copies: mpsc::Sender<BadCopy>,
    /// Reads and writes that were served: whether the foreground is busy.
    served: AtomicU64,
}

impl Keeper {
    /// Makes the disks known to the cluster and puts the slots right: those of disks that are not here turn Absent,
    /// those of disks that are back are filled, a disk without data takes over from one that is away, and groups of
    /// `copies` slots are drawn over disks that have none yet. Durable on return; idempotent.
    ///
    /// Answers also what hears of bad copies, for a [`Repair`](crate::Repair). Changes nothing if some data would be
    /// out of reach.
    pub async fn start(
        service: Arc<dyn MetaService>,
        disks: Vec<(DiskId, Arc<dyn FragmentStore>)>,
        copies: usize,
    ) -> Result<(Arc<Keeper>, mpsc::Receiver<BadCopy>), KeeperError> {
        let stores: Stores = disks.into_iter().collect();
        let (bad_copies, heard) = mpsc::channel(BAD_COPIES);
        let keeper = Arc::new_cyclic(|me| Keeper {
            me: Weak::clone(me),
            service,
            stores: RwLock::new(stores.clone()),
            now: RwLock::default(),
            given_up: std::sync::Mutex::default(),
            changing: Mutex::new(()),
            bad_copies,
            served: AtomicU64::new(0),
        });
        keeper.check_reach(&stores).await?;
        for (id, store) in &stores {
            let add = Command::AddDisk { disk: id.0, bytes: store.space().total };
            match keeper.change(add).await {
                Err(KeeperError::Refused(Errno::ESTALE)) => return Err(KeeperError::Retired(*id)),
                done => done?,
            }
        }
        for row in keeper.disk_rows().await? {
            let here = stores.contains_key(&DiskId(row.disk));
            if !here && !row.retired && keeper.has_slot(row.disk, |state| state != SlotState::Absent).await? {
                tracing::warn!(disk = %DiskId(row.disk), "the disk is away: its data have one copy less");
                keeper.change(Command::DiskAbsent { disk: row.disk }).await?;
            }
            if here && keeper.has_slot(row.disk, |state| state == SlotState::Absent).await? {
                tracing::info!(disk = %DiskId(row.disk), "the disk is back: it is filled with what it lacks");
                keeper.change(Command::DiskBack { disk: row.disk }).await?;
            }
        }
        keeper.take_over(&stores).await?;
        keeper.draw(&stores, copies).await?;
        keeper.refresh().await?;
        Ok((keeper, heard))
    }

    /// The groups of rows, joined with the disks that are here.
    pub(crate) fn join(rows: Vec<GroupRow>, stores: &Stores) -> Vec<Group> {
        let slot = |slot: namespace::GroupSlot| {
            let disk = DiskId(slot.disk);
            Slot { disk, state: slot.state, store: stores.get(&disk).cloned() }
        };
        let group = |row: GroupRow| Group {
            id: row.id,
            epoch: row.epoch,
            slots: row.slots.into_iter().map(slot).collect(),
        };
        rows.into_iter().map(group).collect()
    }

    /// Reads the groups anew.
    pub async fn refresh(&self) -> Result<(), KeeperError> {
        let rows = self.group_rows().await?;
        let groups = Arc::new(Keeper::join(rows, &self.stores()));
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = groups;
        Ok(())
    }

    /// Turns the slots of disks that have failed Absent. To be called now and then.
    pub async fn look(&self) -> Result<(), KeeperError> {
        let stores = self.stores();
        let failed = stores.iter().filter(|(_, store)| store.has_failed()).map(|(id, _)| *id);
        let fresh: Vec<DiskId> = failed.filter(|disk| !self.given_up().contains(disk)).collect();
        if fresh.is_empty() { Ok(()) } else { self.give_up(fresh).await }
    }

    /// The disk will not come back: it is used no more, and other disks take its slots over as far as there are any
    /// that can. `LastCopy` if nobody else has what is on it.
    pub async fn retire(&self, disk: DiskId) -> Result<(), KeeperError> {
        let _changing = self.changing.lock().await;
        match self.change(Command::RetireDisk { disk: disk.0 }).await {
            Err(KeeperError::Refused(Errno::EBUSY)) => return Err(KeeperError::LastCopy(disk)),
            Err(KeeperError::Refused(Errno::ENOENT)) => return Err(KeeperError::NoDisk(disk)),
            done => done?,
        }
        self.stores.write().unwrap_or_else(PoisonError::into_inner).remove(&disk);
        // Nobody may write to it before others are asked to take over.
        self.refresh().await?;
        self.take_over(&self.stores()).await?;
        self.refresh().await
    }

    /// A slot has been filled in this epoch of its group; `false` if the group has changed.
    pub(crate) async fn filled(&self, group: &Group, disk: DiskId) -> Result<bool, KeeperError> {
        let _changing = self.changing.lock().await;
        let done = Command::SlotFilled { group: group.id, disk: disk.0, epoch: group.epoch };
        let done = match self.change(done).await {
            Err(KeeperError::Refused(Errno::ESTALE)) => false,
            done => done.map(|()| true)?,
        };
        self.refresh().await?;
        Ok(done)
    }

    /// The groups now.
    pub fn snapshot(&self) -> Arc<Vec<Group>> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many reads and writes were served so far.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    async fn give_up(&self, disks: impl IntoIterator<Item = DiskId>) -> Result<(), KeeperError> {
        let _changing = self.changing.lock().await;
        for disk in disks {
            if self.has_slot(disk.0, |state| state != SlotState::Absent).await? {
                tracing::error!(%disk, "the disk failed: writing goes on without it");
                self.change(Command::DiskAbsent { disk: disk.0 }).await?;
            }
            self.given_up().insert(disk);
        }
        self.refresh().await
    }

    fn given_up(&self) -> MutexGuard<'_, BTreeSet<DiskId>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each group has a slot here that holds all of its data.
    async fn check_reach(&self, stores: &Stores) -> Result<(), KeeperError> {
        let mut missing = BTreeSet::new();
        for group in self.group_rows().await? {
            let held = || group.slots.iter().filter(|slot| slot.state == SlotState::In);
            if !held().any(|slot| stores.contains_key(&DiskId(slot.disk))) {
                missing.extend(held().map(|slot| DiskId(slot.disk)).take(1));
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(KeeperError::Away(missing.into_iter().collect())) }
    }

    /// Disks that are here take over Absent slots of disks that are not: of retired ones any disk, of others only one
    /// that has no data itself.
    async fn take_over(&self, stores: &Stores) -> Result<(), KeeperError> {
        let retired: BTreeSet<[u8; 16]> =
            self.disk_rows().await?.into_iter().filter(|row| row.retired).map(|row| row.disk).collect();
        let rows = self.group_rows().await?;
        let has_data = |disk: &DiskId| {
            rows.iter().flat_map(|row| &row.slots).any(|s| s.disk == disk.0 && s.state == SlotState::In)
        };
        let blank: BTreeSet<DiskId> = stores.keys().filter(|disk| !has_data(disk)).copied().collect();
        // What each has been promised here, so that one does not get all.
        let mut promised: BTreeMap<DiskId, u64> = BTreeMap::new();
        for row in &rows {
            for slot in row.slots.iter().filter(|slot| slot.state == SlotState::Absent) {
                if stores.contains_key(&DiskId(slot.disk)) {
                    continue;
                }
                let can = |disk: &&DiskId| {
                    let is_other = row.slots.iter().all(|slot| slot.disk != disk.0);
                    let works = stores.get(disk).is_some_and(|store| !store.has_failed());
                    is_other && works && (retired.contains(&slot.disk) || blank.contains(disk))
                };
                let load = |disk: &&DiskId| {
                    let free = stores.get(disk).map_or(0, |store| store.space().free);
                    (promised.get(disk).copied().unwrap_or(0), std::cmp::Reverse(free))
                };
                let Some(new) = stores.keys().filter(can).min_by_key(load).copied() else { continue };
                *promised.entry(new).or_default() += 1;
                tracing::info!(group = %row.id, old = %DiskId(slot.disk), %new, "a disk takes a slot over");
                self.change(Command::ReplaceSlot { group: row.id, old: slot.disk, new: new.0 }).await?;
                // Another slot of the group waits for the next time: one disk has at most one slot of it.
                break;
            }
        }
        Ok(())
    }

    async fn draw(&self, stores: &Stores, copies: usize) -> Result<(), KeeperError> {
        let ids: Vec<DiskId> = stores.keys().copied().collect();
        let known: BTreeSet<BTreeSet<[u8; 16]>> = self
            .group_rows()
            .await?
            .into_iter()
            .map(|row| row.slots.into_iter().map(|slot| slot.disk).collect())
            .collect();
        for disks in draw::groups(&ids, copies) {
            let disks: Vec<[u8; 16]> = disks.into_iter().map(|disk| disk.0).collect();
            if !known.contains(&disks.iter().copied().collect()) {
                self.new_group(disks).await?;
            }
        }
        Ok(())
    }

    async fn new_group(&self, disks: Vec<[u8; 16]>) -> Result<GroupId, KeeperError> {
        let command = Command::AddGroup { disks };
        match self.service.call(Envelope { slot: None, command }).await? {
            Reply::Group(group) => Ok(group),
            Reply::Failed(errno) => Err(KeeperError::Refused(errno)),
            _ => Err(KeeperError::Protocol),
        }
    }

    async fn change(&self, command: Command) -> Result<(), KeeperError> {
        match self.service.call(Envelope { slot: None, command }).await? {
            Reply::Done => Ok(()),
            Reply::Failed(errno) => Err(KeeperError::Refused(errno)),
            _ => Err(KeeperError::Protocol),
        }
    }

    async fn has_slot(&self, disk: [u8; 16], of: fn(SlotState) -> bool) -> Result<bool, KeeperError> {
        let rows = self.group_rows().await?;
        Ok(rows.iter().flat_map(|row| &row.slots).any(|slot| slot.disk == disk && of(slot.state)))
    }

    async fn group_rows(&self) -> Result<Vec<GroupRow>, KeeperError> {
        match self.service.read(Query::Groups).await? {
            Answer::Groups(rows) => Ok(rows),
            _ => Err(KeeperError::Protocol),
        }
    }

    async fn disk_rows(&self) -> Result<Vec<DiskRow>, KeeperError> {
        match self.service.read(Query::Disks).await? {
            Answer::Disks(rows) => Ok(rows),
            _ => Err(KeeperError::Protocol),
        }
    }

    fn stores(&self) -> Stores {
        self.stores.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Placement for Keeper {
    fn groups(&self) -> Arc<Vec<Group>> {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.snapshot()
    }

    fn lost(&self, disks: Vec<DiskId>) -> StoreFuture<()> {
        let keeper = Weak::clone(&self.me);
        Box::pin(async move {
            let Some(keeper) = keeper.upgrade() else { return };
            if let Err(error) = keeper.give_up(disks).await {
                tracing::error!(%error, "a disk failed and its groups could not be changed");
            }
        })
    }

    fn bad_copy(&self, copy: BadCopy) {
        // Full: it is found again by the next read.
        let _ = self.bad_copies.try_send(copy);
    }
}
