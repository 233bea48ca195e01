//! Who keeps a mount busy.
//!
//! Nothing is asked of any file system on the way: descriptors name their mount in /proc/PID/fdinfo, mapped files
//! their superblock in /proc/PID/maps, and the three links of a process are looked at with `AT_STATX_DONT_SYNC`, which
//! FUSE and network mounts answer from memory. So a hung mount elsewhere does not hold up the search.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use mounts::{Place, rows};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// One thing that a mount cannot be unmounted under.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Holder {
    /// A process with an open or mapped file, its working directory, its root or its program there.
    Process {
        /// Its id.
        pid: u32,
        /// Its name, as ps(1) shows it.
        command: String,
        /// What it holds.
        path: PathBuf,
    },
    /// Another mount on or below it.
    Mount {
        /// Where.
        path: PathBuf,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process { pid, command, path } => {
                write!(f, "process {pid} ({command}) uses {}", path.display())
            }
            Holder::Mount { path } => write!(f, "something is mounted on {}", path.display()),
        }
    }
}

/// The holders of a mount, one for each process and path, in order. Processes of other users are seen only by root;
/// those of other pid namespaces by nobody.
pub(crate) fn find(place: &Place) -> Vec<Holder> {
    let rows = rows().unwrap_or_default();
    // The same superblock may be mounted elsewhere too (bind mounts); those do not keep this one busy.
    let mut holders: Vec<Holder> = rows
        .iter()
        .filter(|row| row.parent == place.id && row.is_below(&place.dir))
        .map(|row| Holder::Mount { path: row.dir.clone() })
        .collect();
    let Ok(processes) = fs::read_dir("/proc") else { return holders };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let proc = process.path();
        let mut paths = Vec::new();
        paths.extend(links(&proc, place));
        paths.extend(descriptors(&proc, place));
        paths.extend(mappings(&proc, place));
        paths.sort();
        paths.dedup();
        let command = fs::read_to_string(proc.join("comm")).unwrap_or_default().trim_end().to_string();
        holders.extend(paths.into_iter().map(|path| Holder::Process { pid, command: command.clone(), path }));
    }
    holders.sort();
    holders
}

fn links(proc: &Path, place: &Place) -> Vec<PathBuf> {
    ["cwd", "root", "exe"]
        .iter()
        .map(|link| proc.join(link))
        .filter(|link| {
            statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::MNT_ID)
                .is_ok_and(|s| s.stx_mnt_id == place.id)
        })
        .filter_map(|link| fs::read_link(link).ok())
        .collect()
}

fn descriptors(proc: &Path, place: &Place) -> Vec<PathBuf> {
    let Ok(all) = fs::read_dir(proc.join("fdinfo")) else { return Vec::new() };
    let wanted = place.id.to_string();
    all.flatten()
        .filter(|info| {
            let text = fs::read_to_string(info.path()).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("mnt_id:").is_some_and(|id| id.trim() == wanted))
        })
        .filter_map(|info| fs::read_link(proc.join("fd").join(info.file_name())).ok())
        .collect()
}

fn mappings(proc: &Path, place: &Place) -> Vec<PathBuf> {
    let wanted = format!("{:02x}:{:02x}", place.dev.0, place.dev.1);
    let Ok(maps) = fs::read(proc.join("maps")) else { return Vec::new() };
    String::from_utf8_lossy(&maps)
        .lines()
        .filter_map(|line| {
            // address perms offset dev inode path
            let mut fields = line.splitn(6, ' ');
            let dev = fields.nth(3)?;
            (dev == wanted).then(|| PathBuf::from(fields.nth(1).unwrap_or_default().trim_start()))
        })
        .collect()
}
