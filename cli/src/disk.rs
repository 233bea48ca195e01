//! `holdfast disk`: the disks of a running `up`, and giving one up.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::args::{DiskArgs, DiskWhat};
use crate::data_dir::admin_socket;
use crate::http::fail_disk;
use crate::report::{DiskReport, Report};
use crate::status::{ask, disk_table};

/// Lists the disks, or gives one up.
pub fn run(args: &DiskArgs) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let text = ask(&args.data).await?;
        let report: Report = serde_json::from_str(&text).context("read the status")?;
        match &args.what {
            DiskWhat::List { json: true } => {
                println!("{}", serde_json::to_string(&report.disks).context("print the disks")?);
            }
            DiskWhat::List { json: false } => print!("{}", disk_table(&report.disks)),
            DiskWhat::Fail { disk } => {
                let disk = find(&report.disks, disk)?;
                fail_disk(&admin_socket(&args.data), disk.uuid).await?;
                println!("{}: given up; `holdfast status` shows how its data is copied to others", disk.uuid);
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The disk that is meant: by its id, or by its path.
fn find<'a>(disks: &'a [DiskReport], meant: &str) -> anyhow::Result<&'a DiskReport> {
    let path = std::path::absolute(meant).context("find the path of the disk")?;
    let is_it = |disk: &&DiskReport| disk.uuid.to_string() == meant || same_path(&disk.path, &path);
    match disks.iter().find(is_it) {
        Some(disk) => Ok(disk),
        None => bail!("there is no disk {meant}; `holdfast disk list` shows those that are used"),
    }
}

fn same_path(known: &Path, meant: &Path) -> bool {
    std::path::absolute(known).is_ok_and(|known| known == meant)
}

#[cfg(test)]
mod tests {
    use super::find;
    use crate::report::DiskReport;
    use uuid::Uuid;

    #[test]
    fn a_disk_is_found_by_its_id_and_by_its_path() {
        let disk = |n: u128, path: &str| DiskReport {
            uuid: Uuid::from_u128(n),
            path: path.into(),
            state: "ok".into(),
            data_bytes: 0,
            free_bytes: 0,
            withheld_bytes: 0,
            fragments: 0,
            checkpoints: 0,
        };
        let disks = [disk(1, "/a/one"), disk(2, "/a/two")];
        assert_eq!(find(&disks, "/a/two").expect("by path").uuid, Uuid::from_u128(2));
        assert_eq!(find(&disks, &Uuid::from_u128(1).to_string()).expect("by id").path, disks[0].path);
        let text = format!("{:#}", find(&disks, "three").expect_err("there is none"));
        assert!(text.contains("no disk three"), "{text}");
    }
}
