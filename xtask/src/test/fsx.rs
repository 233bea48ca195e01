//! fsx: random reads, writes, maps, truncates, holes and copies of one file, checked against a copy in memory.

use std::process::Command;

use anyhow::Context;

use super::{Run, Tally, setup};
use crate::served::Up;
use crate::shell;

/// How many seeds are run.
const SEEDS: u64 = 5;

/// Every operation that it knows.
const CONFIG: &str = "flen = 2097152

[weights]
close_open = 2
invalidate = 2
read = 10
write = 10
mapread = 10
mapwrite = 10
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 5
sendfile = 5
posix_fadvise = 2
copy_file_range = 5
";

/// Runs each seed in a file of its own.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let scratch = run.scratch("fsx")?;
    let config = scratch.join("fsx.toml");
    std::fs::write(&config, CONFIG).context("write its configuration")?;
    let up = Up::in_folder(&scratch, "2GiB");
    let served = up.start()?;
    let operations = run.count(5_000, 20_000);
    let mut tally = Tally::default();
    for seed in run.seed..run.seed + SEEDS {
        let mut command = Command::new(setup::program("fsx"));
        command.arg("-f").arg(&config).arg("-P").arg(&scratch);
        command.args(["-N", &operations.to_string(), "-S", &seed.to_string()]);
        let output = shell::output(command.arg(served.mount().join(format!("seed-{seed}"))))?;
        if output.status.success() {
            tally.passed += 1;
            println!("fsx: seed {seed}: {operations} operations right");
        } else {
            tally.failed += 1;
            let text = shell::printed(&output);
            let from = text.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
            println!("fsx: seed {seed} failed:\n{}", &text[from..]);
        }
    }
    served.stop()?;
    up.fsck()?;
    Ok(tally)
}
