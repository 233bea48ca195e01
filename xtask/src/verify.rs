//! `cargo xtask verify`: what the house promises about itself, checked by a program. It never writes to the tree.

mod code_map;
mod features;
mod invariants;
mod layers;
mod links;
mod markdown;
mod pure;
mod semantics;
mod words;

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::bail;

use crate::{shell, test, tests_list};

/// Arguments of `verify`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Args {
    /// Only this check, by its name.
    #[arg(long, value_name = "CHECK")]
    pub only: Option<String>,
}

/// What is wrong, one sentence each; empty is right.
pub type Findings = Vec<String>;

type Check = (&'static str, fn() -> anyhow::Result<Findings>);

/// Cheap ones first: they answer within a second.
const CHECKS: &[Check] = &[
    ("format", format),
    ("words", words::check),
    ("layers", layers::check),
    ("pure", pure::check),
    ("features", features::check),
    ("code-map", code_map::check),
    ("links", links::check),
    ("lints", lints),
    ("invariants", invariants_guarded),
    ("semantics", semantics_guarded),
];

/// Runs every check and names everything that is wrong.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let chosen: Vec<&Check> =
        CHECKS.iter().filter(|(name, _)| args.only.as_deref().is_none_or(|only| only == *name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
        bail!("no such check; there are {}", names.join(", "));
    }
    let mut wrong = 0;
    for (name, check) in chosen {
        let started = Instant::now();
        let findings = check()?;
        let seconds = started.elapsed().as_secs_f64();
        if findings.is_empty() {
            println!("verify {name:<12} ok    {seconds:6.1} s");
        } else {
            println!("verify {name:<12} WRONG {seconds:6.1} s");
            for finding in &findings {
                println!("  {finding}");
            }
        }
        wrong += findings.len();
    }
    if wrong > 0 {
        bail!("verify found {wrong} things wrong");
    }
    Ok(())
}

/// The names of all checks.
pub fn check_names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name)
}

/// The lines that a tool printed, if it failed.
fn complaints(command: &mut std::process::Command) -> anyhow::Result<Findings> {
    let output = shell::output(command)?;
    if output.status.success() {
        return Ok(Findings::new());
    }
    let mut lines: Findings = shell::printed(&output).lines().map(str::to_owned).collect();
    lines.push(format!("`{}` failed: {}", shell::shown(command), output.status));
    Ok(lines)
}

fn format() -> anyhow::Result<Findings> {
    complaints(shell::cargo().args(["fmt", "--all", "--check"]))
}

fn lints() -> anyhow::Result<Findings> {
    complaints(shell::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ]))
}

/// What the pages that name guards say wrongly, if `known` are all there are: tests, `verify CHECK`, `test STAGE` and
/// `test STAGE::NAME`.
pub fn unguarded(known: &BTreeSet<String>) -> anyhow::Result<Findings> {
    let mut findings = invariants::unguarded(known)?;
    findings.extend(semantics::unguarded(known)?);
    Ok(findings)
}

fn invariants_guarded() -> anyhow::Result<Findings> {
    invariants::unguarded(&all_guards()?)
}

fn semantics_guarded() -> anyhow::Result<Findings> {
    semantics::unguarded(&all_guards()?)
}

/// Everything that could be named as a guard.
fn all_guards() -> anyhow::Result<BTreeSet<String>> {
    let mut known = tests_list::names(&tests_list::build()?)?;
    known.extend(check_names().map(|name| format!("verify {name}")));
    known.extend(test::guards());
    Ok(known)
}
