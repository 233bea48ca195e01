//! The `holdfast` command: one process tree on one directory, and the tools around it.
//!
//! [`run`] parses the command line and hands over to x.
//! [`data_dir`] owns the layout of a data directory and its lock, [`http`] the pages that a running `up` serves.

pub mod args;
pub mod data_dir;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod progress;
pub mod report;
pub mod status;
pub mod table;
pub mod tuning;

pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
