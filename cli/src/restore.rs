//! `holdfast metadata restore`: a backup becomes the metadata of a stopped data directory, over the disks as they are.
//!
//! The new metadata are made beside the old ones, told of every number that the disks show to have been used since the
//! backup, compared with the disks, and only then put in their place. The old ones are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clock::{Clock, SystemClock};
use extents::Group;
use meta_client::MetaService;
use metadata::{Head, Offline, Reader, Restored, Service};
use namespace::{Answer, Command, Envelope, ExtentRow, Query, Reply, Rows, SlotState, query};
use node_agent::NodeAgent;
use store::ClusterId;
use types::{Epoch, ExtentId, Nanos, SessionId, VolumeId};
use uuid::Uuid;

use crate::args::RestoreArgs;
use crate::backup::verify;
use crate::damage::{self, Damaged};
use crate::data_dir::{DataDir, State};
use crate::progress::Progress;
use crate::tuning::Tuning;

/// How long what was written since the backup stays on the disks: long enough to notice that another backup would have
/// been the right one.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// Restores a backup into a data directory that is not running.
pub fn run(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let tuning = Tuning::from_env()?;
    let dir = DataDir::open(&args.data)?;
    if dir.identity().state == State::Creating {
        bail!("the first start of {} was cut off: start it once before a restore", args.data.display());
    }
    let (head, totals) = verify(&args.file)?;
    let (of, into) = (Uuid::from_bytes(head.cluster), dir.identity().cluster);
    ensure!(
        of == into,
        "{} is a backup of the cluster {of}, and {} carries the cluster {into}; take a backup of that one",
        args.file.display(),
        args.data.display()
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let damaged = runtime.context("start a runtime")?.block_on(restore(&dir, &args.file, head, &tuning))?;
    println!("restored {} rows up to entry {} of the log", totals.rows, head.position.index);
    println!(
        "what was written since the backup stays on the disks for {} hours, in case another backup is the right one",
        KEEP.as_secs() / 3600
    );
    for file in &damaged {
        println!("damaged: {file}");
    }
    println!("{}", summary(damaged.len()));
    Ok(ExitCode::SUCCESS)
}

fn summary(damaged: usize) -> String {
    match damaged {
        0 => "every file has its data".to_string(),
        1 => "1 file lacks data that was freed since the backup".to_string(),
        files => format!("{files} files lack data that was freed since the backup"),
    }
}

async fn restore(dir: &DataDir, file: &Path, head: Head, tuning: &Tuning) -> anyhow::Result<Vec<Damaged>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let agent = open_disks(dir, &clock, tuning).await?;
    let seen = survey(&agent);
    let mut options = tuning.metadata(clock.clone())?;
    options.reclaim = false;
    let (data, backup) = (dir.path().to_path_buf(), file.to_path_buf());
    let made = tokio::task::spawn_blocking(move || -> anyhow::Result<(Restored, Service)> {
        let read = File::open(&backup).with_context(|| format!("read {}", backup.display()))?;
        let all = read.metadata().with_context(|| format!("read {}", backup.display()))?.len();
        let reader = Reader::open(BufReader::with_capacity(1 << 20, read));
        let reader = reader.with_context(|| backup.display().to_string())?;
        // It was verified, but it may have been replaced since.
        ensure!(*reader.head() == head, "{} has changed meanwhile; begin again", backup.display());
        let mut progress = Progress::new("bytes restored");
        let restored = Restored::build(&data, &options, reader, &mut |done| progress.at(done, all));
        let restored = restored.context("restore the backup")?;
        let service = Service::open(restored.path(), options).context("open the restored metadata")?;
        Ok((restored, service))
    });
    let (restored, service) = made.await.context("restore the backup")??;
    pass_over(&service, seen, clock.now()).await?;
    let stopped = service.close().await;
    ensure!(stopped.closed, "the restored metadata had to be given up: {stopped}");
    drop(service);
    let offline = Offline::open(restored.path()).context("read the restored metadata")?;
    let damaged = compare(&offline, &agent)?;
    drop(offline);
    agent.close().await.context("close the disks")?;
    if let Some(replaced) = restored.install()? {
        println!("the metadata that were there are kept in {}", replaced.display());
    }
    Ok(damaged)
}

