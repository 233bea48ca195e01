//! `sim [--points N] [--seed S] [--component NAME] [--bugs]`: crashes every component, then prints what was seen.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use planted::Bug;
use sim::{COMPONENTS, Component, Report};

/// What the command line asks for.
struct Options {
    points: u64,
    seed: u64,
    component: Option<String>,
    bugs: bool,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> anyhow::Result<Options> {
        let mut options = Options { points: 100_000, seed: 1, component: None, bugs: false };
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--points" => options.points = value()?.parse().context("read --points")?,
                "--seed" => options.seed = value()?.parse().context("read --seed")?,
                "--component" => options.component = Some(value()?),
                "--bugs" => options.bugs = true,
                _ => {
                    bail!("unknown argument {arg}; there are --points N, --seed S, --component NAME, --bugs")
                }
            }
        }
        Ok(options)
    }

    fn components(&self) -> anyhow::Result<Vec<Component>> {
        let chosen: Vec<Component> = COMPONENTS
            .iter()
            .copied()
            .filter(|component| self.component.as_deref().is_none_or(|name| name == component.name))
            .collect();
        ensure!(!chosen.is_empty(), "no such component");
        Ok(chosen)
    }
}

fn main() -> ExitCode {
    let done = Options::parse(std::env::args().skip(1)).and_then(|options| {
        let components = options.components()?;
        if options.bugs { find_bugs(&options, &components) } else { crash(&options, &components) }
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs each component as it is; true if no promise was broken and each reached its share of the points.
fn crash(options: &Options, components: &[Component]) -> anyhow::Result<bool> {
    planted::plant(None);
    let share = options.points.div_ceil(components.len() as u64);
    let (mut points, mut violations, mut starved) = (0, 0, 0);
    for component in components {
        println!("{}: seed {}, {share} points wanted", component.name, options.seed);
        let started = Instant::now();
        let report = (component.run)(options.seed, share);
        print_report(component, &report, started.elapsed());
        points += report.points();
        violations += report.violations_seen();
        starved += u64::from(report.points() < share);
    }
    println!("sim: {points} distinct (operation, prefix) pairs, {violations} violations");
    if starved > 0 {
        println!("sim: {starved} components stopped before they had seen their share");
    }
    Ok(violations == 0 && starved == 0)
}

fn print_report(component: &Component, report: &Report, took: Duration) {
    for (operation, prefixes) in report.pairs() {
        println!("  {operation:<24} {prefixes:>9} pairs");
    }
    println!(
        "  {}: {} pairs, {} crashes, {} violations, {:.1} s",
        component.name,
        report.points(),
        report.crashes(),
        report.violations_seen(),
        took.as_secs_f64()
    );
    for violation in report.violations() {
        println!(
            "  VIOLATED seed {} {} after step {}: {}",
            violation.seed, violation.operation, violation.prefix, violation.text
        );
        println!(
            "    again: cargo xtask sim --component {} --seed {} --points {}",
            component.name,
            violation.seed,
            report.points().max(1)
        );
    }
}

/// Plants each bug in turn; true if every one was caught by some component.
fn find_bugs(options: &Options, components: &[Component]) -> anyhow::Result<bool> {
    let mut missed = 0;
    for bug in Bug::ALL {
        planted::plant(Some(bug));
        let caught = components.iter().find_map(|component| {
            let report = (component.run)(options.seed, options.points);
            let first = report.violations().first()?.clone();
            Some((component.name, report.points(), first))
        });
        planted::plant(None);
        match caught {
            Some((name, points, violation)) => println!(
                "{bug:?}: caught by {name} within {points} pairs: {} after step {}: {}",
                violation.operation, violation.prefix, violation.text
            ),
            None => {
                missed += 1;
                println!("{bug:?}: NOT CAUGHT within {} pairs", options.points);
            }
        }
    }
    println!("sim: {} of {} planted bugs caught", Bug::ALL.len() - missed, Bug::ALL.len());
    Ok(missed == 0)
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn arguments_are_read_and_others_refused() {
        let args = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter();
        let options = Options::parse(args("--points 7 --seed 9 --bugs")).expect("good arguments");
        assert_eq!((options.points, options.seed, options.bugs), (7, 9, true));
        for bad in ["--points", "--points x", "--speed"] {
            assert!(Options::parse(args(bad)).is_err(), "{bad}");
        }
    }
}
