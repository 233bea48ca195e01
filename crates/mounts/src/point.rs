//! The mount point: found, judged, and cleared of what an earlier process left there.
//!
//! A FUSE mount whose server hangs blocks whoever looks at it, so the mount table is read first and a path is only
//! touched if no mount is on it, or from a thread that may be left behind.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::place::{FSTYPE, MountError, Way, system};
use crate::table::{Row, rows};
use crate::{fusermount, privileged};

/// How long a mount of ours may take to answer before it counts as alive but stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// More mounts than this on one place are not cleared away.
const STACKED_MAX: usize = 16;

/// More links than this are a loop, as in path_resolution(7).
const LINKS_MAX: usize = 40;

/// The path as the mount table will show it. Neither it nor anything below it is looked at if it is mounted on.
pub(crate) fn resolve(dir: &Path) -> Result<PathBuf, MountError> {
    let mut dir = dir.to_path_buf();
    for _ in 0..LINKS_MAX {
        let path = absolute(&dir)?;
        if top(&path)?.is_some() {
            return Ok(path);
        }
        let found = std::fs::symlink_metadata(&path).map_err(|error| missing(&dir, error))?;
        if found.is_dir() {
            return Ok(path);
        }
        if !found.is_symlink() {
            return Err(MountError::NotADirectory(dir));
        }
        let target = std::fs::read_link(&path).map_err(|error| missing(&dir, error))?;
        dir = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    Err(MountError::System {
        dir,
        call: "resolving the path",
        source: io::Error::from_raw_os_error(libc::ELOOP),
    })
}

/// The parent without links, and the last name as it is.
fn absolute(dir: &Path) -> Result<PathBuf, MountError> {
    let whole = std::path::absolute(dir).map_err(system(dir, "resolving the path"))?;
    match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = parent.canonicalize().map_err(|error| missing(dir, error))?;
            Ok(parent.join(name))
        }
        // `/`, or a path that ends in `..`
        _ => whole.canonicalize().map_err(|error| missing(dir, error)),
    }
}

fn missing(dir: &Path, error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::NotFound => MountError::NoMountPoint(dir.to_path_buf()),
        io::ErrorKind::NotADirectory => MountError::NotADirectory(dir.to_path_buf()),
        _ => system(dir, "resolving the path")(error),
    }
}

/// The uppermost mount on `dir`.
fn top(dir: &Path) -> Result<Option<Row>, MountError> {
    let rows = rows().map_err(system(dir, "reading /proc/self/mountinfo"))?;
    Ok(rows.into_iter().rfind(|row| row.dir == dir))
}

/// Detaches dead mounts of ours from `dir`, until nothing is mounted there or something that is not ours to remove.
pub(crate) fn clear(dir: &Path, way: Way) -> Result<(), MountError> {
    for _ in 0..STACKED_MAX {
        let Some(row) = top(dir)? else { return Ok(()) };
        if row.fstype != FSTYPE || !is_dead(dir) {
            return Err(MountError::Busy { dir: dir.to_path_buf(), what: row.describe() });
        }
        let detached = match way {
            Way::Privileged => privileged::unmount(dir, true),
            Way::Fusermount => fusermount::unmount(dir, true),
        };
        detached.map_err(system(dir, "detaching a dead mount"))?;
        tracing::info!(dir = %dir.display(), source = row.source, "detached a mount whose process is gone");
    }
    let what = match top(dir)? {
        Some(row) => row.describe(),
        None => return Ok(()),
    };
    Err(MountError::Busy { dir: dir.to_path_buf(), what })
}

/// Whether the mount's server is gone. One that does not answer in time is taken as alive: its thread is left to
/// wait, in a system call that ends with the process.
fn is_dead(dir: &Path) -> bool {
    let (tell, told) = mpsc::sync_channel(1);
    let dir = dir.to_path_buf();
    let looker = std::thread::Builder::new().name("mount-check".to_string());
    let spawned = looker.spawn(move || {
        // A full or closed channel means that nobody waits for the answer any more.
        let _ = tell.send(rustix::fs::statfs(&dir).err());
    });
    match spawned {
        Ok(_) => told.recv_timeout(PATIENCE).ok().flatten() == Some(rustix::io::Errno::NOTCONN),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{MountError, resolve};
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_to_the_directory() {
        let dir = tempfile::tempdir().expect("a folder");
        let real = dir.path().canonicalize().expect("the folder").join("real");
        std::fs::create_dir(&real).expect("a directory");
        symlink("real", dir.path().join("b")).expect("a link");
        symlink(dir.path().join("b"), dir.path().join("a")).expect("a link");
        for name in ["real", "real/", "a", "b/.", "real/../real"] {
            assert_eq!(resolve(&dir.path().join(name)).expect(name), real, "{name}");
        }
    }

    #[test]
    fn what_is_no_directory_is_refused_in_words() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("file"), b"").expect("a file");
        symlink("loop", dir.path().join("loop")).expect("a link");
        assert!(matches!(resolve(&dir.path().join("none")), Err(MountError::NoMountPoint(_))));
        assert!(matches!(resolve(&dir.path().join("none/below")), Err(MountError::NoMountPoint(_))));
        assert!(matches!(resolve(&dir.path().join("file")), Err(MountError::NotADirectory(_))));
        assert!(matches!(resolve(&dir.path().join("file/below")), Err(MountError::NotADirectory(_))));
        assert!(matches!(resolve(&dir.path().join("loop")), Err(MountError::System { .. })));
    }
}
