//! The parts of a running `up`, put together and taken apart again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use client::{Mount, MountOptions};
use clock::{Clock, SystemClock};
use meta_client::MetaService;
use metadata::Service;
use namespace::{Answer, Command, Cred, DiskRow, Envelope, Query, Reply, VolumeInfo};
use node_agent::{Background, Keeper, NodeAgent, Pace, Scrubbing};
use store::DiskId;
use types::{ByteSize, VolumeId};

use crate::data_dir::{DataDir, State};
use crate::tuning::Tuning;
use crate::up::plan::Plan;
use crate::up::{VOLUME, disks};

/// The arena of a mount unless a test wants less.
const ARENA_BYTES: u64 = 64 << 20;

/// Of the disks' bytes, the part that is left for content when each whole extent has its header block.
const CONTENT: (u64, u64) = (256, 257);

/// Everything that runs.
pub struct Parts {
    /// The data directory, locked.
    pub dir: DataDir,
    /// The metadata service.
    pub service: Arc<Service>,
    /// The disks.
    pub agent: NodeAgent,
    /// The groups over them.
    pub keeper: Arc<Keeper>,
    /// The loops over them.
    pub background: Background,
    /// What reads everything now and then.
    pub scrub: Scrubbing,
    /// The mount.
    pub mount: Mount,
    /// The volume that is mounted.
    pub volume: VolumeId,
}

impl Parts {
    /// Makes what is not there yet, starts everything, and mounts. When it returns the mount can be used.
    pub async fn start(plan: Plan, tuning: Tuning) -> anyhow::Result<Parts> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let mut dir = match plan.dir {
            Some(dir) => dir,
            None => {
                disks::look(&plan.disks, &tuning).await?;
                DataDir::create(&plan.data, new_node()?)?
            }
        };
        if dir.identity().state == State::Creating {
            dir.clear_unfinished()?;
        }
        let mut agent = disks::open(&mut dir, plan.copies, &plan.disks, &clock, &tuning).await?;
        let service = Arc::new(open_service(&mut dir, clock.clone(), &tuning).await?);
        let retired = retired_disks(service.as_ref()).await?;
        disks::forget(&mut dir, &mut agent, &retired, &plan.named).await?;
        // Below this the incarnation is used, so it must never be used again.
        dir.update(|identity| identity.starts += 1)?;
        let (node, incarnation) = (dir.identity().node, dir.identity().starts);
        done(service.as_ref(), Command::RegisterNode { node, incarnation }, "register this node").await?;
        let started = Keeper::start(service.clone(), agent.stores(), usize::from(plan.copies)).await;
        let (keeper, bad_copies) = started.context("use the disks")?;
        let volume = open_volume(service.as_ref(), plan.copies).await?;
        let background =
            Background::start(keeper.clone(), bad_copies, service.clone(), clock.clone(), Pace::default());
        let period = Duration::from_secs(u64::from(plan.scrub_days) * 86_400);
        let path = dir.path().join("scrub.json");
        let scrub = Scrubbing::start(keeper.clone(), service.clone(), clock.clone(), path, period);
        let mounted = client::start(MountOptions {
            dir: plan.mount,
            volume: VOLUME.to_string(),
            arena_bytes: tuning.arena_bytes.unwrap_or(ARENA_BYTES),
            service: service.clone(),
            placement: keeper.clone(),
            node,
            incarnation,
            clock,
            threads: 2,
        });
        let mount = mounted.await.context("mount")?;
        Ok(Parts { dir, service, agent, keeper, background, scrub, mount, volume })
    }

    /// The volume's figures now.
    pub async fn volume(&self) -> anyhow::Result<VolumeInfo> {
        match self.service.read(Query::Volume { volume: self.volume }).await.context("ask for the volume")? {
            Answer::Volume(volume) => Ok(volume),
            other => bail!("the metadata service does not know the mounted volume: {other:?}"),
        }
    }

    /// Asks the metadata service.
    pub async fn ask(&self, query: Query) -> anyhow::Result<Answer> {
        self.service.read(query).await.context("ask the metadata service")
    }

    /// Stored bytes of extents that nothing names any more and that are not freed yet, of the first 10,000.
    pub async fn dead_bytes(&self) -> anyhow::Result<u64> {
        let query = Query::DeadExtents { volume: self.volume, max: 10_000 };
        match self.service.read(query).await.context("ask for dead extents")? {
            Answer::Extents(dead) => Ok(dead.iter().map(|row| u64::from(row.stored_len)).sum()),
            other => bail!("the metadata service does not list dead extents: {other:?}"),
        }
    }

    /// The line that tells that the mount can be used.
    pub async fn greeting(&self, took: Duration) -> anyhow::Result<String> {
        let volume = self.volume().await?;
        Ok(format!(
            "ready: volume {VOLUME} on {}, {} of {} used (started in {:.1} s)",
            self.mount.dir().display(),
            ByteSize(volume.used),
            ByteSize(volume.limit),
            took.as_secs_f64()
        ))
    }

    /// Resolves with the reason when a part has failed that the mount cannot do without.
    pub async fn failed(&self) -> String {
        format!("the metadata service has stopped: {}", self.service.stopped().await)
    }

    /// Writes what was accepted, and stops everything in order. The mount is gone or detached before.
    pub async fn stop(self) -> anyhow::Result<()> {
        let flushed = self.mount.stop().await.context("write what was accepted");
        self.background.stop().await;
        self.scrub.stop().await;
        let stopped = self.service.close().await;
        let closed =
            if stopped.closed { Ok(()) } else { Err(anyhow!("the metadata service had stopped: {stopped}")) };
        let disks = close_disks(&self.keeper, self.agent).await;
        flushed.and(closed).and(disks)
    }
}

