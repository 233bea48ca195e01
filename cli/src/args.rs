//! The command line. What is not built has no flag.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use types::ByteSize;

/// Holdfast: a shared POSIX filesystem on your own disks.
#[derive(Parser, Debug)]
#[command(name = "holdfast", version, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve a filesystem from a data directory until SIGINT or SIGTERM.
    Up(UpArgs),
    /// Show how a running `up` does.
    Status(StatusArgs),
    /// The disks of a running `up`: list them, or give one up.
    Disk(DiskArgs),
    /// Check every row and every stored byte of a stopped data directory; changes nothing.
    Fsck(FsckArgs),
    /// Print what a stopped data directory holds, format by format; changes nothing.
    Dump(DumpArgs),
    /// Limit a directory, or the volume, of a running `up` in bytes and inodes.
    Quota(QuotaArgs),
    /// Back up the metadata: which files there are and where their data lie.
    Metadata(MetadataArgs),
    /// Measure a mount beside a plain directory and beside what FUSE itself allows.
    Bench(BenchArgs),
    /// Serve one of the filesystems that `bench` measures beside the mount, until standard input ends.
    #[command(hide = true)]
    BenchFloor(BenchFloorArgs),
}

/// Arguments of `up`.
#[derive(Parser, Debug)]
pub struct UpArgs {
    /// Where everything is kept; made if it is not there (its parent must be).
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// The directory to mount on.
    #[arg(long, value_name = "DIR")]
    pub mount: PathBuf,

    /// Size of each disk file that is made, for example 10GiB. A larger value later grows it. [default: half of what
    /// is free, at least 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub capacity: Option<ByteSize>,

    /// A block device, or a file (made if it is not there), to keep the files' data on instead of a file in the data
    /// directory; repeat it for more. With several copies a disk that is left out is away, and its data is on the
    /// others; a new one takes over from it.
    #[arg(long = "disk", value_name = "FILE_OR_DEVICE")]
    pub disks: Vec<PathBuf>,

    /// How many copies of the files' data there are, each on another disk: replica:1 to replica:8. Chosen at the first
    /// start and the same from then on. [default: replica:1]
    #[arg(long, value_name = "replica:N", value_parser = copies)]
    pub redundancy: Option<u8>,

    /// Read every stored byte again within so many days, and tell what is bad.
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=365))]
    pub scrub_days: u16,

    /// Serve /metrics, /healthz and /readyz there, for example 127.0.0.1:7490.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub metrics: Option<SocketAddr>,
}

fn copies(text: &str) -> Result<u8, String> {
    let copies = text.strip_prefix("replica:").and_then(|copies| copies.parse().ok());
    copies.filter(|copies| (1..=8).contains(copies)).ok_or("write replica:1 to replica:8".to_string())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "it is not an IP address with a port; write for example 127.0.0.1:7490".to_string())
}

