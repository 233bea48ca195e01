//! What the pages of a running `up` show, gathered at each request.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use node_agent::Disk;
use tokio::sync::{RwLock, RwLockReadGuard};
use uuid::Uuid;

use crate::http::{Live, Pages};
use crate::quota::{Order, Page};
use crate::report::{DiskReport, MetadataReport, MountReport, Report};
use crate::up::VOLUME;
use crate::up::parts::Parts;
use crate::up::quotas;

/// The pages of running parts, until those are taken away to be stopped.
pub struct LivePages {
    parts: RwLock<Option<Parts>>,
    since: Instant,
}

impl LivePages {
    /// Pages that count the time from now.
    pub fn new(parts: Parts) -> LivePages {
        LivePages { parts: RwLock::new(Some(parts)), since: Instant::now() }
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
        nodes: figures.files.nodes,
        flush_failures: figures.files.flush_failures,
        lost: figures.files.lost,
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
        disks: parts.agent.disks().iter().map(disk).collect(),
        metadata: metadata(parts),
    }
}

fn state(parts: &Parts, failure: Option<&anyhow::Error>) -> (&'static str, Option<String>) {
    if let Some(failure) = failure {
        return ("failed", Some(format!("{failure:#}")));
    }
    if let Some(disk) = parts.agent.disks().iter().find(|disk| disk.store().is_poisoned()) {
        return ("failed", Some(format!("the disk {} failed", disk.path().display())));
    }
    match parts.service.figures().read_only {
        Some(why) => ("read-only", Some(why)),
        None => ("ready", None),
    }
}

fn disk(disk: &Disk) -> DiskReport {
    let status = disk.status();
    DiskReport {
        uuid: Uuid::from_bytes(disk.store().disk().0),
        path: status.path,
        state: if status.failed { "failed" } else { "ok" }.to_string(),
        data_bytes: status.bytes,
        free_bytes: status.free,
        fragments: status.fragments,
        checkpoints: status.checkpoints,
    }
}

fn metadata(parts: &Parts) -> MetadataReport {
    let figures = parts.service.figures().partition;
    MetadataReport {
        applied: figures.applied.map_or(0, |position| position.index),
        synced: figures.synced.map_or(0, |position| position.index),
        log_used_bytes: figures.log_used,
        log_bytes: figures.log_capacity,
        purges: figures.purges,
    }
}
