//! `holdfast quota`: limits of directories, and of the volume, of a running `up`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use types::ByteSize;

use crate::args::{Limit, QuotaArgs, QuotaWhat};
use crate::data_dir::{Found, admin_socket, inspect};
use crate::http::{ask_admin, order_admin};
use crate::progress::Progress;
use crate::report::{QuotaReport, Report};
use crate::table::Table;

/// The page that takes orders.
pub const PAGE: &str = "/quota";

/// How often a quota that is being counted is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The inode number of the volume's root directory.
const ROOT: u64 = 1;

/// What is asked of the running `up`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum Order {
    /// Sets limits of a directory by its inode number; of 1: the volume's. `None` leaves one, `u64::MAX` is none.
    Set {
        /// Which directory.
        dir: u64,
        /// Most bytes.
        bytes: Option<u64>,
        /// Most inodes.
        inodes: Option<u64>,
    },
    /// Takes the limits away.
    Remove {
        /// Which directory.
        dir: u64,
    },
    /// Only asks for what there is.
    List,
}

/// What the running `up` answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Page {
    /// Why the order was refused: the name of an errno.
    pub refused: Option<String>,
    /// A quota is being counted.
    pub counting: bool,
    /// Inodes of the volume: no quota has more to count.
    pub inodes: u64,
    /// All quotas, the volume's first.
    pub quotas: Vec<QuotaReport>,
}

/// A running `up` and a directory in its mount.
struct Place {
    socket: PathBuf,
    dir: u64,
    /// As the user called it.
    name: String,
}

