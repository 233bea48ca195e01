//! The pure crates' absences: no runtime, clock, randomness or socket below them or in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use cargo_metadata::{DependencyKind, Metadata, PackageId};

use super::{Findings, layers};
use crate::tree;

/// Crates that bring what a pure crate must not have.
const BANNED_CRATES: &[&str] = &[
    "async-std",
    "chrono",
    "clock",
    "fastrand",
    "getrandom",
    "instant",
    "mio",
    "polling",
    "rand",
    "rand_core",
    "rustix",
    "smol",
    "socket2",
    "time",
    "tokio",
    "uuid",
    "web-time",
];

/// Paths of the standard library that a pure crate must not name.
const BANNED_PATHS: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::time",
    "Instant::now",
    "SystemTime",
    "RandomState",
    "std::collections::HashMap",
    "std::collections::HashSet",
];

/// Crates that have to work without the standard library.
const NO_STD: &[&str] = &["namespace"];

/// Checks what pure crates depend on and name.
pub fn check() -> anyhow::Result<Findings> {
    let metadata = layers::metadata()?;
    let needs = normal_dependencies(&metadata)?;
    let names: BTreeMap<&PackageId, &str> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let files = tree::files()?;
    let mut findings = Findings::new();
    for package in metadata.workspace_packages() {
        if !matches!(layers::layer(package), Some("vocabulary" | "pure")) {
            continue;
        }
        for id in reachable(&package.id, &needs) {
            let name = names.get(&id).copied().unwrap_or_default();
            if BANNED_CRATES.contains(&name) {
                findings.push(format!("{} is pure but needs {name}", package.name));
            }
        }
        let no_std = NO_STD.contains(&package.name.as_str());
        let sources = layers::folder(package).join("src");
        for file in files.iter().filter(|file| file.starts_with(&sources)) {
            let text = tree::text(file)?.unwrap_or_default();
            findings.extend(banned_in(file, &text, no_std));
            if no_std
                && *file == sources.join("lib.rs")
                && !text.contains("#![no_std]")
                && !text.contains("no_std)]")
            {
                findings.push(format!("{}: {} has to be no_std", file.display(), package.name));
            }
        }
    }
    Ok(findings)
}

/// Who needs whom in a build (neither for tests nor for build scripts).
fn normal_dependencies(metadata: &Metadata) -> anyhow::Result<BTreeMap<PackageId, Vec<PackageId>>> {
    let resolve = metadata.resolve.as_ref().context("cargo resolved no dependencies")?;
    Ok(resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = node
                .deps
                .iter()
                .filter(|dep| {
                    dep.dep_kinds
                        .iter()
                        .any(|kind| kind.kind == DependencyKind::Normal && kind.target.is_none())
                })
                .map(|dep| dep.pkg.clone())
                .collect();
            (node.id.clone(), normal)
        })
        .collect())
}

fn reachable(from: &PackageId, needs: &BTreeMap<PackageId, Vec<PackageId>>) -> BTreeSet<PackageId> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.clone()];
    while let Some(id) = next.pop() {
        for dependency in needs.get(&id).into_iter().flatten() {
            if seen.insert(dependency.clone()) {
                next.push(dependency.clone());
            }
        }
    }
    seen
}

/// Banned paths in code; a test module (it comes last, or is a file of its own) may use what it likes.
fn banned_in(file: &Path, text: &str, no_std: bool) -> Findings {
    let mut findings = Findings::new();
    if file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs") {
        return findings;
    }
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        if line.starts_with("//") {
            continue;
        }
        let banned = BANNED_PATHS.iter().copied().find(|path| line.contains(path));
        let std = no_std
            && (line.contains("std::") && !line.contains("no_std") || line.contains("extern crate std"));
        if let Some(path) = banned.or(std.then_some("std")) {
            findings.push(format!("{}:{number}: a pure crate must not name {path}", file.display()));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::banned_in;
    use std::path::Path;

    #[test]
    fn clocks_are_found_outside_of_tests_only() {
        let text =
            "use std::fmt;\n// std::time\nlet now = Instant::now();\n#[cfg(test)]\nuse std::time::Instant;\n";
        assert_eq!(banned_in(Path::new("a.rs"), text, false).len(), 1);
        assert_eq!(banned_in(Path::new("a.rs"), text, true).len(), 2, "without std, std::fmt counts too");
        assert!(banned_in(Path::new("a/tests.rs"), text, true).is_empty());
    }
}
