//! The one door to verify, fix, test, simulate, crash and measure: `cargo xtask help`.

mod bench;
mod crash;
mod fix;
mod random;
mod served;
mod shell;
mod sim;
mod test;
mod tests_list;
mod tree;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The one door to everything that is done to this project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What can be done.
#[derive(Subcommand)]
enum Command {
    /// Check the house without changing it: format, lints, layers, code map, invariants, words.
    Verify(verify::Args),
    /// Format everything and apply the lints' own suggestions.
    Fix,
    /// Crash the store, the Raft log and the state machine in simulation.
    Sim(sim::Args),
    /// Set the machine up and run every test: command 2 of the README.
    Test(test::Args),
    /// Cut the power below a real mount, and kill it, and check every acknowledged byte.
    Crash(crash::Args),
    /// Measure a release build beside a plain directory and beside what FUSE itself allows.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Verify(args) => verify::run(&args),
        Command::Fix => fix::run(),
        Command::Sim(args) => sim::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Crash(args) => crash::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