/// Opens all disks that the data directory knows, without changing them. Where others hold the same data one may be
/// away.
async fn open_disks(dir: &DataDir, clock: &Arc<dyn Clock>, tuning: &Tuning) -> anyhow::Result<NodeAgent> {
    let cluster = ClusterId(*dir.identity().cluster.as_bytes());
    let options = node_agent::Options { cluster, read_only: true, device: tuning.device() };
    let mut agent = NodeAgent::default();
    for record in &dir.identity().disks {
        match agent.add(dir.disk_path(record), clock, options).await {
            Ok(()) => {}
            Err(error) if dir.identity().copies > 1 => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(%error, disk = %record.uuid, "a disk is away: what is only on it is not looked at");
            }
            Err(error) => return Err(error).context("open the disks"),
        }
    }
    ensure!(!agent.disks().is_empty(), "none of the disks of {} can be opened", dir.path().display());
    Ok(agent)
}

/// What the disks show to have been given out.
struct Seen {
    /// The newest session of each volume.
    sessions: BTreeMap<VolumeId, SessionId>,
    /// The highest epoch of any group.
    epoch: Epoch,
}

fn survey(agent: &NodeAgent) -> Seen {
    let mut seen = Seen { sessions: BTreeMap::new(), epoch: Epoch(0) };
    for disk in agent.disks() {
        seen.epoch = seen.epoch.max(disk.store().highest_epoch());
        disk.store().each_fragment(&mut |id, entry| {
            let newest = seen.sessions.entry(id.extent.volume).or_insert(id.extent.session);
            *newest = id.extent.session.max(*newest);
            seen.epoch = seen.epoch.max(entry.epoch);
        });
    }
    seen
}

/// Has the restored metadata go on above what was seen.
async fn pass_over(service: &Service, seen: Seen, now: Nanos) -> anyhow::Result<()> {
    let Seen { sessions, epoch } = seen;
    let keep_until = Nanos(now.0.saturating_add(KEEP.as_nanos() as i64));
    let command = Command::Restored { epoch, sessions: sessions.into_iter().collect(), keep_until };
    let passed = "pass over what was given out since the backup";
    match service.call(Envelope { slot: None, command }).await.context(passed)? {
        Reply::Done => {}
        other => bail!("{passed}: the metadata service answered {other:?}"),
    }
    // What had been deleted before the backup may have gone from the disks since: it goes from the rows too, so that
    // nobody takes it for lost.
    let cleared = "clear what was deleted before the backup";
    for volume in service.volumes().context(cleared)? {
        loop {
            let command = Command::Reclaim { volume: volume.id, steps: 1000 };
            match service.call(Envelope { slot: None, command }).await.context(cleared)? {
                Reply::Left(0) => break,
                Reply::Left(_) => {}
                other => bail!("{cleared}: the metadata service answered {other:?}"),
            }
        }
    }
    Ok(())
}

/// The files of which the disks have lost bytes.
fn compare(rows: &dyn Rows, agent: &NodeAgent) -> anyhow::Result<Vec<Damaged>> {
    let Answer::Groups(groups) = query(rows, &Query::Groups).context("read the groups")? else {
        bail!("the rows do not tell the placement groups");
    };
    let groups = agent.groups(groups);
    let Answer::Volumes(volumes) = query(rows, &Query::Volumes).context("read the volumes")? else {
        bail!("the rows do not tell the volumes");
    };
    let mut damaged = Vec::new();
    let mut progress = Progress::new("extents compared");
    let mut done = 0;
    for volume in volumes {
        let mut lost: BTreeSet<ExtentId> = BTreeSet::new();
        namespace::extents(rows, volume.id, &mut |row, alive| {
            if alive && is_lost(&row, &groups, agent) {
                lost.insert(row.id);
            }
            done += 1;
            progress.at(done, done);
            true
        })
        .context("read the extents")?;
        damaged.extend(damage::files(rows, volume.id, &lost)?);
    }
    Ok(damaged)
}

/// Whether every disk that should have the extent is here, and none has it.
fn is_lost(row: &ExtentRow, groups: &[Group], agent: &NodeAgent) -> bool {
    let Some(group) = groups.iter().find(|group| group.id == row.group) else { return true };
    let mut slots = group.slots.iter().enumerate().filter(|(_, slot)| slot.state == SlotState::In);
    slots.all(|(index, slot)| {
        let here = agent.disks().iter().find(|disk| disk.store().disk() == slot.disk);
        here.is_some_and(|disk| disk.store().entry(&group.fragment(row.id, row.layout, index)).is_none())
    })
}
