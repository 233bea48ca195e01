//! How often each kind of operation came, how it ended, and how long it took.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use types::Errno;
use vfs::Op;

/// The upper bounds of the latency buckets in microseconds; one more bucket holds what took longer.
pub const LATENCY_BOUNDS_US: [u64; 16] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000, 1_000_000,
    10_000_000,
];

/// Number of latency buckets.
pub const BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// Errors above this count as `EIO`; Linux' own end at 133.
const ERRNOS: usize = 134;

macro_rules! kinds {
    ($($kind:ident = $name:literal),* $(,)?) => {
        /// A kind of operation, as figures tell them apart.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[allow(missing_docs)] // named as the variants of `vfs::Op`
        pub enum OpKind { $($kind),* }

        impl OpKind {
            /// All kinds.
            pub const ALL: &'static [OpKind] = &[$(OpKind::$kind),*];

            /// The name that metrics carry.
            pub fn name(self) -> &'static str {
                match self { $(OpKind::$kind => $name),* }
            }
        }

        impl From<&Op> for OpKind {
            fn from(op: &Op) -> OpKind {
                match op { $(Op::$kind { .. } => OpKind::$kind),* }
            }
        }
    };
}

kinds! {
    Lookup = "lookup", Forget = "forget", GetAttr = "getattr", SetAttr = "setattr", ReadLink = "readlink",
    Create = "create", Unlink = "unlink", Rmdir = "rmdir", Rename = "rename", Link = "link", Open = "open",
    Read = "read", Write = "write", Flush = "flush", Release = "release", Fsync = "fsync", OpenDir = "opendir",
    ReadDir = "readdir", ReleaseDir = "releasedir", FsyncDir = "fsyncdir", StatFs = "statfs", SetXattr = "setxattr",
    GetXattr = "getxattr", ListXattr = "listxattr", RemoveXattr = "removexattr", Fallocate = "fallocate",
    Seek = "seek", CopyRange = "copyrange",
}

/// How often an operation failed, by error.
pub type Failures = BTreeMap<i32, u64>;

/// What is known of one kind of operation since the mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpFigures {
    /// Which kind.
    pub kind: OpKind,
    /// How many succeeded.
    pub succeeded: u64,
    /// How many failed, by errno. `ENOENT` of a lookup and `ENODATA` of getxattr are ordinary.
    pub failed: Failures,
    /// How many took how long, from the request's arrival to its reply: bucket `i` counts those up to
    /// [`LATENCY_BOUNDS_US`]`[i]`, the last one the rest.
    pub latency: [u64; BUCKETS],
    /// All of them together, in microseconds.
    pub total_us: u64,
    /// Bytes read or written, of `Read` and `Write`.
    pub bytes: u64,
}

struct Counters {
    succeeded: AtomicU64,
    failed: [AtomicU64; ERRNOS],
    latency: [AtomicU64; BUCKETS],
    total_us: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    fn new() -> Counters {
        Counters {
            succeeded: AtomicU64::new(0),
            failed: [const { AtomicU64::new(0) }; ERRNOS],
            latency: [const { AtomicU64::new(0) }; BUCKETS],
            total_us: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }
}

/// The figures of one mount. Counting takes no lock.
pub struct Figures {
    by_kind: Vec<Counters>,
    running: AtomicU64,
}

impl Figures {
    pub(crate) fn new() -> Figures {
        Figures { by_kind: OpKind::ALL.iter().map(|_| Counters::new()).collect(), running: AtomicU64::new(0) }
    }

    pub(crate) fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self, kind: OpKind, result: Result<u64, Errno>, took: Duration) {
        let counters = &self.by_kind[kind as usize];
        match result {
            Ok(bytes) => {
                counters.succeeded.fetch_add(1, Ordering::Relaxed);
                counters.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => {
                let at =
                    usize::try_from(error.0).ok().filter(|at| *at < ERRNOS).unwrap_or(Errno::EIO.0 as usize);
                counters.failed[at].fetch_add(1, Ordering::Relaxed);
            }
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        counters.latency[bucket].fetch_add(1, Ordering::Relaxed);
        counters.total_us.fetch_add(us, Ordering::Relaxed);
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Operations that are being run.
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// What was counted so far, for each kind; the numbers of operations that end meanwhile may be in part.
    pub fn snapshot(&self) -> Vec<OpFigures> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OpKind::ALL
            .iter()
            .zip(&self.by_kind)
            .map(|(kind, counters)| OpFigures {
                kind: *kind,
                succeeded: load(&counters.succeeded),
                failed: (0..)
                    .zip(&counters.failed)
                    .map(|(e, n)| (e, load(n)))
                    .filter(|(_, n)| *n > 0)
                    .collect(),
                latency: std::array::from_fn(|bucket| load(&counters.latency[bucket])),
                total_us: load(&counters.total_us),
                bytes: load(&counters.bytes),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Figures, OpKind};
    use std::time::Duration;
    use types::Errno;

    #[test]
    fn an_operation_counts_in_its_kind_its_result_and_its_bucket() {
        let figures = Figures::new();
        figures.begin();
        figures.begin();
        figures.begin();
        figures.end(OpKind::Read, Ok(4096), Duration::from_micros(10));
        figures.end(OpKind::Read, Ok(1), Duration::from_secs(60));
        assert_eq!(figures.running(), 1);
        figures.end(OpKind::Lookup, Err(Errno::ENOENT), Duration::from_micros(11));
        let all = figures.snapshot();
        let read = &all[OpKind::Read as usize];
        assert_eq!(
            (read.kind, read.succeeded, read.bytes, read.total_us),
            (OpKind::Read, 2, 4097, 60_000_010)
        );
        assert_eq!((read.latency[0], read.latency[BUCKETS - 1]), (1, 1));
        let lookup = &all[OpKind::Lookup as usize];
        assert_eq!((lookup.succeeded, lookup.latency[1]), (0, 1));
        assert_eq!(lookup.failed.get(&Errno::ENOENT.0), Some(&1));
    }

    #[test]
    fn an_errno_out_of_range_counts_as_eio() {
        let figures = Figures::new();
        figures.begin();
        figures.end(OpKind::Write, Err(Errno(100_000)), Duration::ZERO);
        assert_eq!(figures.snapshot()[OpKind::Write as usize].failed.get(&Errno::EIO.0), Some(&1));
    }
}
