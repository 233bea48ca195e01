//! The disks of a start: made, formatted, grown, opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clock::{Clock, SystemClock};
use device::OpenOptions;
use node_agent::NodeAgent;
use store::{ClusterId, DiskId, FormatOptions, OpenError};
use types::ByteSize;
use uuid::Uuid;

use crate::data_dir::{DataDir, DiskRecord, State, sync_dir};
use crate::tuning::Tuning;
use crate::up::plan::DiskPlan;

/// Looks at disks that a data directory which is not there yet would take: each must be blank. Changes nothing.
pub async fn look(plans: &[DiskPlan], tuning: &Tuning) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    for plan in plans {
        let (DiskPlan::File(path, _) | DiskPlan::Device(path)) = plan else { continue };
        if is_empty(path) {
            continue;
        }
        // Nobody has this identity, so no disk can belong to it.
        let cluster = ClusterId(*Uuid::new_v4().as_bytes());
        let options = node_agent::Options { cluster, read_only: true, device: tuning.device() };
        match NodeAgent::open(std::slice::from_ref(path), &clock, options).await {
            Ok(agent) => {
                agent.close().await.context("close the disk")?;
                bail!("{} belongs to another data directory", path.display());
            }
            Err(error) => unless_blank(path, error)?,
        }
    }
    Ok(())
}

/// The error with which a disk was refused, unless that there is nothing on it.
fn unless_blank(path: &Path, error: node_agent::OpenError) -> anyhow::Result<()> {
    match error {
        node_agent::OpenError::Store { source: OpenError::Blank | OpenError::HalfFormatted, .. } => Ok(()),
        node_agent::OpenError::Store {
            source: source @ (OpenError::NotHoldfast | OpenError::OtherCluster { .. }),
            ..
        } => {
            bail!(
                "{}: {source}; choose another disk, or erase it first (wipefs --all, or a new file)",
                path.display()
            )
        }
        error => Err(error).context("look at the disk"),
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == 0)
}

/// Makes, formats and grows what the plan says, notes every disk in the identity, and opens them all.
pub async fn open(
    dir: &mut DataDir,
    copies: u8,
    plans: &[DiskPlan],
    clock: &Arc<dyn Clock>,
    tuning: &Tuning,
) -> anyhow::Result<NodeAgent> {
    let cluster = ClusterId(*dir.identity().cluster.as_bytes());
    let device = tuning.device();
    let mut records = Vec::new();
    for plan in plans {
        let (path, resize) = match plan {
            DiskPlan::Make(path, bytes) => {
                let path = dir.path().join(path);
                make_file(dir, &path, bytes.0)?;
                (path, None)
            }
            DiskPlan::File(path, grow) => (path.clone(), *grow),
            DiskPlan::Device(path) => (path.clone(), None),
            DiskPlan::Away(path) => {
                tracing::warn!(path = %path.display(), "the disk is not in its place: going on without it");
                continue;
            }
        };
        let path = std::path::absolute(&path).with_context(|| format!("find the disk {}", path.display()))?;
        let known = dir.identity().state == State::Ready
            && dir.identity().disks.iter().any(|record| same_place(dir, record, &path));
        if let (Some(bytes), true) = (resize, known) {
            match grow(&path, bytes.0, device).await {
                // What is wrong with it shows again when it is opened.
                Err(error) if copies > 1 => {
                    tracing::warn!(error = format!("{error:#}"), "a disk did not grow")
                }
                grown => grown?,
            }
        }
        let uuid = match known {
            true => None,
            false => Some(format_new(dir, &path, cluster, resize, tuning).await?),
        };
        records.push((path, uuid));
    }
    note(dir, copies, &records)?;
    let options = node_agent::Options { cluster, read_only: false, device };
    let mut agent = NodeAgent::default();
    for (path, _) in &records {
        match agent.add(path.clone(), clock, options).await {
            Ok(()) => {}
            // Its data is on others; that it is enough is checked when the groups are known.
            Err(error) if copies > 1 && can_be_away(&error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(%error, "a disk cannot be opened: going on without it");
            }
            Err(error) => return Err(error).context("open the disks"),
        }
    }
    for disk in agent.disks() {
        let here = |record: &&DiskRecord| same_place(dir, record, disk.path());
        let Some(record) = dir.identity().disks.iter().find(here) else { continue };
        if disk.store().disk().0 != *record.uuid.as_bytes() {
            bail!(
                "{} is disk {}, not {} as this data directory knows it; put the right one in its place",
                disk.path().display(),
                disk.store().disk(),
                record.uuid
            );
        }
    }
    Ok(agent)
}

/// Whether the disk is broken, rather than another one than is meant, or in use.
fn can_be_away(error: &node_agent::OpenError) -> bool {
    match error {
        node_agent::OpenError::Device(error) => !matches!(error, device::OpenError::Held { .. }),
        node_agent::OpenError::Thread { .. } => false,
        node_agent::OpenError::Store { source, .. } => {
            matches!(
                source,
                OpenError::Damaged(_)
                    | OpenError::Io(_)
                    | OpenError::Truncated { .. }
                    | OpenError::NotHoldfast
                    | OpenError::Blank
            )
        }
    }
}

