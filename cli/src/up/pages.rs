//! What the pages of a running `up` show, gathered at each request.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use clock::{Clock, SystemClock};
use extents::Group;
use meta_client::MetaService;
use metadata::Backup;
use namespace::{Answer, DiskRow, Query, SlotState};
use node_agent::{Disk, KeeperError};
use store::DiskId;
use tokio::sync::{OwnedSemaphorePermit, RwLock, RwLockReadGuard, Semaphore};
use types::ByteSize;
use uuid::Uuid;

use crate::backup;
use crate::http::{Live, Pages};
use crate::quota::{Order, Page};
use crate::report::{DataReport, DiskReport, MetadataReport, MountReport, Report, ScrubReport};
use crate::stream::{Parts as BodyParts, Streamed, streamed};
use crate::up::VOLUME;
use crate::up::parts::Parts;
use crate::up::quotas;

/// The pages of running parts, until those are taken away to be stopped.
pub struct LivePages {
    parts: RwLock<Option<Parts>>,
    since: Instant,
    /// One backup at a time: each keeps tables of its moment on the disk.
    backups: Arc<Semaphore>,
}

impl LivePages {
    /// Pages that count the time from now.
    pub fn new(parts: Parts) -> LivePages {
        LivePages {
            parts: RwLock::new(Some(parts)),
            since: Instant::now(),
            backups: Arc::new(Semaphore::new(1)),
        }
    }

    /// The parts, if they were not taken yet. They stay as long as the guard does.
    pub async fn parts(&self) -> Option<RwLockReadGuard<'_, Parts>> {
        RwLockReadGuard::try_map(self.parts.read().await, Option::as_ref).ok()
    }

    /// Takes the parts away: from now on the pages say that everything stops. Waits for requests in progress.
    pub async fn take(&self) -> Option<Parts> {
        self.parts.write().await.take()
    }
}

impl Pages for LivePages {
    fn gather(&self) -> Pin<Box<dyn Future<Output = Option<Live>> + Send + '_>> {
        Box::pin(async {
            let parts = self.parts().await?;
            let operations = vec![(VOLUME.to_string(), parts.mount.figures().operations)];
            Some(Live { report: report(&parts, self.since).await, operations })
        })
    }

    fn obey(&self, order: Order) -> Pin<Box<dyn Future<Output = Option<anyhow::Result<Page>>> + Send + '_>> {
        Box::pin(async move {
            let parts = self.parts().await?;
            Some(quotas::obey(&parts, &order).await)
        })
    }

    fn fail_disk(&self, disk: Uuid) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move {
            let parts = self.parts().await.ok_or("stopping")?;
            let retired = parts.keeper.retire(DiskId(*disk.as_bytes())).await;
            retired.map_err(|error: KeeperError| error.to_string())
        })
    }

    fn backup(&self) -> Pin<Box<dyn Future<Output = Result<Streamed, String>> + Send + '_>> {
        Box::pin(async move {
            let busy = "another backup is being made; wait for its end";
            let turn = Arc::clone(&self.backups).try_acquire_owned().map_err(|_| busy)?;
            let backup = {
                let parts = self.parts().await.ok_or("stopping")?;
                if let Err(error) = parts.mount.flush().await.map_err(anyhow::Error::new) {
                    let error = format!("{error:#}");
                    // What is in the rows is worth a backup now more than ever.
                    tracing::warn!(%error, "the backup lacks what could not be stored");
                }
                let cluster = *parts.dir.identity().cluster.as_bytes();
                let made = SystemClock::new().now();
                parts.service.backup(cluster, made).map_err(|error| error.to_string())?
            };
            let (parts, body) = streamed();
            // It reads rows from the disk, which blocks.
            tokio::task::spawn_blocking(move || send(backup, parts, turn));
            Ok(body)
        })
    }
}

/// Sends a backup to whoever asked for it.
fn send(backup: Backup, parts: BodyParts, _turn: OwnedSemaphorePermit) {
    let runtime = tokio::runtime::Handle::current();
    if let Err(error) = backup.write(&mut |part| runtime.block_on(parts.send(part))) {
        let error = anyhow::Error::new(error);
        tracing::warn!(error = format!("{error:#}"), "a backup of the metadata broke off");
        runtime.block_on(parts.fail(std::io::Error::other(format!("{error:#}"))));
    }
}

async fn report(parts: &Parts, since: Instant) -> Report {
    let volume = parts.volume().await;
    let (state, why) = state(parts, volume.as_ref().err());
    let figures = parts.mount.figures();
    let volume = volume.ok();
    let mount = MountReport {
        volume: VOLUME.to_string(),
        dir: parts.mount.dir().to_path_buf(),
        limit_bytes: volume.as_ref().map_or(0, |volume| volume.limit),
        used_bytes: volume.as_ref().map_or(0, |volume| volume.used),
        inodes: volume.as_ref().map_or(0, |volume| volume.inodes),
        // A service that does not tell them tells no volume either, which says why.
        quotas: quotas::of_directories(parts).await.unwrap_or_default(),
        dirty_bytes: figures.files.dirty_bytes,
        pending_commands: figures.pending,
        nodes: figures.files.nodes,
        flush_failures: figures.files.flush_failures,
        lost: figures.files.lost,
        compaction_walks: figures.files.compaction.walks,
        compacted_windows: figures.files.compaction.windows,
        compacted_bytes: figures.files.compaction.bytes,
        compaction_lost: figures.files.compaction.lost,
        compaction_failed: figures.files.compaction.failed,
        to_reclaim_bytes: parts.dead_bytes().await.unwrap_or(0),
        reclaimed_extents: parts.background.figures().counts().dead_extents,
    };
    let identity = parts.dir.identity();
    Report {
        version: env!("CARGO_PKG_VERSION").to_string(),
        pid: std::process::id(),
        uptime_seconds: since.elapsed().as_secs(),
        state: state.to_string(),
        why,
        cluster: identity.cluster,
        starts: identity.starts,
        mounts: vec![mount],
        data: data(parts),
        disks: disks(parts).await,
        scrub: scrub(parts),
        metadata: metadata(parts),
    }
}

