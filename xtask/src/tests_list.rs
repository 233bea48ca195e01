//! The workspace's tests by name: `package::path::of::test`, for an integration binary `package::binary::path`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::shell;

/// One built test program.
pub struct TestProgram {
    /// What its tests' names begin with.
    pub prefix: String,
    /// The program.
    pub path: PathBuf,
    /// The folder of its package, where it expects to be started.
    pub folder: PathBuf,
}

impl TestProgram {
    /// A command that starts it in its folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// Builds every test program of the workspace.
pub fn build() -> anyhow::Result<Vec<TestProgram>> {
    let messages = shell::read(shell::cargo().args([
        "test",
        "--workspace",
        "--no-run",
        "--quiet",
        "--message-format=json-render-diagnostics",
    ]))?;
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("read a message of cargo")?;
        let Some(executable) = message["executable"].as_str() else { continue };
        if message["profile"]["test"] != true {
            continue;
        }
        programs.push(program(&message, executable).with_context(|| format!("read what {executable} is"))?);
    }
    programs.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    Ok(programs)
}

fn program(message: &Value, executable: &str) -> anyhow::Result<TestProgram> {
    let manifest = PathBuf::from(message["manifest_path"].as_str().context("no manifest path")?);
    let folder = manifest.parent().context("a manifest lies in a folder")?.to_owned();
    // Folder and package have the same name: `verify` checks it.
    let package = folder.file_name().context("a folder has a name")?.to_string_lossy().replace('-', "_");
    let target = message["target"]["name"].as_str().context("no target name")?.replace('-', "_");
    let is_test = message["target"]["kind"][0] == "test";
    let prefix = if is_test { format!("{package}::{target}") } else { package };
    Ok(TestProgram { prefix, path: executable.into(), folder })
}

/// The names of all tests of `programs`.
pub fn names(programs: &[TestProgram]) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for program in programs {
        let list = shell::read(program.command().args(["--list", "--format", "terse"]))?;
        names.extend(
            list.lines()
                .filter_map(|line| line.strip_suffix(": test"))
                .map(|name| format!("{}::{name}", program.prefix)),
        );
    }
    Ok(names)
}
