//! The status document: what a running `up` tells of itself, as `status` shows it and `status --json` prints it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How a running `up` does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The release.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since it was ready.
    pub uptime_seconds: u64,
    /// `ready`, `read-only` or `stopping`.
    pub state: String,
    /// Why it is not `ready`.
    pub why: Option<String>,
    /// The cluster it carries.
    pub cluster: Uuid,
    /// How often the data directory was started.
    pub starts: u64,
    /// Its mounts.
    pub mounts: Vec<MountReport>,
    /// The copies of the files' data.
    pub data: DataReport,
    /// Its disks, those that are away among them.
    pub disks: Vec<DiskReport>,
    /// Its scrub.
    pub scrub: ScrubReport,
    /// Its metadata service.
    pub metadata: MetadataReport,
}

/// A mount of a volume.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MountReport {
    /// The volume's name.
    pub volume: String,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// Most bytes of file data.
    pub limit_bytes: u64,
    /// Bytes of file data.
    pub used_bytes: u64,
    /// Files, directories and the like.
    pub inodes: u64,
    /// The quotas of its directories, at most 10,000.
    pub quotas: Vec<QuotaReport>,
    /// Bytes accepted by write(2) and not yet on disk.
    pub dirty_bytes: u64,
    /// Changes of names and attributes that were answered and are not at the metadata service yet.
    pub pending_commands: u64,
    /// Inodes that are remembered.
    pub nodes: u64,
    /// Flushes of a file that failed since the mount; their data waits for the next.
    pub flush_failures: u64,
    /// Files whose accepted data was lost since the mount.
    pub lost: u64,
    /// Walks of compaction over all files since the mount.
    pub compaction_walks: u64,
    /// Windows of files that compaction wrote anew since the mount.
    pub compacted_windows: u64,
    /// Their bytes.
    pub compacted_bytes: u64,
    /// Windows that compaction wrote anew in vain: somebody changed them meanwhile.
    pub compaction_lost: u64,
    /// Windows that compaction could not read or write.
    pub compaction_failed: u64,
    /// Stored bytes that nothing names any more and that are not freed yet, of the first 10,000 extents.
    pub to_reclaim_bytes: u64,
    /// Extents that nothing named any more and that were freed since the start.
    pub reclaimed_extents: u64,
}

/// The scrub: every stored byte is read again in a period.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Passes that were finished.
    pub passes: u64,
    /// When the last one was, in seconds since 1970.
    pub last_pass: Option<u64>,
    /// Bad copies that the last pass, or the one that is under way, found.
    pub bad: u64,
    /// Fragments that the pass under way has read; 0 between two.
    pub fragments: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

/// A quota of a directory, or the volume's own limits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QuotaReport {
    /// The directory's path in the volume.
    pub dir: String,
    /// Its inode number.
    pub ino: u64,
    /// Most bytes, if they are limited.
    pub limit_bytes: Option<u64>,
    /// Most inodes, if they are limited.
    pub limit_inodes: Option<u64>,
    /// Bytes of file data below it.
    pub used_bytes: u64,
    /// Inodes below it, itself included.
    pub inodes: u64,
    /// `set`, or `counting` or `removing` while that goes on.
    pub state: String,
}

/// How safe the files' data is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct DataReport {
    /// How many copies there should be.
    pub copies: u64,
    /// How many every file has at least.
    pub copies_now: u64,
    /// Some files have fewer copies than they should.
    pub at_risk: bool,
    /// Placement groups.
    pub groups: u64,
    /// Slots of groups whose disk is away.
    pub slots_absent: u64,
    /// Slots of groups that are being filled.
    pub slots_filling: u64,
    /// Of the slot that is being filled now: bytes that it got.
    pub fill_done_bytes: u64,
    /// Of the slot that is being filled now: bytes that it lacked.
    pub fill_total_bytes: u64,
    /// Bytes that slots were filled with since the start.
    pub filled_bytes: u64,
    /// Copies that were found bad since the start while another one served.
    pub bad_copies: u64,
    /// Of these, those that were replaced by a good one.
    pub repaired: u64,
    /// Extents that nothing names any more and whose bytes were freed since the start.
    pub reclaimed: u64,
}

/// A disk.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DiskReport {
    /// Its identity.
    pub uuid: Uuid,
    /// Where it is, or was last; empty if that is not known.
    pub path: PathBuf,
    /// `ok`, `filling` (it lacks copies), `away` (it is not here) or `failed`.
    pub state: String,
    /// Bytes that fragments may take.
    pub data_bytes: u64,
    /// Of these, bytes that are free.
    pub free_bytes: u64,
    /// Of these, bytes that are out of use, because what was read from there was not what had been written.
    pub withheld_bytes: u64,
    /// Fragments on it.
    pub fragments: u64,
    /// Checkpoints of its index since the start.
    pub checkpoints: u64,
}

/// The metadata service.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MetadataReport {
    /// How many copies there are: one, as long as one process runs everything.
    pub copies: u64,
    /// How long ago the last backup was made here; `None` if there is none.
    pub backup_age_seconds: Option<u64>,
    /// Log index of the last entry in that backup.
    pub backup_entry: Option<u64>,
    /// Log index of the last entry in the rows.
    pub applied: u64,
    /// Log index up to which the rows are durable by themselves.
    pub synced: u64,
    /// Bytes of the log that hold entries still needed.
    pub log_used_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// How often the log was purged since the start.
    pub purges: u64,
}

#[cfg(test)]
impl Report {
    /// A report of nothing, for tests.
    pub fn blank() -> Report {
        let metadata = MetadataReport {
            copies: 1,
            backup_age_seconds: None,
            backup_entry: None,
            applied: 7,
            synced: 5,
            log_used_bytes: 4096,
            log_bytes: 8192,
            purges: 1,
        };
        Report {
            version: "1".into(),
            pid: 1,
            uptime_seconds: 1,
            state: "ready".into(),
            why: None,
            cluster: Uuid::nil(),
            starts: 3,
            mounts: Vec::new(),
            data: DataReport::default(),
            disks: Vec::new(),
            scrub: ScrubReport::default(),
            metadata,
        }
    }
}