/// Sets, shows or removes a quota.
pub fn run(args: &QuotaArgs) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let data = args.data.as_deref();
    match &args.what {
        QuotaWhat::Set { of, bytes, inodes } => {
            let place = find(&runtime, data, of.dir.as_deref())?;
            let value = |limit: &Limit| limit.0.unwrap_or(u64::MAX);
            let order = Order::Set {
                dir: place.dir,
                bytes: bytes.as_ref().map(value),
                inodes: inodes.as_ref().map(value),
            };
            let page = runtime.block_on(change(&place, &order))?;
            print!("{}", for_people(of_dir(&page, &place)));
        }
        QuotaWhat::Remove { of } => {
            let place = find(&runtime, data, of.dir.as_deref())?;
            runtime.block_on(change(&place, &Order::Remove { dir: place.dir }))?;
        }
        QuotaWhat::Get { of, json } => {
            let place = find(&runtime, data, of.dir.as_deref())?;
            let page = runtime.block_on(order(&place.socket, &Order::List))?;
            let found = of_dir(&page, &place);
            if found.is_empty() {
                bail!("{} has no quota", place.name);
            }
            if *json {
                println!("{}", serde_json::to_string(&found[0]).context("print the quota")?);
            } else {
                print!("{}", for_people(found));
            }
        }
        QuotaWhat::List { dir, json } => {
            let place = find(&runtime, data, dir.as_deref())?;
            let page = runtime.block_on(order(&place.socket, &Order::List))?;
            if *json {
                println!("{}", serde_json::to_string(&page.quotas).context("print the quotas")?);
            } else {
                print!("{}", for_people(&page.quotas));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The quota of the place's directory, if it has one.
fn of_dir<'a>(page: &'a Page, place: &Place) -> &'a [QuotaReport] {
    let at = page.quotas.iter().position(|quota| quota.ino == place.dir);
    at.map_or(&[], |at| &page.quotas[at..=at])
}

fn for_people(quotas: &[QuotaReport]) -> String {
    let limit = |limit: Option<String>| limit.unwrap_or_else(|| "-".to_string());
    let share = |used: u64, limit: Option<u64>| match limit {
        Some(0) if used == 0 => "0%".to_string(),
        Some(0) => "-".to_string(),
        Some(limit) => format!("{:.0}%", used as f64 / limit as f64 * 100.0),
        None => "-".to_string(),
    };
    let header = ["DIRECTORY", "BYTES", "LIMIT", "USED", "INODES", "LIMIT", "USED", "STATE"];
    let mut table = Table::new(&header);
    for quota in quotas {
        table.row([
            if quota.ino == ROOT { "(the volume)".to_string() } else { quota.dir.clone() },
            ByteSize(quota.used_bytes).to_string(),
            limit(quota.limit_bytes.map(|bytes| ByteSize(bytes).to_string())),
            share(quota.used_bytes, quota.limit_bytes),
            quota.inodes.to_string(),
            limit(quota.limit_inodes.map(|inodes| inodes.to_string())),
            share(quota.inodes, quota.limit_inodes),
            quota.state.clone(),
        ]);
    }
    table.to_string()
}

async fn order(socket: &Path, order: &Order) -> anyhow::Result<Page> {
    let body = serde_json::to_string(order).context("write the order")?;
    let answer = order_admin(socket, PAGE, body).await?;
    serde_json::from_str(&answer).context("read the answer")
}

/// Changes a quota, and waits until everything is counted.
async fn change(place: &Place, wanted: &Order) -> anyhow::Result<Page> {
    let mut progress = Progress::new("counting");
    loop {
        let page = order(&place.socket, wanted).await?;
        match page.refused.as_deref() {
            None => break,
            // Another quota is being counted: one at a time.
            Some("EBUSY") => wait(place, &mut progress).await?,
            Some("ENODATA") => bail!("{} has no quota", place.name),
            Some("ENOTDIR") => bail!("{} is not a directory; a quota is for a directory", place.name),
            Some("ESTALE" | "ENOENT") => bail!("{} was removed", place.name),
            Some(errno) => bail!("the quota of {} was not changed: {errno}", place.name),
        };
    }
    wait(place, &mut progress).await
}

/// Waits until no quota is being counted.
async fn wait(place: &Place, progress: &mut Progress) -> anyhow::Result<Page> {
    loop {
        let page = order(&place.socket, &Order::List).await?;
        if !page.counting {
            return Ok(page);
        }
        let busy = page.quotas.iter().find(|quota| quota.state != "set");
        let counted = busy.map_or(0, |quota| match quota.state.as_str() {
            "removing" => page.inodes.saturating_sub(quota.inodes),
            _ => quota.inodes,
        });
        progress.at(counted, page.inodes);
        tokio::time::sleep(LOOK).await;
    }
}

/// The `up` on the data directory `data`, or the one whose mount holds `dir`, or the only one; without `dir` the volume.
fn find(runtime: &Runtime, data: Option<&Path>, dir: Option<&Path>) -> anyhow::Result<Place> {
    let (name, wanted) = match dir {
        None => ("the volume".to_string(), None),
        Some(dir) => {
            let name = dir.display().to_string();
            let found = std::fs::metadata(dir).with_context(|| format!("look at {name}"))?;
            if !found.is_dir() {
                bail!("{name} is not a directory; a quota is for a directory");
            }
            (name, Some((found.dev(), found.ino())))
        }
    };
    let sockets = match data {
        Some(data) => {
            if !matches!(inspect(data)?, Found::Ours(_)) {
                let data = data.display();
                bail!("{data} is not a Holdfast data directory: there is no cluster.json in it");
            }
            vec![admin_socket(data)]
        }
        None => running().context("look for a running `holdfast up`")?,
    };
    let mut answered = Vec::new();
    let mut failed = None;
    for socket in sockets {
        let status = runtime.block_on(ask_admin(&socket, "/status"));
        match status.and_then(|text| serde_json::from_str::<Report>(&text).context("read the status")) {
            Ok(report) => answered.push((socket, report)),
            // It may be another user's, of another release, or none of ours.
            Err(error) => failed = Some((socket, error)),
        }
    }
    if let (Some(data), Some((_, error)), true) = (data, failed, answered.is_empty()) {
        let data = data.display();
        return Err(error.context(format!(
            "no `holdfast up` answers on {data}; start it with `holdfast up --data {data}`"
        )));
    }
    let Some((dev, ino)) = wanted else {
        let mut answered = answered.into_iter();
        return match (answered.next(), answered.next()) {
            (Some((socket, _)), None) => Ok(Place { socket, dir: ROOT, name }),
            (None, _) => bail!("no `holdfast up` of yours runs here; name its data directory with --data"),
            _ => bail!("more than one `holdfast up` runs here; name the data directory with --data"),
        };
    };
    let holds = |report: &Report| {
        let devices = report.mounts.iter().filter_map(|mount| std::fs::metadata(&mount.dir).ok());
        devices.map(|found| found.dev()).any(|mounted| mounted == dev)
    };
    match answered.into_iter().find(|(_, report)| holds(report)) {
        Some((socket, _)) => Ok(Place { socket, dir: ino, name }),
        None if data.is_some() => bail!("{name} is not in the mount of that `holdfast up`"),
        None => bail!("{name} is not in a Holdfast mount whose `holdfast up` you may ask"),
    }
}

/// The admin sockets of this machine, as the kernel lists them.
fn running() -> std::io::Result<Vec<PathBuf>> {
    let mut sockets: Vec<PathBuf> = std::fs::read_to_string("/proc/net/unix")?
        .lines()
        .filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])))
        .filter(|path| path.parent().is_some_and(|data| admin_socket(data) == *path))
        .collect();
    sockets.sort();
    sockets.dedup();
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::{Order, QuotaReport, for_people};

    #[test]
    fn limits_are_a_table_for_people() {
        let quota = |ino, dir: &str, limit_bytes, limit_inodes| QuotaReport {
            dir: dir.into(),
            ino,
            limit_bytes,
            limit_inodes,
            used_bytes: 1 << 20,
            inodes: 7,
            state: "set".into(),
        };
        let text = for_people(&[
            quota(1, "/", Some(4 << 20), None),
            quota(9, "/projects/ann", None, Some(14)),
            quota(10, "/none", Some(0), None),
        ]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["(the", "volume)", "1.0", "MiB", "4.0", "MiB", "25%", "7", "-", "-", "set"]);
        assert_eq!(lines[2], ["/projects/ann", "1.0", "MiB", "-", "-", "7", "14", "50%", "set"]);
        assert_eq!(lines[3], ["/none", "1.0", "MiB", "0", "B", "-", "7", "-", "-", "set"]);
    }

    #[test]
    fn an_order_is_what_it_was() {
        let order = Order::Set { dir: 7, bytes: Some(u64::MAX), inodes: None };
        let text = serde_json::to_string(&order).expect("text");
        assert_eq!(text, r#"{"order":"set","dir":7,"bytes":18446744073709551615,"inodes":null}"#);
        assert_eq!(serde_json::from_str::<Order>(&text).expect("an order"), order);
    }
}
