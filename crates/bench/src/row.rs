//! The rows: what work is done, in which unit it is told, and which goal it has.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::rows::{list, names, read, sqlite, sync, untar};
use crate::subject::Subject;

/// How much work a round is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// Bytes of the file that is read.
    pub read_bytes: u64,
    /// Passes over it in a round.
    pub read_passes: u64,
    /// Random reads of a block in a round.
    pub random_reads: u64,
    /// Bytes of the file whose blocks are overwritten.
    pub overwrite_bytes: u64,
    /// Calls of fsync(2) or fdatasync(2) in a round.
    pub syncs: u64,
    /// Bytes of the file that is written with one fsync.
    pub big_bytes: u64,
    /// Files that are created, renamed, unlinked or looked at.
    pub names: u64,
    /// Files of the directory that is listed.
    pub listed: u64,
    /// Files of the tree that is unpacked.
    pub unpacked: u64,
    /// Transactions.
    pub transactions: u64,
}

impl Scale {
    /// What the goals are measured with.
    pub const FULL: Scale = Scale {
        read_bytes: 64 << 20,
        read_passes: 16,
        random_reads: 50_000,
        overwrite_bytes: 64 << 20,
        syncs: 300,
        big_bytes: 1 << 30,
        names: 1_000,
        listed: 100_000,
        unpacked: 2_000,
        transactions: 100,
    };

    /// Enough to see that everything works, in seconds.
    pub const QUICK: Scale = Scale {
        read_bytes: 16 << 20,
        read_passes: 2,
        random_reads: 2_000,
        overwrite_bytes: 4 << 20,
        syncs: 20,
        big_bytes: 32 << 20,
        names: 100,
        listed: 1_000,
        unpacked: 100,
        transactions: 10,
    };
}

/// Which value is the better one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// A rate.
    More,
    /// A time.
    Less,
}

/// What a row is held to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Goal {
    /// A rate of at least this part of the subject's.
    PartOf(f64, Subject),
    /// A time of at most so many times the subject's.
    Times(f64, Subject),
    /// A time of at most the subject's and so many raw flushes.
    Flushes(f64, Subject),
}

/// One line of the report.
pub struct Row {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// What is done.
    pub title: &'static str,
    /// What the values count, for example `MB/s`.
    pub unit: &'static str,
    /// Which value is the better one.
    pub better: Better,
    /// What it is held to.
    pub goal: Option<Goal>,
    /// Who does it.
    pub(crate) subjects: &'static [Subject],
    /// The most bytes that it has on each subject at a time.
    pub(crate) bytes: fn(&Scale) -> u64,
    /// Why it cannot be measured here.
    pub(crate) missing: fn() -> Option<String>,
    /// Makes what all rounds use.
    pub(crate) prepare: fn(&At<'_>) -> Done<()>,
    /// Does the work of one round and answers its value.
    pub(crate) measure: fn(&At<'_>) -> Done<f64>,
}

/// Where and how much a row works.
pub(crate) struct At<'a> {
    /// An empty directory of the row's own, kept from round to round.
    pub(crate) dir: &'a Path,
    pub(crate) subject: Subject,
    pub(crate) scale: &'a Scale,
    pub(crate) round: u64,
    pub(crate) stop: &'a AtomicBool,
}

impl At<'_> {
    /// To be called between the calls of a long round.
    pub(crate) fn go_on(&self) -> Done<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Halt::Stopped) } else { Ok(()) }
    }
}

/// Why a round has no value.
#[derive(Debug)]
pub(crate) enum Halt {
    Stopped,
    Failed(io::Error),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Halt {
        Halt::Failed(error)
    }
}

impl From<rustix::io::Errno> for Halt {
    fn from(error: rustix::io::Errno) -> Halt {
        Halt::Failed(error.into())
    }
}

pub(crate) type Done<T> = Result<T, Halt>;

const NAMES_BYTES: u64 = 8 << 20;

