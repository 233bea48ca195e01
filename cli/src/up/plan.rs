//! What `up` is going to do, checked before anything is changed.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use types::ByteSize;

use crate::args::UpArgs;
use crate::data_dir::{DataDir, Found, State, inspect};

/// The smallest disk: below it the fixed regions leave no sensible room for data.
pub const CAPACITY_MIN: ByteSize = ByteSize(256 << 20);

/// The smallest capacity that is chosen where none is asked for.
const CAPACITY_DEFAULT_MIN: ByteSize = ByteSize(1 << 30);

/// What stays free on the data directory's filesystem beside a disk file: the metadata's log and rows.
const BESIDE: u64 = 256 << 20;

/// A disk that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskPlan {
    /// A file that is to be made, of so many bytes.
    Make(PathBuf, ByteSize),
    /// A file that is there; it grows if it is smaller.
    File(PathBuf, Option<ByteSize>),
    /// A block device, taken whole.
    Device(PathBuf),
    /// A disk of this data directory that is not in its place; the others have its data.
    Away(PathBuf),
}

/// Everything that `up` needs to know.
#[derive(Debug)]
pub struct Plan {
    /// The data directory.
    pub data: PathBuf,
    /// Locked already if it is whole.
    pub dir: Option<DataDir>,
    /// The mount point.
    pub mount: PathBuf,
    /// How many copies of each file's data there are.
    pub copies: u8,
    /// The disks, in the order of the command line. For a whole data directory: those of its identity, and new ones.
    pub disks: Vec<DiskPlan>,
    /// Which of them the command line names.
    pub named: Vec<PathBuf>,
    /// In how many days everything is scrubbed.
    pub scrub_days: u16,
    /// The socket for metrics, bound already.
    pub metrics: Option<TcpListener>,
}

/// Checks the arguments against what is there. Changes nothing but detaching a dead mount of ours.
pub fn make(args: &UpArgs) -> anyhow::Result<Plan> {
    let found = inspect(&args.data)?;
    let dir = match &found {
        Found::Ours(_) => Some(DataDir::open(&args.data)?),
        Found::Blank => None,
    };
    let mount = client::check_mount_point(&args.mount)?;
    not_within(&mount, &args.data)?;
    let disks = match dir.as_ref().map(DataDir::identity).filter(|identity| identity.state == State::Ready) {
        Some(_) => {
            let dir = dir.as_ref().context("a whole directory is open")?;
            if metadata::Service::was_cut_off(dir.path()) {
                bail!(
                    "a restore of the metadata of {} was cut off; do it again with `holdfast metadata restore` (the metadata that were there are kept in {})",
                    args.data.display(),
                    dir.path().join("meta.replaced-N, the highest N").display()
                );
            }
            if let Some(part) = metadata::Service::missing(dir.path()) {
                bail!(
                    "{} is missing: it tells which files there are and where their data lie; restore {} from a backup",
                    part.display(),
                    dir.meta().display()
                );
            }
            known_disks(dir, args)?
        }
        None => new_disks(args)?,
    };
    capacity_is_of_files(&disks, args.capacity)?;
    let metrics = args.metrics.map(bind).transpose()?;
    let recorded = dir.as_ref().map(DataDir::identity).filter(|identity| identity.state == State::Ready);
    let copies = recorded.map_or(args.redundancy.unwrap_or(1), |identity| identity.copies);
    let named = full_paths(args)?;
    let (data, scrub_days) = (args.data.clone(), args.scrub_days);
    Ok(Plan { data, dir, mount, copies, disks, named, scrub_days, metrics })
}

fn bind(at: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(at).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.with_context(|| {
        format!("--metrics {at} cannot be used; choose another port, or stop what listens there")
    })
}

/// Files of ours below our own mount would wait for themselves.
fn not_within(mount: &Path, data: &Path) -> anyhow::Result<()> {
    let data = std::path::absolute(data).context("find the data directory")?;
    if mount.starts_with(&data) || data.starts_with(mount) {
        bail!(
            "--mount {} and --data {} lie in one another; choose separate directories",
            mount.display(),
            data.display()
        );
    }
    Ok(())
}

/// The disks of the command line, none of them twice, whatever it is called.
fn full_paths(args: &UpArgs) -> anyhow::Result<Vec<PathBuf>> {
    let mut full: Vec<PathBuf> = Vec::new();
    for path in &args.disks {
        let this = std::path::absolute(path).with_context(|| format!("find --disk {}", path.display()))?;
        if full.iter().any(|other| is_same(other, &this)) {
            bail!("--disk {} is given twice", path.display());
        }
        full.push(this);
    }
    Ok(full)
}

/// Whether two paths lead to one file or one device.
fn is_same(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let identity = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        let device = found.file_type().is_block_device();
        Some(if device { (true, 0, found.rdev()) } else { (false, found.dev(), found.ino()) })
    };
    one == other || identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// A size is asked for files; a block device is used whole.
fn capacity_is_of_files(disks: &[DiskPlan], capacity: Option<ByteSize>) -> anyhow::Result<()> {
    if let Some(capacity) = capacity
        && disks.iter().all(|disk| matches!(disk, DiskPlan::Device(_)))
    {
        bail!(
            "--capacity {capacity} is for disk files, and every disk here is a block device, which is used whole; leave it out"
        );
    }
    Ok(())
}