/// Takes disks that were given up out of the identity, closes them, and refuses those that the command line names.
pub async fn forget(
    dir: &mut DataDir,
    agent: &mut NodeAgent,
    retired: &[DiskId],
    named: &[PathBuf],
) -> anyhow::Result<()> {
    let is_retired = |uuid: &Uuid| retired.contains(&DiskId(*uuid.as_bytes()));
    let given = |disk: &&node_agent::Disk| {
        retired.contains(&disk.store().disk()) && named.iter().any(|path| path == disk.path())
    };
    let given = agent.disks().iter().find(given).map(|disk| disk.path().to_path_buf());
    if dir.identity().disks.iter().any(|record| is_retired(&record.uuid)) {
        dir.update(|identity| identity.disks.retain(|record| !is_retired(&record.uuid)))?;
    }
    agent.close_some(retired).await.context("close a disk that was given up")?;
    match given {
        None => Ok(()),
        Some(path) => bail!(
            "the disk {} was given up and others hold its data; leave it out, or erase it to use it as a new one (wipefs --all, or a new file)",
            path.display()
        ),
    }
}

fn same_place(dir: &DataDir, record: &DiskRecord, path: &Path) -> bool {
    std::path::absolute(dir.disk_path(record)).is_ok_and(|known| known == path)
}

fn make_file(dir: &DataDir, path: &Path, bytes: u64) -> anyhow::Result<()> {
    let parent = path.parent().context("a disk file lies in a directory")?;
    if parent == dir.disks() && !parent.exists() {
        std::fs::create_dir(parent).with_context(|| format!("make {}", parent.display()))?;
        sync_dir(dir.path())?;
    }
    device::create_disk_file(path, bytes).with_context(|| format!("make the disk {}", path.display()))?;
    sync_dir(parent)
}

/// Formats a disk that is new to this data directory, unless there is something on it; a file is made as large as asked
/// before.
async fn format_new(
    dir: &DataDir,
    path: &Path,
    cluster: ClusterId,
    resize: Option<ByteSize>,
    tuning: &Tuning,
) -> anyhow::Result<Uuid> {
    let device = tuning.device();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let options = node_agent::Options { cluster, read_only: true, device };
    let make_larger = |bytes: ByteSize| {
        device::grow_disk_file(path, bytes.0).with_context(|| format!("grow {}", path.display()))
    };
    if let (Some(bytes), true) = (resize, is_empty(path)) {
        make_larger(bytes)?;
    }
    match NodeAgent::open(&[path.to_path_buf()], &clock, options).await {
        // An earlier first start of this very directory came so far, and nothing was ever served from it.
        Ok(agent) if dir.identity().state == State::Creating => {
            agent.close().await.context("close the disk")?
        }
        Ok(agent) => {
            let disk = agent.disks()[0].store().disk();
            let uuid = Uuid::from_bytes(disk.0);
            agent.close().await.context("close the disk")?;
            let moved = dir.identity().disks.iter().any(|record| record.uuid == uuid);
            if moved {
                bail!(
                    "{} is the disk {uuid} of this data directory, in another place; put it back in its place",
                    path.display()
                );
            }
            // Formatted for this directory by a start that was cut off before it was noted: nothing is on it.
            return Ok(uuid);
        }
        Err(error) => unless_blank(path, error)?,
    }
    if let Some(bytes) = resize {
        make_larger(bytes)?;
    }
    let uuid = Uuid::new_v4();
    let mut format = FormatOptions::new(cluster, DiskId(*uuid.as_bytes()));
    format.journal_bytes = tuning.journal_bytes;
    if let Some(bytes) = tuning.segment_bytes {
        format.segment_bytes = u32::try_from(bytes).context("segment_bytes is too large")?;
    }
    node_agent::format(path, &format, device).await.context("format the disk")?;
    Ok(uuid)
}

async fn grow(path: &Path, bytes: u64, device: OpenOptions) -> anyhow::Result<()> {
    // A file that has lost its end must not be given a new one that is blank.
    let disk = device::open_disk(path, device).with_context(|| format!("open {}", path.display()))?;
    let whole = store::describe::superblocks(&disk).await.1.with_context(|| path.display().to_string())?;
    drop(disk);
    device::grow_disk_file(path, bytes).with_context(|| format!("grow {}", path.display()))?;
    let disk = device::open_disk(path, device).with_context(|| format!("open {}", path.display()))?;
    store::grow(&disk, bytes).await.with_context(|| format!("grow {}", path.display()))?;
    if whole.disk_bytes < bytes {
        tracing::info!(path = %path.display(), bytes, "the disk has grown");
    }
    Ok(())
}

/// Writes the disks into the identity: paths inside the data directory relative to it, so that it can be moved.
fn note(dir: &mut DataDir, copies: u8, disks: &[(PathBuf, Option<Uuid>)]) -> anyhow::Result<()> {
    let root = std::path::absolute(dir.path()).context("find the data directory")?;
    let mut records = dir.identity().disks.clone();
    if dir.identity().state == State::Creating {
        records.clear();
    }
    for (path, uuid) in disks {
        if let Some(uuid) = uuid {
            let path = path.strip_prefix(&root).unwrap_or(path).to_path_buf();
            records.push(DiskRecord { uuid: *uuid, path });
        }
    }
    if records != dir.identity().disks || copies != dir.identity().copies {
        dir.update(|identity| {
            identity.disks = records;
            identity.copies = copies;
        })?;
    }
    Ok(())
}