/// Arguments of `status`.
#[derive(Parser, Debug)]
pub struct StatusArgs {
    /// The data directory of the running `up`.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `disk`.
#[derive(Parser, Debug)]
pub struct DiskArgs {
    /// The data directory of the running `up`.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// What to do.
    #[command(subcommand)]
    pub what: DiskWhat,
}

/// What `disk` can do.
#[derive(Subcommand, Debug)]
pub enum DiskWhat {
    /// Show the disks, those that are away too.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a disk up for ever: its data is copied from the other copies to the other disks, as far as there are any.
    Fail {
        /// Its id or its path, as `list` shows them.
        disk: String,
    },
}

/// Arguments of `fsck`.
#[derive(Parser, Debug)]
pub struct FsckArgs {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `quota`.
#[derive(Parser, Debug)]
pub struct QuotaArgs {
    /// The data directory of the running `up`; without it the one is asked whose mount holds DIR, or the only one.
    #[arg(long, value_name = "DATA", global = true)]
    pub data: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub what: QuotaWhat,
}

/// What `quota` can do.
#[derive(Subcommand, Debug)]
pub enum QuotaWhat {
    /// Set limits of a directory with all below it, or of the volume. What is there counts, and stays even if it is more.
    Set {
        /// Of what.
        #[command(flatten)]
        of: QuotaOf,

        /// Most bytes, for example 10GiB, or `none`.
        #[arg(long, value_name = "SIZE", value_parser = bytes, required_unless_present = "inodes")]
        bytes: Option<Limit>,

        /// Most files, directories and the like, or `none`.
        #[arg(long, value_name = "N", value_parser = inodes)]
        inodes: Option<Limit>,
    },
    /// Show the limits of one directory, or of the volume, and what is used.
    Get {
        /// Of what.
        #[command(flatten)]
        of: QuotaOf,

        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show all limits and what is used.
    List {
        /// Any directory of the mount.
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,

        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take the limits of a directory, or of the volume, away.
    Remove {
        /// Of what.
        #[command(flatten)]
        of: QuotaOf,
    },
}

/// What a quota is for.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
pub struct QuotaOf {
    /// A directory in the mount; its root is the volume.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// The volume.
    #[arg(long)]
    pub volume: bool,
}

/// A limit, or that there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit(pub Option<u64>);

fn bytes(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        _ => text.parse().map(|ByteSize(bytes)| Limit(Some(bytes))).map_err(|error| format!("{error}")),
    }
}

fn inodes(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        _ => text.parse().map(|inodes| Limit(Some(inodes))).map_err(|_| "it is not a number".to_string()),
    }
}

/// Arguments of `dump`.
#[derive(Parser, Debug)]
pub struct DumpArgs {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Instead of a format, print which bytes of which file are used, and for what.
    #[arg(long)]
    pub map: bool,

    /// Print the map as JSON.
    #[arg(long, requires = "map")]
    pub json: bool,

    /// Which format.
    #[command(subcommand)]
    pub what: Option<DumpWhat>,
}

/// Arguments of `metadata`.
#[derive(Parser, Debug)]
pub struct MetadataArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: MetadataWhat,
}

/// What `metadata` can do.
#[derive(Subcommand, Debug)]
pub enum MetadataWhat {
    /// Write all metadata of one moment into a file, whether `up` runs or not. The files' data are not in it, but for
    /// those of up to 4 KiB. An older backup at FILE is replaced.
    Backup(BackupArgs),
}

/// Arguments of `metadata backup`.
#[derive(Parser, Debug)]
pub struct BackupArgs {
    /// The backup to be made; keep it on another disk.
    pub file: PathBuf,

    /// The data directory.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

/// Arguments of `bench`.
#[derive(Parser, Debug)]
pub struct BenchArgs {
    /// A directory of the disk that is measured; everything is made in it and removed at the end.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,

    /// Measure this running mount instead of a new volume below --dir, which should be on the same disk.
    #[arg(long, value_name = "DIR")]
    pub mount: Option<PathBuf>,

    /// Only this row; repeat it for more.
    #[arg(long, value_name = "ROW")]
    pub only: Vec<String>,

    /// Little work: shows in seconds that everything works; the figures mean little.
    #[arg(long)]
    pub quick: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `bench-floor`.
#[derive(Parser, Debug)]
pub struct BenchFloorArgs {
    /// The directory to mount on.
    #[arg(long, value_name = "DIR")]
    pub mount: PathBuf,

    /// Pass everything on to the files below this directory, instead of keeping it in memory.
    #[arg(long, value_name = "DIR")]
    pub below: Option<PathBuf>,
}

/// What `dump` can print.
#[derive(Subcommand, Debug, Clone)]
pub enum DumpWhat {
    /// cluster.json: identity, disks, state.
    Cluster,
    /// The superblock copies of each disk.
    Superblocks,
    /// The journal of each disk: its batches and records.
    Journal,
    /// The last checkpoint of each disk's index: its fragments and where they lie.
    Checkpoint,
    /// The Raft log: entries with their commands, votes.
    Log,
    /// The metadata rows as they will be after the log is replayed.
    Rows,
}

#[cfg(test)]
mod tests {
    use super::Args;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