fn state(parts: &Parts, failure: Option<&anyhow::Error>) -> (&'static str, Option<String>) {
    if let Some(failure) = failure {
        return ("failed", Some(format!("{failure:#}")));
    }
    let data = data(parts);
    if data.copies_now == 0 {
        let failed = parts.agent.disks().iter().find(|disk| disk.store().is_poisoned());
        let which = failed.map_or(String::new(), |disk| format!(" {}", disk.path().display()));
        return (
            "failed",
            Some(format!("the disk{which} failed, and files are on it that are nowhere else")),
        );
    }
    match parts.service.figures().read_only {
        Some(why) => ("read-only", Some(why)),
        None => ("ready", at_risk(&data)),
    }
}

/// What is to be said when there are fewer copies than there should be.
fn at_risk(data: &DataReport) -> Option<String> {
    let DataReport { copies, copies_now, slots_absent, slots_filling, .. } = data;
    let say = match (slots_filling, slots_absent) {
        (0, _) => "give a new disk, or say `holdfast disk fail` of the one that is away".to_string(),
        _ => {
            let (done, total) = (ByteSize(data.fill_done_bytes), ByteSize(data.fill_total_bytes));
            format!("{slots_filling} slots are being filled, {done} of {total} of the first one copied")
        }
    };
    data.at_risk.then(|| format!("data is at risk: some files have {copies_now} of {copies} copies; {say}"))
}

/// The disks that are used: those that are open, and those of the rows that are not.
async fn disks(parts: &Parts) -> Vec<DiskReport> {
    let groups = parts.keeper.snapshot();
    let open = parts.agent.disks().iter().map(|disk| (disk.store().disk(), disk));
    let open: BTreeMap<DiskId, &Disk> = open.collect();
    let rows = match parts.service.read(Query::Disks).await {
        Ok(Answer::Disks(rows)) => rows,
        _ => Vec::new(),
    };
    let in_use = rows.iter().filter(|row| !row.retired);
    in_use.map(|row| disk(parts, &groups, row, open.get(&DiskId(row.disk)).copied())).collect()
}

fn disk(parts: &Parts, groups: &[Group], row: &DiskRow, open: Option<&Disk>) -> DiskReport {
    let uuid = Uuid::from_bytes(row.disk);
    let slots = || groups.iter().flat_map(|group| &group.slots).filter(|slot| slot.disk.0 == row.disk);
    let recorded = parts.dir.identity().disks.iter().find(|record| record.uuid == uuid);
    let state = match open {
        None => "away",
        Some(disk) if disk.store().is_poisoned() => "failed",
        Some(_) if slots().any(|slot| slot.state == SlotState::Absent) => "away",
        Some(_) if slots().any(|slot| slot.state == SlotState::Filling) => "filling",
        Some(_) => "ok",
    };
    let status = open.map(Disk::status);
    let path = status.as_ref().map(|status| status.path.clone());
    let path = path.or_else(|| recorded.map(|record| parts.dir.disk_path(record)));
    DiskReport {
        uuid,
        path: path.unwrap_or_default(),
        state: state.to_string(),
        data_bytes: status.as_ref().map_or(row.bytes, |status| status.bytes),
        free_bytes: status.as_ref().map_or(0, |status| status.free),
        withheld_bytes: status.as_ref().map_or(0, |status| status.withheld),
        fragments: status.as_ref().map_or(0, |status| status.fragments),
        checkpoints: status.as_ref().map_or(0, |status| status.checkpoints),
    }
}

fn data(parts: &Parts) -> DataReport {
    let groups = parts.keeper.snapshot();
    let counts = parts.background.figures().counts();
    let slots = |state: SlotState| groups.iter().flat_map(|g| &g.slots).filter(|s| s.state == state).count();
    let copies = u64::from(parts.dir.identity().copies);
    let copies_now = groups.iter().map(Group::held).min().unwrap_or(0) as u64;
    DataReport {
        copies,
        copies_now,
        at_risk: copies_now < copies,
        groups: groups.len() as u64,
        slots_absent: slots(SlotState::Absent) as u64,
        slots_filling: slots(SlotState::Filling) as u64,
        fill_done_bytes: counts.fill_done,
        fill_total_bytes: counts.fill_total,
        filled_bytes: counts.filled_bytes,
        bad_copies: counts.bad_copies,
        repaired: counts.repaired,
        reclaimed: counts.dead_extents,
    }
}

fn scrub(parts: &Parts) -> ScrubReport {
    let state = parts.scrub.state();
    ScrubReport {
        passes: state.passes,
        last_pass: state.last_pass,
        bad: state.bad_in_pass,
        fragments: state.fragments,
        bytes: state.bytes,
    }
}

fn metadata(parts: &Parts) -> MetadataReport {
    let figures = parts.service.figures().partition;
    let last = backup::last(parts.dir.path());
    let now = SystemClock::new().now();
    MetadataReport {
        copies: 1,
        backup_age_seconds: last.as_ref().map(|note| backup::age(note, now)),
        backup_entry: last.map(|note| note.entry),
        applied: figures.applied.map_or(0, |position| position.index),
        synced: figures.synced.map_or(0, |position| position.index),
        log_used_bytes: figures.log_used,
        log_bytes: figures.log_capacity,
        purges: figures.purges,
    }
}
