//! `holdfast fsck`: every row against every other, every row against the disks, every stored byte against its checksums.
//!
//! It reads a stopped data directory as the next start would find it, with the log's tail applied in memory and the
//! disks' journals replayed in memory, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clock::{Clock, SystemClock};
use extents::Group;
use metadata::Offline;
use namespace::{Answer, ExtentRow, Query, Rows, query};
use node_agent::NodeAgent;
use node_agent::verify::Problem;
use serde::Serialize;
use store::{ClusterId, DiskId};
use types::{ByteSize, ExtentId, VolumeId};

use crate::args::FsckArgs;
use crate::damage;
use crate::data_dir::DataDir;
use crate::progress::Progress;
use crate::tuning::Tuning;

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Findings {
    /// Each in a sentence; empty if all is well.
    pub problems: Vec<String>,
    /// Files of which some bytes are whole on no disk, each in a sentence that begins with its path.
    pub damaged_files: Vec<String>,
    /// Volumes whose rows were checked.
    pub volumes: u64,
    /// Extents that files use, each of which was read.
    pub extents: u64,
    /// Fragments on the disks, each of which was read.
    pub fragments: u64,
    /// Bytes that were read from the disks.
    pub bytes: u64,
    /// Fragments that no file uses; they are freed when `up` runs.
    pub garbage_fragments: u64,
    /// Their bytes.
    pub garbage_bytes: u64,
}

