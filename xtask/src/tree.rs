//! The checked-out tree: where it is, and which files belong to it.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::shell;

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Everything we build or keep between runs lies below it.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The program as users get it.
pub fn holdfast() -> PathBuf {
    target().join("release/holdfast")
}

/// Paths, relative to the root, of every file that is tracked or could be (neither ignored nor deleted), sorted.
pub fn files() -> anyhow::Result<Vec<PathBuf>> {
    let list = shell::read(shell::program("git").args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut files: Vec<PathBuf> =
        list.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    files.retain(|path| root().join(path).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

/// The text of one file of the tree, or `None` if it is not text.
pub fn text(path: &Path) -> anyhow::Result<Option<String>> {
    let bytes = std::fs::read(root().join(path)).with_context(|| format!("read {}", path.display()))?;
    Ok(String::from_utf8(bytes).ok())
}