/// All rows, in the order of the report.
pub fn rows() -> &'static [Row] {
    const RATE: Row = Row {
        name: "",
        title: "",
        unit: "/s",
        better: Better::More,
        goal: None,
        subjects: Subject::TREES,
        bytes: |_| NAMES_BYTES,
        missing: || None,
        prepare: |_| Ok(()),
        measure: |_| Ok(0.0),
    };
    const TIME: Row = Row { unit: "µs", better: Better::Less, ..RATE };
    &[
        Row {
            name: "sequential-read",
            title: "warm sequential read",
            unit: "MB/s",
            goal: Some(Goal::PartOf(0.95, Subject::Memory)),
            bytes: |scale| scale.read_bytes,
            prepare: read::prepare,
            measure: read::sequential,
            ..RATE
        },
        Row {
            name: "random-read",
            title: "warm 4 KiB random read",
            goal: Some(Goal::PartOf(0.95, Subject::Memory)),
            bytes: |scale| scale.read_bytes,
            prepare: read::prepare,
            measure: read::random,
            ..RATE
        },
        Row {
            name: "overwrite",
            title: "4 KiB overwrite + fdatasync, p50",
            goal: Some(Goal::Flushes(1.5, Subject::File)),
            subjects: &Subject::ALL,
            bytes: |scale| scale.overwrite_bytes,
            prepare: sync::prepare_overwrite,
            measure: sync::overwrite,
            ..TIME
        },
        Row {
            name: "append",
            title: "4 KiB append + fsync, p50",
            goal: Some(Goal::Times(2.0, Subject::Plain)),
            bytes: |scale| scale.syncs * 4096,
            measure: sync::append,
            ..TIME
        },
        Row {
            name: "big-file",
            title: "one large file + one fsync",
            unit: "MB/s",
            goal: Some(Goal::PartOf(0.9, Subject::File)),
            bytes: |scale| scale.big_bytes,
            measure: sync::big_file,
            ..RATE
        },
        Row {
            name: "small-files",
            title: "1 KiB file: create, write, fsync, close, p50",
            bytes: |scale| scale.syncs * 8192,
            measure: sync::small_files,
            ..TIME
        },
        Row {
            name: "stat",
            title: "stat of a cached file",
            goal: Some(Goal::PartOf(0.8, Subject::Memory)),
            prepare: names::prepare_stat,
            measure: names::stat,
            ..RATE
        },
        Row {
            name: "create",
            title: "create and close an empty file",
            goal: Some(Goal::PartOf(0.6, Subject::Memory)),
            measure: names::create,
            ..RATE
        },
        Row {
            name: "rename",
            title: "rename within a directory",
            goal: Some(Goal::PartOf(0.6, Subject::Memory)),
            measure: names::rename,
            ..RATE
        },
        Row {
            name: "unlink",
            title: "unlink an empty file",
            goal: Some(Goal::PartOf(0.6, Subject::Memory)),
            measure: names::unlink,
            ..RATE
        },
        Row {
            name: "list",
            title: "list a large directory with attributes, entries",
            goal: Some(Goal::PartOf(0.6, Subject::Memory)),
            bytes: |scale| NAMES_BYTES + scale.listed * 512,
            prepare: list::prepare,
            measure: list::measure,
            ..RATE
        },
        Row {
            name: "untar",
            title: "unpack a source tree, files",
            goal: Some(Goal::PartOf(0.5, Subject::Memory)),
            bytes: |scale| NAMES_BYTES + scale.unpacked * 16384,
            measure: untar::measure,
            ..RATE
        },
        Row {
            name: "sqlite",
            title: "SQLite, synchronous=FULL, transactions",
            goal: Some(Goal::PartOf(0.35, Subject::Plain)),
            missing: sqlite::missing,
            measure: sqlite::measure,
            ..RATE
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::{Better, Goal, Subject, rows};
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_goals_can_be_looked_up() {
        let names: BTreeSet<&str> = rows().iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows().len());
        for row in rows() {
            assert!(row.subjects.contains(&Subject::Mount), "{}", row.name);
            let (needs, better): (&[Subject], Better) = match row.goal {
                None => continue,
                Some(Goal::PartOf(_, of)) => (&[of], Better::More),
                Some(Goal::Times(_, of)) => (&[of], Better::Less),
                Some(Goal::Flushes(_, of)) => (&[of, Subject::Raw], Better::Less),
            };
            assert!(needs.iter().all(|need| row.subjects.contains(need)), "{}", row.name);
            assert_eq!(row.better, better, "{}", row.name);
        }
    }
}