/// Checks a stopped data directory; the exit code is 0 if all is well and 1 if not.
pub fn run(args: &FsckArgs) -> anyhow::Result<ExitCode> {
    let tuning = Tuning::from_env()?;
    let dir = DataDir::open(&args.data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let findings = runtime.context("start a runtime")?.block_on(check(&dir, &tuning))?;
    if args.json {
        println!("{}", serde_json::to_string(&findings).context("print the findings")?);
    } else {
        print!("{}", for_people(&findings));
    }
    Ok(if findings.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn for_people(findings: &Findings) -> String {
    let mut text = String::new();
    for problem in &findings.problems {
        text.push_str(&format!("{problem}\n"));
    }
    for file in &findings.damaged_files {
        text.push_str(&format!("damaged: {file}\n"));
    }
    text.push_str(&format!(
        "volumes {}, extents {}, fragments {}, {} read; fragments that no file uses and that will be freed: {} ({})\n",
        findings.volumes,
        findings.extents,
        findings.fragments,
        ByteSize(findings.bytes),
        findings.garbage_fragments,
        ByteSize(findings.garbage_bytes)
    ));
    text.push_str(&match findings.problems.len() {
        0 => "clean\n".to_string(),
        1 => "1 problem\n".to_string(),
        problems => format!("{problems} problems\n"),
    });
    text
}

async fn check(dir: &DataDir, tuning: &Tuning) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    if dir.identity().state == crate::data_dir::State::Creating {
        // Its first start was cut off: nothing was ever served from it.
        return Ok(findings);
    }
    let offline = Offline::open(dir.path()).context("read the metadata")?;
    if offline.report().last.is_none() && offline.report().synced.is_none() {
        let log = dir.meta().join("raft.log");
        findings.problems.push(format!("{} has lost all of its entries", log.display()));
    }
    let rows: &dyn Rows = &offline;
    check_rows(rows, &mut findings)?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let cluster = ClusterId(*dir.identity().cluster.as_bytes());
    let options = node_agent::Options { cluster, read_only: true, device: tuning.device() };
    let agent = open_disks(rows, dir, &clock, options, &mut findings).await?;
    check_disks(&agent, &mut findings).await?;
    let Answer::Groups(group_rows) = query(rows, &Query::Groups).context("read the groups")? else {
        anyhow::bail!("the rows do not tell the placement groups");
    };
    let groups = agent.groups(group_rows);
    check_extents(rows, &groups, &mut findings).await?;
    agent.close().await.context("close the disks")?;
    Ok(findings)
}

/// Opens the disks that are in use. Where others hold the same data, one that cannot be opened is a finding.
async fn open_disks(
    rows: &dyn Rows,
    dir: &DataDir,
    clock: &Arc<dyn Clock>,
    options: node_agent::Options,
    findings: &mut Findings,
) -> anyhow::Result<NodeAgent> {
    let Answer::Disks(disks) = query(rows, &Query::Disks).context("read the disks")? else {
        anyhow::bail!("the rows do not tell the disks");
    };
    let retired = |uuid: &[u8; 16]| disks.iter().any(|row| row.retired && row.disk == *uuid);
    let mut agent = NodeAgent::default();
    for record in dir.identity().disks.iter().filter(|record| !retired(record.uuid.as_bytes())) {
        let path = dir.disk_path(record);
        match agent.add(path.clone(), clock, options).await {
            Ok(()) => {}
            Err(error) if dir.identity().copies > 1 => {
                let error = anyhow::Error::new(error);
                findings.problems.push(format!("disk {} is away: {error:#}", record.uuid));
            }
            Err(error) => return Err(error).context("open the disks"),
        }
    }
    Ok(agent)
}

fn volumes(rows: &dyn Rows) -> anyhow::Result<Vec<VolumeId>> {
    match query(rows, &Query::Volumes).context("read the volumes")? {
        Answer::Volumes(volumes) => Ok(volumes.into_iter().map(|volume| volume.id).collect()),
        _ => anyhow::bail!("the rows do not tell the volumes"),
    }
}

fn check_rows(rows: &dyn Rows, findings: &mut Findings) -> anyhow::Result<()> {
    // 0 are the rows of the cluster itself.
    for volume in std::iter::once(VolumeId(0)).chain(volumes(rows)?) {
        let mut progress = Progress::new("rows");
        let problems =
            namespace::check(rows, volume, &mut |done| progress.at(done, done)).context("check the rows")?;
        findings.problems.extend(problems.iter().map(|problem| format!("volume {volume}: {problem}")));
    }
    findings.volumes = volumes(rows)?.len() as u64;
    Ok(())
}

async fn check_disks(agent: &NodeAgent, findings: &mut Findings) -> anyhow::Result<()> {
    for disk in agent.disks() {
        let mut progress = Progress::new("fragments");
        let report = disk.store().verify(|done| progress.at(done.fragments, done.fragments_total)).await;
        let report = report.with_context(|| format!("read {}", disk.path().display()))?;
        let at = disk.path().display();
        let damaged = report.damaged.iter().map(|(id, why)| format!("{at}: fragment {id}: {why}"));
        findings.problems.extend(damaged);
        let taken = report
            .not_allocated
            .iter()
            .map(|id| format!("{at}: fragment {id} lies in blocks that count as free"));
        findings.problems.extend(taken);
        if report.blocks_leaked > 0 {
            findings
                .problems
                .push(format!("{at}: {} blocks are in use by no fragment", report.blocks_leaked));
        }
        findings.fragments += report.fragments;
        findings.bytes += report.bytes;
    }
    Ok(())
}

async fn check_extents(rows: &dyn Rows, groups: &[Group], findings: &mut Findings) -> anyhow::Result<()> {
    let (mut lacking, mut out_of_reach) = (BTreeMap::<DiskId, u64>::new(), BTreeMap::<DiskId, u64>::new());
    for volume in volumes(rows)? {
        let mut progress = Progress::new("extents");
        let mut lost = BTreeSet::new();
        let mut live: Vec<ExtentRow> = Vec::new();
        namespace::extents(rows, volume, &mut |row, alive| {
            if alive {
                live.push(row);
            }
            true
        })
        .context("read the extents")?;
        for (done, row) in live.iter().enumerate() {
            progress.at(done as u64, live.len() as u64);
            let problems = node_agent::verify::extent(groups, row).await;
            let copies =
                groups.iter().find(|group| group.id == row.group).map_or(0, |group| group.slots.len());
            if problems.len() >= copies.max(1) {
                lost.insert(row.id);
            }
            for problem in problems {
                match problem {
                    // One line for each disk says it better than one for each extent.
                    Problem::Lacks { disk, .. } => *lacking.entry(disk).or_default() += 1,
                    Problem::Away { disk, .. } => *out_of_reach.entry(disk).or_default() += 1,
                    problem => findings.problems.push(format!("{:#}", anyhow::Error::new(problem))),
                }
            }
            findings.extents += 1;
        }
        let damaged = damage::files(rows, volume, &lost)?;
        findings.damaged_files.extend(damaged.iter().map(ToString::to_string));
    }
    let lacks = |(disk, count): (&DiskId, &u64)| format!("disk {disk} lacks the copies of {count} extents");
    findings.problems.extend(lacking.iter().map(lacks));
    let away = |(disk, count): (&DiskId, &u64)| format!("disk {disk} is away with copies of {count} extents");
    findings.problems.extend(out_of_reach.iter().map(away));
    let garbage = node_agent::verify::garbage(groups, |ids| live_rows(rows, ids)).await;
    let garbage = garbage.context("list the fragments")?;
    findings.garbage_fragments = garbage.fragments;
    findings.garbage_bytes = garbage.bytes;
    Ok(())
}

fn live_rows(rows: &dyn Rows, ids: Vec<ExtentId>) -> anyhow::Result<Vec<ExtentRow>> {
    match query(rows, &Query::ExtentRows { ids }).context("read the extents")? {
        Answer::Extents(rows) => Ok(rows),
        _ => anyhow::bail!("the rows do not tell the extents"),
    }
}
