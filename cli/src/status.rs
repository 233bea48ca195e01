//! `holdfast status`: asks the `up` that runs on a data directory.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use types::ByteSize;

use crate::args::StatusArgs;
use crate::data_dir::{Found, admin_socket, inspect};
use crate::http::ask_admin;
use crate::report::{DataReport, DiskReport, MountReport, Report};
use crate::table::Table;

/// Prints how the `up` on the data directory does; an error if none runs.
pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let text = runtime.block_on(ask(&args.data))?;
    if args.json {
        println!("{text}");
    } else {
        let report: Report = serde_json::from_str(&text).context("read the status")?;
        print!("{}", for_people(&report));
    }
    Ok(ExitCode::SUCCESS)
}

/// The status document of the `up` that runs on a data directory.
pub async fn ask(data: &Path) -> anyhow::Result<String> {
    if !matches!(inspect(data)?, Found::Ours(_)) {
        bail!("{} is not a Holdfast data directory: there is no cluster.json in it", data.display());
    }
    ask_admin(&admin_socket(data), "/status").await.with_context(|| {
        format!("no `holdfast up` answers on {}; start it with `holdfast up --data {0}`", data.display())
    })
}

/// Disks as people read them.
pub fn disk_table(disks: &[DiskReport]) -> Table {
    let mut table = Table::new(&["DISK", "STATE", "DATA", "FREE", "OUT OF USE", "FRAGMENTS", "PATH"]);
    for disk in disks {
        table.row([
            disk.uuid.to_string(),
            disk.state.clone(),
            ByteSize(disk.data_bytes).to_string(),
            ByteSize(disk.free_bytes).to_string(),
            ByteSize(disk.withheld_bytes).to_string(),
            disk.fragments.to_string(),
            disk.path.display().to_string(),
        ]);
    }
    table
}

fn copies_text(copies: u64) -> String {
    if copies == 1 { "1 copy".to_string() } else { format!("{copies} copies") }
}

/// A span of time that people can remember.
fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
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
    let DataReport { copies, copies_now, groups, slots_filling, bad_copies, repaired, .. } = &report.data;
    let mut data =
        Table::new(&["DATA", "NOW AT LEAST", "GROUPS", "FILLING", "COPIED", "BAD COPIES", "REPLACED"]);
    data.row([
        copies_text(*copies),
        copies_now.to_string(),
        groups.to_string(),
        slots_filling.to_string(),
        match slots_filling {
            0 => "-".to_string(),
            _ => format!(
                "{} of {}",
                ByteSize(report.data.fill_done_bytes),
                ByteSize(report.data.fill_total_bytes)
            ),
        },
        bad_copies.to_string(),
        repaired.to_string(),
    ]);
    let disks = disk_table(&report.disks);
    let mut space =
        Table::new(&["COMPACTED", "WAITS FOR RECLAIM", "SCRUB PASSES", "THIS PASS", "BAD IN PASS"]);
    let sum = |of: fn(&MountReport) -> u64| ByteSize(report.mounts.iter().map(of).sum()).to_string();
    space.row([
        sum(|mount| mount.compacted_bytes),
        sum(|mount| mount.to_reclaim_bytes),
        report.scrub.passes.to_string(),
        ByteSize(report.scrub.bytes).to_string(),
        report.scrub.bad.to_string(),
    ]);
    let mut metadata = Table::new(&["METADATA", "LAST BACKUP", "APPLIED", "SYNCED", "LOG USED", "LOG SIZE"]);
    metadata.row([
        copies_text(report.metadata.copies),
        report.metadata.backup_age_seconds.map_or("never".to_string(), ago),
        report.metadata.applied.to_string(),
        report.metadata.synced.to_string(),
        ByteSize(report.metadata.log_used_bytes).to_string(),
        ByteSize(report.metadata.log_bytes).to_string(),
    ]);
    text.push_str(&format!("\n{mounts}\n{data}\n{disks}\n{space}\n{metadata}"));
    text
}

#[cfg(test)]
mod tests {
    use super::ago;

    #[test]
    fn a_span_is_told_in_the_unit_that_fits() {
        let told = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(ago);
        let expected =
            ["0 s ago", "119 s ago", "2 min ago", "119 min ago", "2 h ago", "47 h ago", "2 days ago"];
        assert_eq!(told, expected);
    }
}
