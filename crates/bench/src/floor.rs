//! Two trivial FUSE filesystems: what the kernel, fuser and the disk cost when the daemon does next to nothing.
//!
//! They are mounted as a volume is (same options, flags of FUSE_INIT, number of threads, largest request) and let the
//! kernel keep names, attributes and pages as long as a volume does. What they need not answer they do not: FLUSH,
//! ACCESS and extended attributes are `ENOSYS`, after which the kernel asks no more.

mod attr;
mod file;
mod memory;
mod paths;
mod tree;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fuse::{Config, MountError, Session};

/// As long as a volume's mount lets the kernel keep a name.
const NAME_TTL: Duration = Duration::from_secs(3600);

/// As long as it lets it keep the attributes of a file, and of a directory.
const ATTR_TTL: Duration = Duration::from_secs(60);
const DIRECTORY_TTL: Duration = Duration::from_secs(1);

/// Which one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Floor {
    /// Everything in memory; nothing outlives the process.
    Memory,
    /// Each call is passed on to the files below this directory, read and written by the daemon.
    File(PathBuf),
}

/// Why one is not served, or not taken away.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// It cannot be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// It is still mounted.
    #[error(transparent)]
    Unmount(#[from] fuse::UnmountError),
    /// Standard input or output failed.
    #[error("standard input or output failed")]
    Standard(#[source] io::Error),
}

/// Mounts it on `dir`, prints a line when it can be used, and serves until standard input ends, which it does when
/// whoever started this process ends, however that comes. Then it is unmounted, or detached if it is in use.
pub fn serve(floor: &Floor, dir: &Path) -> Result<(), FloorError> {
    // As the process of a volume's mount does.
    fuse::ask_for_short_slices();
    let session = match floor {
        Floor::Memory => Session::start_plain(memory::Memory::new(), &Config::new(dir, "memory-floor"))?,
        Floor::File(below) => {
            Session::start_plain(file::Files::new(below.clone()), &Config::new(dir, "file-floor"))?
        }
    };
    let said = writeln!(io::stdout(), "ready").and_then(|()| io::stdout().flush());
    let ended = said.and_then(|()| io::copy(&mut io::stdin().lock().take(u64::MAX), &mut io::sink()));
    let unmounted = session.unmount().or_else(|_| session.detach());
    ended.map_err(FloorError::Standard)?;
    Ok(unmounted?)
}
