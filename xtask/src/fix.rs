//! `cargo xtask fix`: what a program can put right by itself.

use crate::shell;

/// Applies clippy's suggestions, then formats.
pub fn run() -> anyhow::Result<()> {
    shell::run(shell::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
        "--quiet",
    ]))?;
    shell::run(shell::cargo().args(["fmt", "--all"]))
}
