//! The `holdfast` command: one process tree on one directory, and the tools around it.
//!
//! [`run`] parses the command line and hands over to one module per subcommand: [`up`], [`status`], [`disk`], [`fsck`],
//! [`dump`], [`quota`], [`backup`], [`bench`].
//! [`data_dir`] owns the layout of a data directory and its lock, [`http`] the pages that a running `up` serves.

pub mod args;
pub mod backup;
pub mod bench;
pub mod data_dir;
pub mod disk;
pub mod dump;
pub mod fsck;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod progress;
pub mod quota;
pub mod report;
pub mod status;
pub mod stream;
pub mod table;
pub mod tuning;
pub mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command, MetadataWhat};

/// Runs the command line of this process and answers its exit code: 0 done, 1 failed or found problems, 2 misuse.
pub fn run() -> ExitCode {
    let args = Args::parse();
    logging::start();
    let done = match args.command {
        Command::Up(args) => up::run(args),
        Command::Status(args) => status::run(&args),
        Command::Disk(args) => disk::run(&args),
        Command::Fsck(args) => fsck::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Quota(args) => quota::run(&args),
        Command::Metadata(args) => match args.what {
            MetadataWhat::Backup(args) => backup::run(&args),
        },
        Command::Bench(args) => bench::run(args),
        Command::BenchFloor(args) => bench::serve_floor(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // Nothing above this consumes an error, so this is the one line that tells of it.
            eprintln!("holdfast: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes in one line. A cause that the text before it tells already is not told again.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::sentence;
    use anyhow::anyhow;

    #[test]
    fn an_error_is_told_once_and_in_one_line() {
        let error =
            anyhow!("no entry (os error 2)").context("read a: no entry (os error 2)").context("open\nit");
        assert_eq!(sentence(&error), "open it: read a: no entry (os error 2)");
        assert_eq!(sentence(&anyhow!("why").context("what")), "what: why");
    }
}
