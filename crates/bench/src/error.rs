//! Why there are no figures.

use std::io;
use std::path::PathBuf;

use types::ByteSize;

/// Why a benchmark did not come to its end. Whatever it had made is removed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A row was asked for that does not exist.
    #[error("there is no row '{name}'; there are {}", .rows.join(", "))]
    UnknownRow {
        /// What was asked for.
        name: String,
        /// What there is.
        rows: Vec<&'static str>,
    },
    /// The directory cannot be used.
    #[error("{} is not a directory; give {option} one that exists", .dir.display())]
    NotADirectory {
        /// Which.
        dir: PathBuf,
        /// The option that names it.
        option: &'static str,
    },
    /// Nothing is mounted where a mount was expected.
    #[error("nothing is mounted on {}; give --mount the mount point of a running `holdfast up`, or leave it out", .0.display())]
    NotMounted(PathBuf),
    /// There is too little room.
    #[error(
        "the benchmark needs up to {needed} in {}, whose filesystem has {free} free; free some, choose another --dir, or \
         measure less with --quick or --only", .dir.display()
    )]
    NoRoom {
        /// Where.
        dir: PathBuf,
        /// How much is written at most.
        needed: ByteSize,
        /// How much there is.
        free: ByteSize,
    },
    /// There is too little memory for the filesystem that keeps everything there.
    #[error(
        "the memory floor needs up to {needed} of memory and {free} are available; measure less with --quick or --only"
    )]
    NoMemory {
        /// How much it takes at most.
        needed: ByteSize,
        /// How much there is.
        free: ByteSize,
    },
    /// What is measured could not be started.
    #[error("{who} did not start: {why}")]
    NotStarted {
        /// Which subject.
        who: &'static str,
        /// What it said.
        why: String,
    },
    /// A row's work failed.
    #[error("{row} on {who} failed")]
    Row {
        /// Which row.
        row: &'static str,
        /// Which subject.
        who: &'static str,
        /// How.
        #[source]
        source: io::Error,
    },
    /// A system call around the work failed.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// It was asked to stop.
    #[error("interrupted; what it had made is removed")]
    Stopped,
}

impl BenchError {
    /// For `map_err`: what was tried.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> BenchError {
        move |source| BenchError::System { what: what.into(), source }
    }
}
