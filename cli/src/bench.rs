//! `holdfast bench`: how fast a mount is, and how fast it could be.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ::bench::{Floor, LeftOut, Options, Plan, Report, RowReport, Subject};
use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use types::ByteSize;

use crate::args::{BenchArgs, BenchFloorArgs};
use crate::progress::Progress;
use crate::table::Table;

/// Measures and prints; the exit code is 0 whether the goals hold or not, for they depend on the machine.
pub fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("take over SIGINT and SIGTERM")?;
    }
    let program = std::env::current_exe().context("find this program")?;
    let options = Options { program, dir: args.dir, mount: args.mount, only: args.only, quick: args.quick };
    let plan = Plan::make(options)?;
    eprintln!("holdfast: {}", plan.announcement());
    let mut progress = Progress::new("bench");
    let report = plan.run(&stop, &mut |step| progress.at(step.done, step.all))?;
    drop(progress);
    if args.json {
        println!("{}", serde_json::to_string(&report).context("print the figures")?);
    } else {
        print!("{}", for_people(&report));
    }
    Ok(ExitCode::SUCCESS)
}

/// Serves a floor until standard input ends.
pub fn serve_floor(args: &BenchFloorArgs) -> anyhow::Result<ExitCode> {
    let floor = args.below.clone().map_or(Floor::Memory, Floor::File);
    ::bench::serve(&floor, &args.mount)?;
    Ok(ExitCode::SUCCESS)
}

fn for_people(report: &Report) -> String {
    let mut table = Table::new(&[
        "ROW", "UNIT", "MOUNT", "PLAIN", "MEMORY", "FILE", "RAW", "/ PLAIN", "/ MEMORY", "/ FILE", "HOLDS",
        "GOAL",
    ]);
    for row in &report.rows {
        let mut cells = vec![row.name.clone(), row.unit.clone()];
        cells.extend(Subject::ALL.map(|subject| value(row, subject)));
        cells.extend([Subject::Plain, Subject::Memory, Subject::File].map(|subject| ratio(row, subject)));
        cells.push(row.holds.map_or("", |holds| if holds { "yes" } else { "NO" }).to_string());
        cells.push(row.goal.clone().unwrap_or_default());
        table.row(cells);
    }
    let machine = &report.machine;
    let mut text = table.to_string();
    for LeftOut { row, why } in &report.left_out {
        text.push_str(&format!("left out: {row}: {why}\n"));
    }
    text.push_str(&format!(
        "medians of {} interleaved rounds; a ratio above 1 means that the mount is faster\n\
         holdfast {}, Linux {}, {} processors ({}), {} of memory, {}\n",
        report.rounds,
        report.version,
        machine.kernel,
        machine.processors,
        machine.processor,
        ByteSize(machine.memory_bytes),
        machine.filesystem
    ));
    if report.quick {
        text.push_str("--quick: the figures show only that everything works\n");
    }
    text
}

fn value(row: &RowReport, subject: Subject) -> String {
    row.median.get(subject.name()).map_or(String::new(), |value| format!("{value:.0}"))
}

fn ratio(row: &RowReport, subject: Subject) -> String {
    row.ratio.get(subject.name()).map_or(String::new(), |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::for_people;
    use ::bench::{Better, LeftOut, Machine, Report, RowReport};
    use std::collections::BTreeMap;

    #[test]
    fn the_table_tells_values_ratios_and_what_does_not_hold() {
        let values = BTreeMap::from([("mount".to_string(), 400.4), ("file".to_string(), 200.0)]);
        let row = RowReport {
            name: "overwrite".into(),
            title: "4 KiB overwrite".into(),
            unit: "µs".into(),
            better: Better::Less,
            rounds: values.iter().map(|(name, value)| (name.clone(), vec![*value])).collect(),
            median: values,
            ratio: BTreeMap::from([("file".to_string(), 0.4995)]),
            goal: Some("at most 350".into()),
            holds: Some(false),
        };
        let machine = Machine {
            kernel: "6.18".into(),
            processor: "p".into(),
            processors: 2,
            memory_bytes: 1 << 30,
            filesystem: "ext4".into(),
        };
        let left_out = vec![LeftOut { row: "sqlite".into(), why: "it is not installed".into() }];
        let report =
            Report { version: "1".into(), quick: true, rounds: 5, machine, rows: vec![row], left_out };
        let text = for_people(&report);
        let cells: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(cells, ["overwrite", "µs", "400", "200", "0.50", "NO", "at", "most", "350"]);
        assert!(text.contains("left out: sqlite: it is not installed") && text.contains("--quick"), "{text}");
    }
}
