//! What it was measured on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::BenchError;
use crate::space::meminfo;

/// A machine, as far as figures depend on it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processors.
    pub processor: String,
    /// How many of them this process may use.
    pub processors: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Type of the filesystem that everything lies on.
    pub filesystem: String,
}

impl Machine {
    /// This one, with the filesystem that `dir` is on.
    pub(crate) fn here(dir: &Path) -> Result<Machine, BenchError> {
        let read =
            |path: &str| std::fs::read_to_string(path).map_err(BenchError::system(format!("read {path}")));
        let mounts = read("/proc/self/mounts")?;
        Ok(Machine {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_string(),
            processor: model(&read("/proc/cpuinfo")?).unwrap_or("unknown").to_string(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: meminfo(&read("/proc/meminfo")?, "MemTotal").unwrap_or(0),
            filesystem: filesystem(&mounts, dir).unwrap_or("unknown").to_string(),
        })
    }
}

fn model(cpuinfo: &str) -> Option<&str> {
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()))
}

/// The type of the innermost mount that holds `dir`; of those on one place the last.
fn filesystem<'a>(mounts: &'a str, dir: &Path) -> Option<&'a str> {
    let rows = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let around = rows.filter(|(point, _)| dir.starts_with(point.replace("\\040", " ")));
    around.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind)
}

/// Whether something is mounted exactly on `dir`.
pub(crate) fn is_mount_point(dir: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .any(|point| Path::new(&point.replace("\\040", " ")) == dir)
}

#[cfg(test)]
mod tests {
    use super::{filesystem, model};
    use std::path::Path;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n/dev/b /run/my\\040disk xfs rw 0 0\n";
        for (dir, expect) in
            [("/srv", "ext4"), ("/run/x", "tmpfs"), ("/run/my disk/y", "xfs"), ("/runner", "ext4")]
        {
            assert_eq!(filesystem(mounts, Path::new(dir)), Some(expect), "{dir}");
        }
        assert_eq!(model("processor: 0\nmodel name\t: Fast 9000\n"), Some("Fast 9000"));
    }
}
