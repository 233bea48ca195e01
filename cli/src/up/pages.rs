//! What the pages of a running `up` show, gathered at each request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use client::OpFigures;
use uuid::Uuid;

use crate::http::Pages;
use crate::report::{DiskReport, MetadataReport, MountReport, Report};
use crate::up::VOLUME;
use crate::up::parts::Parts;

/// The pages of these parts.
pub struct LivePages {
    parts: Arc<Parts>,
    since: Instant,
    stopping: AtomicBool,
}

impl LivePages {
    /// Pages that count the time from now.
    pub fn new(parts: Arc<Parts>) -> LivePages {
        LivePages { parts, since: Instant::now(), stopping: AtomicBool::new(false) }
    }

    /// From now on the mount is not ready.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    async fn gather(&self) -> Report {
        let volume = self.parts.volume().await;
        let (state, why) = self.state(volume.as_ref().err());
        let figures = self.parts.mount.figures();
        let volume = volume.ok();
        let mount = MountReport {
            volume: VOLUME.to_string(),
            dir: self.parts.mount.dir().to_path_buf(),
            limit_bytes: volume.as_ref().map_or(0, |volume| volume.limit),
            used_bytes: volume.as_ref().map_or(0, |volume| volume.used),
            inodes: volume.as_ref().map_or(0, |volume| volume.inodes),
            dirty_bytes: figures.files.dirty_bytes,
            nodes: figures.files.nodes,
            flush_failures: figures.files.flush_failures,
            lost: figures.files.lost,
        };
        let identity = self.parts.dir.identity();
        Report {
            version: env!("CARGO_PKG_VERSION").to_string(),
            pid: std::process::id(),
            uptime_seconds: self.since.elapsed().as_secs(),
            state: state.to_string(),
            why,
            cluster: identity.cluster,
            starts: identity.starts,
            mounts: vec![mount],
            disks: self.disks(),
            metadata: self.metadata(),
        }
    }

    fn state(&self, failure: Option<&anyhow::Error>) -> (&'static str, Option<String>) {
        if self.stopping.load(Ordering::Relaxed) {
            return ("stopping", None);
        }
        if let Some(failure) = failure {
            return ("failed", Some(format!("{failure:#}")));
        }
        if let Some(disk) = self.parts.agent.disks().iter().find(|disk| disk.store().is_poisoned()) {
            return ("failed", Some(format!("the disk {} failed", disk.path().display())));
        }
        match self.parts.service.read_only() {
            Some(why) => ("read-only", Some(why)),
            None => ("ready", None),
        }
    }

    fn disks(&self) -> Vec<DiskReport> {
        let report = |disk: &node_agent::Disk| {
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
        };
        self.parts.agent.disks().iter().map(report).collect()
    }

    fn metadata(&self) -> MetadataReport {
        let figures = self.parts.service.figures();
        MetadataReport {
            applied: figures.applied,
            synced: figures.synced,
            log_used_bytes: figures.log_used,
            log_bytes: figures.log_capacity,
            purges: figures.purges,
        }
    }
}

impl Pages for LivePages {
    fn report(&self) -> Pin<Box<dyn Future<Output = Report> + Send + '_>> {
        Box::pin(self.gather())
    }

    fn operations(&self) -> Vec<(String, Vec<OpFigures>)> {
        vec![(VOLUME.to_string(), self.parts.mount.figures().operations)]
    }
}