fn new_disks(args: &UpArgs) -> anyhow::Result<Vec<DiskPlan>> {
    let (copies, disks) = (usize::from(args.redundancy.unwrap_or(1)), args.disks.len().max(1));
    if disks < copies {
        bail!(
            "--redundancy replica:{copies} needs {copies} disks, each for another copy, and there is {disks}; give more with --disk"
        );
    }
    if args.disks.is_empty() {
        let bytes = new_file_size(&args.data, args.capacity)?;
        return Ok(vec![DiskPlan::Make(PathBuf::from("disks/disk-0"), bytes)]);
    }
    let mut plans = Vec::new();
    for full in full_paths(args)? {
        let plan = disk(&full, args.capacity)?;
        if let DiskPlan::File(path, grown) = &plan {
            large_enough(path, *grown)?;
        }
        plans.push(plan);
    }
    Ok(plans)
}

/// A file that is there and new to us has to be a disk's size, or to become it.
fn large_enough(path: &Path, grown: Option<ByteSize>) -> anyhow::Result<()> {
    let found = std::fs::metadata(path).with_context(|| format!("look at --disk {}", path.display()))?;
    let bytes = grown.unwrap_or(ByteSize(found.len()));
    if bytes < CAPACITY_MIN {
        bail!(
            "--disk {} is too small ({bytes}); let it grow with --capacity, to at least {CAPACITY_MIN}",
            path.display()
        );
    }
    Ok(())
}

fn disk(path: &Path, capacity: Option<ByteSize>) -> anyhow::Result<DiskPlan> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::metadata(path) {
        Ok(found) if found.file_type().is_block_device() => Ok(DiskPlan::Device(path.to_path_buf())),
        Ok(found) if found.is_file() => {
            let now = ByteSize(found.len());
            match capacity {
                Some(capacity) if capacity < now => bail!(
                    "--capacity {capacity} is smaller than the disk {} ({now}), and disks do not shrink; leave --capacity out or give at least {}",
                    path.display(),
                    now.0
                ),
                Some(capacity) => {
                    // Also at its size: the file may have grown and the disk on it not, in a start that was cut off.
                    if capacity > now {
                        room_for(path, ByteSize(capacity.0 - now.0))?;
                    }
                    Ok(DiskPlan::File(path.to_path_buf(), Some(capacity)))
                }
                None => Ok(DiskPlan::File(path.to_path_buf(), None)),
            }
        }
        Ok(_) => bail!("--disk {} is neither a file nor a block device", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !path.parent().is_some_and(Path::is_dir) {
                bail!(
                    "--disk {} cannot be made: its directory does not exist; make it first",
                    path.display()
                );
            }
            Ok(DiskPlan::Make(path.to_path_buf(), new_file_size(path, capacity)?))
        }
        Err(error) => Err(error).with_context(|| format!("look at --disk {}", path.display())),
    }
}

/// The disks of a whole data directory: those that it knows, where they were last, and new ones that the command line
/// names. With several copies the command line, if it names any, leaves out those that it does not name.
fn known_disks(dir: &DataDir, args: &UpArgs) -> anyhow::Result<Vec<DiskPlan>> {
    let copies = dir.identity().copies;
    if let Some(asked) = args.redundancy.filter(|asked| *asked != copies) {
        bail!(
            "--redundancy replica:{asked} is not what this data directory was made with (replica:{copies}), and it cannot be changed; leave it out"
        );
    }
    let named = full_paths(args)?;
    let records: Vec<PathBuf> = dir.identity().disks.iter().map(|record| dir.disk_path(record)).collect();
    // With one copy all are needed, named or not.
    let is_used = |path: &&PathBuf| copies == 1 || named.is_empty() || named.contains(path);
    let mut plans = Vec::new();
    for path in records.iter().filter(is_used) {
        // Before any question of size: a disk with files on it is not made anew, whatever room there is.
        match path.exists() {
            true => plans.push(disk(path, args.capacity)?),
            false if copies > 1 => plans.push(DiskPlan::Away(path.clone())),
            false => bail!(
                "the disk {} of this data directory is missing; put it back in its place (files may be on it that are nowhere else)",
                path.display()
            ),
        }
    }
    for path in named.iter().filter(|path| !records.contains(path)) {
        plans.push(disk(path, args.capacity)?);
    }
    Ok(plans)
}

/// The size of a disk file at `path`, which does not exist.
fn new_file_size(path: &Path, capacity: Option<ByteSize>) -> anyhow::Result<ByteSize> {
    let free = free_bytes(path)?;
    let half = ByteSize(free.0 / 2 / 4096 * 4096);
    let bytes = capacity.unwrap_or(half.max(CAPACITY_DEFAULT_MIN));
    if bytes < CAPACITY_MIN {
        bail!("--capacity {bytes} is too small; give at least {CAPACITY_MIN}");
    }
    room_for(path, bytes)?;
    Ok(ByteSize(bytes.0 / 4096 * 4096))
}

fn room_for(path: &Path, bytes: ByteSize) -> anyhow::Result<()> {
    let free = free_bytes(path)?;
    if bytes.0.saturating_add(BESIDE) > free.0 {
        bail!(
            "there is no room for {bytes} at {}: its filesystem has {free} free, of which {} stay for metadata; give a smaller --capacity or free some space",
            path.display(),
            ByteSize(BESIDE)
        );
    }
    Ok(())
}

/// What a user may still write on the filesystem where `path` is or will be.
fn free_bytes(path: &Path) -> anyhow::Result<ByteSize> {
    let full = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
    let there = full.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"));
    let stat =
        rustix::fs::statvfs(there).with_context(|| format!("ask how much is free at {}", there.display()))?;
    Ok(ByteSize(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

#[cfg(test)]
mod tests;
