//! `holdfast bench` measures every row and leaves nothing behind. Its figures are not judged here: machines differ.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::{Run, Tally};
use crate::{bench, served, tree};

/// What has to be there.
const ROWS: &[&str] = &[
    "sequential-read",
    "random-read",
    "overwrite",
    "append",
    "big-file",
    "small-files",
    "stat",
    "create",
    "rename",
    "unlink",
    "list",
    "untar",
    "sqlite",
];

/// What the mount is compared with in each.
const OTHERS: [&str; 3] = ["plain", "memory", "file"];

/// An interrupted run that takes longer to clean up has failed.
const STOP_MAX: Duration = Duration::from_secs(120);

/// Runs all rows, then interrupts a run.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let scratch = run.scratch("bench")?;
    let figures = bench::figures(bench::command(&scratch).arg("--quick"))?;
    let findings = implausible(&figures);
    findings.iter().for_each(|finding| println!("bench: {finding}"));
    let mut tally =
        Tally { passed: (ROWS.len() - findings.len().min(ROWS.len())) as u64, failed: findings.len() as u64 };
    for (name, check) in [("a run", left_nothing(&scratch)), ("an interrupted run", interrupted(&scratch))] {
        match check {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                tally.failed += 1;
                println!("bench: {name} {error:#}");
            }
        }
    }
    Ok(tally)
}

/// What is missing or cannot be so.
fn implausible(figures: &Value) -> Vec<String> {
    let rounds = figures["rounds"].as_u64().unwrap_or(0);
    let mut findings = Vec::new();
    if rounds != 5 {
        findings.push(format!("there were {rounds} rounds instead of 5"));
    }
    for name in ROWS {
        let found = figures["rows"].as_array().and_then(|rows| rows.iter().find(|row| row["name"] == *name));
        let Some(row) = found else {
            findings.push(format!("the row {name} is missing"));
            continue;
        };
        let all = OTHERS.iter().chain(&["mount"]);
        let blank =
            all.filter(|who| !positive(&row["median"][**who]) || !every(&row["rounds"][**who], rounds));
        let uncompared = OTHERS.iter().filter(|who| !positive(&row["ratio"][**who]));
        let bad: Vec<&str> = blank.chain(uncompared).copied().collect();
        if !bad.is_empty() {
            findings.push(format!("the row {name} has no figures of {}", bad.join(", ")));
        } else if *name != "small-files" && row["holds"].as_bool().is_none() {
            findings.push(format!("the row {name} has no verdict"));
        }
    }
    findings
}

fn positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|value| value.is_finite() && value > 0.0)
}

fn every(values: &Value, count: u64) -> bool {
    values.as_array().is_some_and(|values| values.len() as u64 == count && values.iter().all(positive))
}

fn left_nothing(scratch: &Path) -> anyhow::Result<()> {
    let left: Vec<_> =
        std::fs::read_dir(scratch).context("list the folder")?.flatten().map(|e| e.path()).collect();
    ensure!(left.is_empty(), "left {left:?} behind");
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let ours = mounts.lines().find(|line| line.contains(&scratch.display().to_string()));
    ensure!(ours.is_none(), "left a mount behind: {ours:?}");
    Ok(())
}

/// Interrupts a full run once its volume is mounted: it has to fail, and to leave nothing.
fn interrupted(scratch: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(tree::holdfast());
    command.args(["bench", "--dir"]).arg(scratch).args(["--only", "create"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start holdfast bench")?;
    let mount = scratch.join(format!("holdfast-bench-{}/mnt/create", child.id()));
    let began = Instant::now();
    while !mount.is_dir() {
        ensure!(child.try_wait().context("wait for it")?.is_none(), "ended before it worked in its mount");
        ensure!(began.elapsed() < STOP_MAX, "did not work in its mount within {STOP_MAX:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT).context("send SIGINT")?;
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for it")? {
            break status;
        }
        if began.elapsed() > 2 * STOP_MAX {
            let _ = child.kill();
            let _ = child.wait();
            served::detach(&mount);
            anyhow::bail!("did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    ensure!(status.code() == Some(1), "ended with {status} instead of 1");
    left_nothing(scratch)
}

#[cfg(test)]
mod tests {
    use super::{ROWS, implausible};
    use serde_json::{Value, json};

    fn good() -> Value {
        let row = |name: &str| {
            let values = json!({"mount": 1.0, "plain": 2.0, "memory": 3.0, "file": 4.0});
            let rounds = json!({"mount": [1.0, 1.0, 1.0, 1.0, 1.0], "plain": [2, 2, 2, 2, 2], "memory": [3, 3, 3, 3, 3],
                                "file": [4, 4, 4, 4, 4]});
            json!({"name": name, "median": values, "ratio": values, "rounds": rounds, "holds": false})
        };
        json!({"rounds": 5, "rows": ROWS.iter().map(|name| row(name)).collect::<Vec<_>>()})
    }

    #[test]
    fn whole_figures_pass_and_every_gap_is_found() {
        assert_eq!(implausible(&good()), Vec::<String>::new());
        let broken = |change: fn(&mut Value)| {
            let mut figures = good();
            change(&mut figures);
            implausible(&figures).len()
        };
        assert_eq!(broken(|figures| figures["rounds"] = json!(4)), 1 + ROWS.len());
        assert_eq!(broken(|figures| figures["rows"][3] = json!({})), 1);
        assert_eq!(broken(|figures| figures["rows"][3]["median"]["mount"] = json!(0.0)), 1);
        assert_eq!(broken(|figures| figures["rows"][3]["ratio"]["memory"] = json!(null)), 1);
        assert_eq!(broken(|figures| figures["rows"][3]["rounds"]["file"] = json!([1, 2, 3, 4])), 1);
        assert_eq!(broken(|figures| figures["rows"][3]["holds"] = json!(null)), 1);
        assert_eq!(implausible(&json!({})).len(), 1 + ROWS.len());
    }
}
