//! SQLite by its command line, each transaction on its own.

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::rate;
use crate::row::{At, Done};

const PROGRAM: &str = "sqlite3";

/// Whether its command line is not on this machine.
pub(crate) fn missing() -> Option<String> {
    let status = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => None,
        _ => Some(format!("the program {PROGRAM} is not installed")),
    }
}

/// Transactions per second, with a rollback journal and `synchronous=FULL`.
pub(crate) fn measure(at: &At<'_>) -> Done<f64> {
    let path = at.dir.join("database");
    let mut script = String::from(
        "PRAGMA journal_mode=DELETE;\nPRAGMA synchronous=FULL;\nCREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB);\n",
    );
    for _ in 0..at.scale.transactions {
        script.push_str("INSERT INTO t (v) VALUES (randomblob(200));\n");
    }
    script.push_str("SELECT count(*) FROM t;\n");
    let mut command = Command::new(PROGRAM);
    command.args(["-batch", "-bail"]).arg(&path);
    let start = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let took = start.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || said.lines().last() != Some(&at.scale.transactions.to_string()) {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{PROGRAM}: {} {}", output.status, why.trim())).into());
    }
    fs::remove_file(path)?;
    Ok(rate(at.scale.transactions, took))
}
