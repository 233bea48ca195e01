//! How much is written, and whether there is room for it.

use std::path::Path;

use types::ByteSize;

use crate::error::BenchError;
use crate::row::{Row, Scale};
use crate::subject::Subject;

/// A disk of a volume is at least this large, and has this much beside what the rows need.
const DISK_BESIDE: u64 = 1 << 30;

/// What a volume's metadata, its logs and theirs take beside the disk.
const META: u64 = 512 << 20;

/// Rounds of files that are gone and whose space has not come back yet.
const DELETED_ROUNDS: u64 = 2;

/// The most bytes that any row has on one subject at a time.
fn largest(rows: &[&Row], scale: &Scale, subject: Subject) -> u64 {
    let on = rows.iter().filter(|row| row.subjects.contains(&subject));
    on.map(|row| (row.bytes)(scale)).max().unwrap_or(0)
}

/// The size of the disk that a volume of the benchmark's own gets.
pub(crate) fn disk_bytes(rows: &[&Row], scale: &Scale) -> ByteSize {
    let all: u64 = rows.iter().map(|row| (row.bytes)(scale)).sum();
    ByteSize(all + DELETED_ROUNDS * largest(rows, scale, Subject::Mount) + DISK_BESIDE)
}

/// What is written on the disk at most: below `--dir`.
pub(crate) fn needed(rows: &[&Row], scale: &Scale, own_volume: bool) -> ByteSize {
    let trees = [Subject::Plain, Subject::File, Subject::Raw];
    let beside: u64 = trees.iter().map(|subject| largest(rows, scale, *subject)).sum();
    ByteSize(beside + if own_volume { disk_bytes(rows, scale).0 + META } else { 0 })
}

/// What the memory floor takes at most, and the kernel's pages of it.
pub(crate) fn memory_needed(rows: &[&Row], scale: &Scale) -> ByteSize {
    ByteSize(2 * largest(rows, scale, Subject::Memory))
}

/// What a user may still write where `dir` is.
pub(crate) fn free(dir: &Path) -> Result<ByteSize, BenchError> {
    let found = rustix::fs::statvfs(dir);
    let found = found.map_err(|error| {
        BenchError::system(format!("ask how much is free at {}", dir.display()))(error.into())
    })?;
    Ok(ByteSize(found.f_bavail.saturating_mul(found.f_frsize)))
}

/// What the kernel says that programs can still have.
pub(crate) fn memory_free() -> Result<ByteSize, BenchError> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(BenchError::system("read /proc/meminfo"))?;
    Ok(ByteSize(meminfo(&text, "MemAvailable").unwrap_or(u64::MAX)))
}

/// A line of /proc/meminfo, in bytes.
pub(crate) fn meminfo(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::{disk_bytes, meminfo, needed};
    use crate::row::{Row, Scale, rows};

    #[test]
    fn lines_of_meminfo_are_read_and_others_refused() {
        let text = "MemTotal:       24683520 kB\nMemAvailable:   100 kB\nHugePages:    7\n";
        assert_eq!(meminfo(text, "MemAvailable"), Some(102_400));
        assert_eq!(meminfo(text, "Mem"), None);
        assert_eq!(meminfo(text, "HugePages"), None);
    }

    #[test]
    fn a_disk_holds_every_row_and_fewer_rows_need_less() {
        let all: Vec<&Row> = rows().iter().collect();
        let one: Vec<&Row> = rows().iter().filter(|row| row.name == "create").collect();
        assert!(disk_bytes(&all, &Scale::FULL).0 > 3 * Scale::FULL.big_bytes);
        assert!(needed(&one, &Scale::FULL, true) < needed(&all, &Scale::FULL, true));
        assert!(needed(&all, &Scale::QUICK, true) < needed(&all, &Scale::FULL, true));
        assert!(needed(&all, &Scale::FULL, false) < needed(&all, &Scale::FULL, true));
    }
}
