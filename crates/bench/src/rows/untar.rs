//! Unpacking a source tree, by the calls of GNU tar, from memory.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::{Numbers, rate, timed};
use crate::row::{At, Done};

const FILES_PER_FOLDER: u64 = 20;

struct Entry {
    path: PathBuf,
    content: Vec<u8>,
    mode: u32,
    time: SystemTime,
}

/// Most files are small, as in a source tree, and some are not.
fn tree(files: u64) -> Vec<Entry> {
    let mut numbers = Numbers::new(6);
    let mut entries = Vec::new();
    for number in 0..files {
        let len = match number % 20 {
            0 => 30_000 + numbers.below(60_000),
            n if n < 8 => 4_000 + numbers.below(12_000),
            _ => numbers.below(4_000),
        };
        entries.push(Entry {
            path: PathBuf::from(format!("folder-{:04}/file-{number:06}.rs", number / FILES_PER_FOLDER)),
            content: numbers.bytes(len as usize),
            mode: if number % 10 == 0 { 0o755 } else { 0o644 },
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000 + number),
        });
    }
    entries
}

/// Files per second.
pub(crate) fn measure(at: &At<'_>) -> Done<f64> {
    let root = at.dir.join(format!("tree-{}", at.round));
    let entries = tree(at.scale.unpacked);
    let took = timed(|| {
        fs::create_dir(&root)?;
        for (number, entry) in (0..).zip(&entries) {
            at.go_on()?;
            let path = root.join(&entry.path);
            if number % FILES_PER_FOLDER == 0 {
                fs::create_dir(root.join(format!("folder-{:04}", number / FILES_PER_FOLDER)))?;
            }
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(&entry.content)?;
            file.set_times(FileTimes::new().set_accessed(entry.time).set_modified(entry.time))?;
            file.set_permissions(Permissions::from_mode(entry.mode))?;
        }
        Ok(())
    })?;
    fs::remove_dir_all(root)?;
    Ok(rate(at.scale.unpacked, took))
}
