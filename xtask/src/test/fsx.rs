//! fsx: random reads, writes, maps, truncates, holes and copies of one file, checked against a copy in memory.

use std::process::{Command, Output};

use anyhow::Context;

use super::{Run, Tally, setup};
use crate::served::Up;
use crate::shell;

/// How many work at once, on files of their own in one mount.
const TOGETHER: u64 = 4;

/// So much of what a failed one printed is shown.
const SHOWN: usize = 3000;

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

/// Runs each seed in a file of its own: one after another, then several at once.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let scratch = run.scratch("fsx")?;
    let config = scratch.join("fsx.toml");
    std::fs::write(&config, CONFIG).context("write its configuration")?;
    let up = Up::in_folder(&scratch, "2GiB");
    let served = up.start()?;
    let mount = served.mount().to_owned();
    let (seeds, operations) = run.count((4, 5_000), (10, 20_000));
    let mut tally = Tally::default();
    let command = |seed: u64| {
        let mut command = Command::new(setup::program("fsx"));
        command.arg("-f").arg(&config).arg("-P").arg(&scratch);
        command.args(["-N", &operations.to_string(), "-S", &seed.to_string()]);
        command.arg(mount.join(format!("seed-{seed}")));
        command
    };
    for seed in run.seed..run.seed + seeds {
        let output = shell::output(&mut command(seed))?;
        tally.add(verdict(&format!("seed {seed}: {operations} operations"), &output));
    }
    let together = run.seed + seeds..run.seed + seeds + TOGETHER;
    let outputs = std::thread::scope(|scope| {
        let command = &command;
        let running: Vec<_> =
            together.clone().map(|seed| scope.spawn(move || shell::output(&mut command(seed)))).collect();
        running.into_iter().map(|one| one.join().expect("it runs another program")).collect::<Vec<_>>()
    });
    for (seed, output) in together.zip(outputs) {
        tally.add(verdict(&format!("seed {seed}, {TOGETHER} at once: {operations} operations"), &output?));
    }
    served.stop()?;
    up.fsck()?;
    Ok(tally)
}

fn verdict(what: &str, output: &Output) -> Tally {
    if output.status.success() {
        println!("fsx: {what} right");
        return Tally::ONE;
    }
    let text = shell::printed(output);
    let from = text.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
    println!("fsx: {what} WRONG:\n{}", &text[from..]);
    Tally { passed: 0, failed: 1 }
}
