//! `ls -l` of a large directory.

use std::fs::{self, File};
use std::io;

use super::{rate, timed};
use crate::row::{At, Done};

pub(crate) fn prepare(at: &At<'_>) -> Done<()> {
    for number in 0..at.scale.listed {
        at.go_on()?;
        File::create_new(at.dir.join(format!("entry-{number:07}")))?;
    }
    Ok(())
}

/// Entries per second: readdir(3), and lstat(2) of each.
pub(crate) fn measure(at: &At<'_>) -> Done<f64> {
    let mut count = 0;
    let took = timed(|| {
        for entry in fs::read_dir(at.dir)? {
            at.go_on()?;
            entry?.metadata()?;
            count += 1;
        }
        Ok(())
    })?;
    if count != at.scale.listed {
        return Err(io::Error::other(format!("{count} entries were listed of {}", at.scale.listed)).into());
    }
    Ok(rate(count, took))
}
