//! `holdfast status`: asks the `up` that runs on a data directory.

use std::process::ExitCode;

use anyhow::{Context, bail};
use types::ByteSize;

use crate::args::StatusArgs;
use crate::data_dir::{Found, admin_socket, inspect};
use crate::http::ask_admin;
use crate::report::{MountReport, Report};
use crate::table::Table;

/// Prints how the `up` on the data directory does; an error if none runs.
pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    if !matches!(inspect(&args.data)?, Found::Ours(_)) {
        bail!("{} is not a Holdfast data directory: there is no cluster.json in it", args.data.display());
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let answer = runtime.block_on(ask_admin(&admin_socket(&args.data), "/status"));
    let text = answer.with_context(|| {
        format!("no `holdfast up` answers on {}; start it with `holdfast up --data {0}`", args.data.display())
    })?;
    if args.json {
        println!("{text}");
    } else {
        let report: Report = serde_json::from_str(&text).context("read the status")?;
        print!("{}", for_people(&report));
    }
    Ok(ExitCode::SUCCESS)
}

fn for_people(report: &Report) -> String {
    let mut text = format!(
        "holdfast {} (process {}), {} for {} s, start number {}\n",
        report.version, report.pid, report.state, report.uptime_seconds, report.starts
    );
    if let Some(why) = &report.why {
        text.push_str(&format!("{why}\n"));
    }
    let mut mounts = Table::new(&["VOLUME", "MOUNT", "SIZE", "USED", "INODES", "NOT YET ON DISK"]);
    for mount in &report.mounts {
        mounts.row([
            mount.volume.clone(),
            mount.dir.display().to_string(),
            ByteSize(mount.limit_bytes).to_string(),
            ByteSize(mount.used_bytes).to_string(),
            mount.inodes.to_string(),
            ByteSize(mount.dirty_bytes).to_string(),
        ]);
    }
    let mut disks = Table::new(&["DISK", "STATE", "DATA", "FREE", "FRAGMENTS", "PATH"]);
    for disk in &report.disks {
        disks.row([
            disk.uuid.to_string(),
            disk.state.clone(),
            ByteSize(disk.data_bytes).to_string(),
            ByteSize(disk.free_bytes).to_string(),
            disk.fragments.to_string(),
            disk.path.display().to_string(),
        ]);
    }
    let mut space =
        Table::new(&["COMPACTED", "WAITS FOR RECLAIM", "SCRUB PASSES", "THIS PASS", "BAD COPIES"]);
    let sum = |of: fn(&MountReport) -> u64| ByteSize(report.mounts.iter().map(of).sum()).to_string();
    space.row([
        sum(|mount| mount.compacted_bytes),
        sum(|mount| mount.to_reclaim_bytes),
        report.scrub.passes.to_string(),
        ByteSize(report.scrub.bytes).to_string(),
        report.scrub.bad.to_string(),
    ]);
    let mut metadata = Table::new(&["METADATA", "APPLIED", "SYNCED", "LOG USED", "LOG SIZE"]);
    metadata.row([
        "1 replica".to_string(),
        report.metadata.applied.to_string(),
        report.metadata.synced.to_string(),
        ByteSize(report.metadata.log_used_bytes).to_string(),
        ByteSize(report.metadata.log_bytes).to_string(),
    ]);
    text.push_str(&format!("\n{mounts}\n{disks}\n{space}\n{metadata}"));
    text
}
