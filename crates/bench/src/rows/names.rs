//! Names of empty files: looked at, made, moved, removed.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{rate, timed};
use crate::row::{At, Done};

/// How often each file is looked at in a round.
const LOOKS: u64 = 100;

fn files(dir: &Path, prefix: &str, count: u64) -> Vec<PathBuf> {
    (0..count).map(|number| dir.join(format!("{prefix}-{number:06}"))).collect()
}

fn make(at: &At<'_>, paths: &[PathBuf]) -> Done<()> {
    for path in paths {
        at.go_on()?;
        File::create_new(path)?;
    }
    Ok(())
}

fn remove(at: &At<'_>, paths: &[PathBuf]) -> Done<()> {
    for path in paths {
        at.go_on()?;
        fs::remove_file(path)?;
    }
    Ok(())
}

pub(crate) fn prepare_stat(at: &At<'_>) -> Done<()> {
    make(at, &files(at.dir, "file", at.scale.names))
}

/// lstat(2) per second of files that were looked at just before.
pub(crate) fn stat(at: &At<'_>) -> Done<f64> {
    let paths: Vec<CString> = files(at.dir, "file", at.scale.names)
        .iter()
        .map(|path| CString::new(path.as_os_str().as_bytes()).map_err(std::io::Error::from))
        .collect::<Result<_, _>>()?;
    let look = || {
        for path in &paths {
            rustix::fs::lstat(path.as_c_str())?;
        }
        at.go_on()
    };
    look()?;
    let took = timed(|| (0..LOOKS).try_for_each(|_| look()))?;
    Ok(rate(at.scale.names * LOOKS, took))
}

/// open(2) with O_CREAT and O_EXCL and close(2), per second.
pub(crate) fn create(at: &At<'_>) -> Done<f64> {
    let paths = files(at.dir, "file", at.scale.names);
    let took = timed(|| make(at, &paths))?;
    remove(at, &paths)?;
    Ok(rate(at.scale.names, took))
}

/// rename(2) per second.
pub(crate) fn rename(at: &At<'_>) -> Done<f64> {
    let from = files(at.dir, "file", at.scale.names);
    let to = files(at.dir, "moved", at.scale.names);
    make(at, &from)?;
    let took = timed(|| {
        for (from, to) in from.iter().zip(&to) {
            at.go_on()?;
            fs::rename(from, to)?;
        }
        Ok(())
    })?;
    remove(at, &to)?;
    Ok(rate(at.scale.names, took))
}

/// unlink(2) per second.
pub(crate) fn unlink(at: &At<'_>) -> Done<f64> {
    let paths = files(at.dir, "file", at.scale.names);
    make(at, &paths)?;
    let took = timed(|| remove(at, &paths))?;
    Ok(rate(at.scale.names, took))
}
