//! pjdfstest: what POSIX says about each system call on names, modes, owners and times.

use std::process::Command;

use anyhow::{Context, bail};

use super::{Run, Tally, setup};
use crate::served::Up;
use crate::{shell, tree};

/// All but the tests that remount read-only (ext4 skips them too), and [`NOT_ON_FUSE`].
const PASSED: u64 = 384;
const SKIPPED: u64 = 14;

/// It asks pathconf(3) for the greatest number of links, and glibc knows that of no FUSE filesystem.
/// docs/decisions/2026-11-21-pjdfstest-on-fuse.md
const NOT_ON_FUSE: &str = "link::link_count_max";

const CONFIG: &str = r#"[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
rename_ctime = {}
stat_st_birthtime = {}

[settings]
naptime = 0.01
allow_remount = false

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// Runs the whole suite on a fresh mount.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let scratch = run.scratch("pjdfstest")?;
    let config = scratch.join("pjdfstest.toml");
    std::fs::write(&config, CONFIG).context("write its configuration")?;
    // Links between filesystems need a second one.
    let elsewhere = tree::target().join("scratch/elsewhere");
    std::fs::create_dir_all(&elsewhere).context("make the other folder")?;
    let up = Up::in_folder(&scratch, "1GiB");
    let served = up.start()?;
    let mut command = Command::new(setup::program("pjdfstest"));
    command.arg("-c").arg(&config).arg("-p").arg(served.mount()).arg("-s").arg(&elsewhere);
    let output = shell::output(&mut command)?;
    let text = shell::printed(&output);
    served.stop()?;
    up.fsck()?;
    let (mut tally, skipped, other_skips) = read(&text)?;
    for line in text.lines().filter(|line| line.contains("FAILED")) {
        println!("pjdfstest: {line}");
    }
    println!("pjdfstest: {} passed, {} failed, {skipped} skipped", tally.passed, tally.failed);
    if tally.failed == 0 && (tally.passed != PASSED || skipped != SKIPPED || !other_skips.is_empty()) {
        println!(
            "pjdfstest: wanted {PASSED} passed and {SKIPPED} skipped; skipped beyond these {other_skips:?}"
        );
        tally.failed += 1;
    }
    Ok(tally)
}

/// Counts from the summary, and the names of tests that should not have been skipped.
fn read(text: &str) -> anyhow::Result<(Tally, u64, Vec<String>)> {
    let Some(summary) = text.lines().rev().find_map(|line| line.trim().strip_prefix("Summary: ")) else {
        bail!("pjdfstest printed no summary:\n{text}");
    };
    let count = |word: &str| -> anyhow::Result<u64> {
        summary
            .split(", ")
            .find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
            .with_context(|| format!("no number of {word} in {summary:?}"))
    };
    let skips = text
        .lines()
        .filter_map(|line| line.trim_end().strip_suffix("skipped"))
        .map(str::trim)
        .filter(|name| !name.contains("::erofs_") && *name != NOT_ON_FUSE)
        .map(str::to_owned)
        .collect();
    Ok((Tally { passed: count("passed")?, failed: count("failed")? }, count("skipped")?, skips))
}

#[cfg(test)]
mod tests {
    use super::{Tally, read};

    #[test]
    fn the_summary_is_read() {
        let text = "a::erofs_named   skipped\nlink::link_count_max  skipped\nb::exdev   skipped\n\nSummary: 1 failed, 2 skipped, 383 passed, 0 expected failures, 386 total\n";
        let (tally, skipped, others) = read(text).expect("a summary");
        assert_eq!((tally, skipped), (Tally { passed: 383, failed: 1 }, 2));
        assert_eq!(others, ["b::exdev"]);
        assert!(read("died").is_err());
    }
}
