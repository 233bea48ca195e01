//! Planted bugs are in no release: the feature is on only where the simulation asks for it.

use super::{Findings, layers};
use crate::shell;

const FEATURE: &str = "planted-bugs";

/// Checks which features a build of the program switches on, and who can switch on planted bugs at all.
pub fn check() -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    let tree = shell::read(shell::cargo().args([
        "tree",
        "--package",
        "cli",
        "--edges",
        "features,normal,build",
        "--prefix",
        "none",
    ]))?;
    if !tree.contains("planted") {
        findings.push("the build of cli does not reach planted at all: is this check still right?".into());
    }
    if tree.contains(FEATURE) {
        findings.push(format!("the build of cli switches {FEATURE} on"));
    }
    for package in layers::metadata()?.workspace_packages() {
        if package.features.get("default").is_some_and(|on| on.iter().any(|name| name.contains(FEATURE))) {
            findings.push(format!("{} has {FEATURE} on by default", package.name));
        }
        for dependency in &package.dependencies {
            let switched = dependency.features.iter().any(|name| name.contains(FEATURE));
            let normal = dependency.kind == cargo_metadata::DependencyKind::Normal;
            if switched && normal && layers::layer(package) != Some("tool") {
                findings.push(format!("{} switches {FEATURE} on in {}", package.name, dependency.name));
            }
        }
    }
    Ok(findings)
}