/// Closes the disks in order. That one has failed was told when it did, and does not make this a bad stop as long as
/// others hold all that is on it.
async fn close_disks(keeper: &Keeper, mut agent: NodeAgent) -> anyhow::Result<()> {
    if keeper.snapshot().iter().all(|group| group.held() > 0) {
        let failed = agent.disks().iter().map(node_agent::Disk::store).filter(|store| store.is_poisoned());
        let failed: Vec<DiskId> = failed.map(store::Store::disk).collect();
        if let Err(error) = agent.close_some(&failed).await {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::warn!(%error, "a disk that failed; others hold what is on it");
        }
    }
    agent.close().await.context("close the disks")
}

async fn open_service(dir: &mut DataDir, clock: Arc<dyn Clock>, tuning: &Tuning) -> anyhow::Result<Service> {
    let mut options = tuning.metadata(clock)?;
    let path = dir.path().to_path_buf();
    let create = dir.identity().state == State::Creating;
    options.used = !create;
    // Both block: they read and write files by plain system calls.
    let opened = tokio::task::spawn_blocking(move || -> anyhow::Result<Service> {
        if create {
            Service::create(&path, &options).context("make the metadata service")?;
        }
        Service::open(&path, options).context("open the metadata service")
    });
    let service = opened.await.context("open the metadata service")??;
    if create {
        dir.update(|identity| identity.state = State::Ready)?;
    }
    Ok(service)
}

/// The volume that is mounted, as large as the disks.
async fn open_volume(service: &dyn MetaService, copies: u8) -> anyhow::Result<VolumeId> {
    // Those that are away count too: a volume does not shrink because a disk fails.
    let disks = disk_rows(service).await?.into_iter().filter(|row| !row.retired);
    let bytes = extents::capacity(disks.map(|row| row.bytes).collect(), usize::from(copies));
    let limit = bytes / CONTENT.1 * CONTENT.0 / types::BLOCK * types::BLOCK;
    let mut hash_key = [0; 16];
    getrandom::fill(&mut hash_key).context("draw a random key")?;
    let cred = Cred { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let command =
        Command::CreateVolume { name: VOLUME.as_bytes().to_vec(), limit, hash_key, mode: 0o755, cred };
    let volume = match call(service, command, "make the volume").await? {
        Reply::Volume(volume) => volume,
        other => bail!("make the volume: the metadata service answered {other:?}"),
    };
    done(service, Command::SetLimit { volume, limit }, "set the volume's size").await?;
    Ok(volume)
}

async fn disk_rows(service: &dyn MetaService) -> anyhow::Result<Vec<DiskRow>> {
    match service.read(Query::Disks).await.context("ask for the disks")? {
        Answer::Disks(rows) => Ok(rows),
        other => bail!("ask for the disks: the metadata service answered {other:?}"),
    }
}

async fn retired_disks(service: &dyn MetaService) -> anyhow::Result<Vec<DiskId>> {
    let rows = disk_rows(service).await?.into_iter();
    Ok(rows.filter(|row| row.retired).map(|row| DiskId(row.disk)).collect())
}

async fn call(service: &dyn MetaService, command: Command, what: &'static str) -> anyhow::Result<Reply> {
    match service.call(Envelope { slot: None, command }).await.context(what)? {
        Reply::Failed(errno) => bail!("{what}: {errno}"),
        reply => Ok(reply),
    }
}

async fn done(service: &dyn MetaService, command: Command, what: &'static str) -> anyhow::Result<()> {
    call(service, command, what).await.map(|_| ())
}

fn new_node() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("draw a random number")?;
    Ok(u64::from_le_bytes(bytes))
}
