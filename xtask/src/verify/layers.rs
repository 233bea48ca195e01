//! Arrows point down only: each crate says its layer in its manifest, and nobody needs a crate of a higher one.

use std::path::Path;

use anyhow::Context;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use super::Findings;
use crate::tree;

/// From the bottom up. Crates of one layer may use each other, except deployables.
const LAYERS: [&str; 8] = ["vocabulary", "pure", "io", "engine", "semantics", "adapter", "deployable", "cli"];

/// May use anything, and nothing uses it.
const TOOL: &str = "tool";

/// Dependencies that only these crates may name, so that they can be exchanged there.
const NAMED_ONLY_BY: &[(&str, &[&str])] = &[
    ("openraft", &["meta-raft"]),
    ("openraft-rt", &["meta-raft"]),
    ("openraft-rt-tokio", &["meta-raft"]),
    ("lsm-tree", &["meta-raft"]),
    ("fuser", &["bench", "fuse", "xtask"]),
    ("io-uring", &["device"]),
];

/// The workspace's graph of crates.
pub fn metadata() -> anyhow::Result<Metadata> {
    MetadataCommand::new().current_dir(tree::root()).exec().context("read the graph of crates")
}

/// The layer that a crate's manifest names.
pub fn layer(package: &Package) -> Option<&str> {
    package.metadata.get("holdfast")?.get("layer")?.as_str()
}

/// The folder of a crate of ours, relative to the root.
pub fn folder(package: &Package) -> &Path {
    let folder = package.manifest_path.parent().map_or(Path::new(""), |folder| folder.as_std_path());
    folder.strip_prefix(tree::root()).unwrap_or(folder)
}

/// Checks the edges between our crates and who names which dependency.
pub fn check() -> anyhow::Result<Findings> {
    let metadata = metadata()?;
    let ours = metadata.workspace_packages();
    let mut findings = Findings::new();
    for package in &ours {
        if folder(package).file_name().is_none_or(|name| name != package.name.as_str()) {
            findings.push(format!(
                "{} lies in {}: folder and crate share a name",
                package.name,
                folder(package).display()
            ));
        }
        let Some(own) = layer(package) else {
            findings.push(format!("{} names no layer in [package.metadata.holdfast]", package.name));
            continue;
        };
        if own != TOOL && rank(own).is_none() {
            findings.push(format!(
                "{} has the unknown layer {own:?}; there are {LAYERS:?} and {TOOL:?}",
                package.name
            ));
        }
        for dependency in &package.dependencies {
            if let Some(other) = ours.iter().find(|other| other.name.as_str() == dependency.name) {
                let development = dependency.kind == DependencyKind::Development;
                findings.extend(edge(
                    package.name.as_str(),
                    own,
                    other.name.as_str(),
                    layer(other),
                    development,
                ));
            }
            if let Some((_, by)) = NAMED_ONLY_BY.iter().find(|(name, _)| *name == dependency.name)
                && !by.contains(&package.name.as_str())
            {
                findings.push(format!(
                    "{} names {}, which only {} may",
                    package.name,
                    dependency.name,
                    by.join(", ")
                ));
            }
        }
    }
    Ok(findings)
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|name| *name == layer)
}

/// What is wrong with `from` needing `to`. Tests may look up, but not out of a deployable into another.
fn edge(from: &str, own: &str, to: &str, other: Option<&str>, development: bool) -> Option<String> {
    let other = other?;
    if own == TOOL {
        return None;
    }
    if other == TOOL {
        return Some(format!("{from} uses {to}, a tool; nothing may"));
    }
    if own == "deployable" && other == "deployable" {
        return Some(format!("{from} uses {to}: deployables never use each other"));
    }
    if rank(other)? > rank(own)? && !development {
        return Some(format!("{from} ({own}) uses {to} ({other}): arrows point down only"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::edge;

    #[test]
    fn only_arrows_down_are_allowed() {
        let check = |own, other, development| edge("a", own, "b", Some(other), development).is_none();
        for (own, other) in [
            ("cli", "types"),
            ("engine", "io"),
            ("pure", "vocabulary"),
            ("engine", "engine"),
            ("tool", "cli"),
        ] {
            assert!(check(own, other, false), "{own} may use {other}");
        }
        for (own, other) in
            [("pure", "io"), ("vocabulary", "cli"), ("deployable", "deployable"), ("cli", "tool")]
        {
            assert!(!check(own, other, false), "{own} must not use {other}");
        }
        assert!(check("pure", "io", true), "a test may look up");
        assert!(!check("deployable", "deployable", true), "not even for a test");
    }
}
