//! `holdfast dump --map`: which bytes of a stopped data directory are used, and for what.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use metadata::Offline;
use serde::Serialize;
use types::FragmentId;

use crate::data_dir::DataDir;
use crate::tuning::Tuning;

/// A range of used bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Range {
    /// The file, relative to the data directory if it lies in it.
    file: PathBuf,
    /// Where the range begins, in bytes.
    at: u64,
    /// How many bytes it has; at least one.
    len: u64,
    /// What it belongs to, in words that do not change.
    kind: &'static str,
    /// The fragment, `group/extent/layout/index`.
    #[serde(skip_serializing_if = "Option::is_none")]
    fragment: Option<String>,
    /// Whether it is known to have been durable: a fragment that is not, and not whole, is taken back by the next start.
    durable: bool,
    /// The extent, `volume.session.counter`.
    #[serde(skip_serializing_if = "Option::is_none")]
    extent: Option<String>,
}

impl Range {
    fn new(dir: &DataDir, file: &Path, (at, len): (u64, u64), kind: &'static str) -> Range {
        let file = file.strip_prefix(dir.path()).unwrap_or(file).to_path_buf();
        Range { file, at, len, kind, fragment: None, durable: true, extent: None }
    }

    fn part_of(mut self, fragment: Option<FragmentId>, durable: bool) -> Range {
        self.durable = durable;
        self.fragment = fragment.map(|id| id.to_string());
        self.extent = fragment.map(|id| id.extent.to_string());
        self
    }
}

/// Reads the map. Nothing is changed.
pub async fn read(dir: &DataDir, tuning: &Tuning) -> anyhow::Result<Vec<Range>> {
    let cluster = dir.path().join("cluster.json");
    let len = std::fs::metadata(&cluster).context("read the length of cluster.json")?.len();
    let mut map = vec![Range::new(dir, &cluster, (0, len), "identity")];
    for used in Offline::used(dir.path()).context("read the metadata")? {
        map.push(Range::new(dir, &used.path, (used.at, used.len), metadata_kind(used.kind)));
    }
    for (path, disk) in super::disks(dir, tuning)? {
        let superblock = store::describe::superblocks(&disk).await.1;
        let superblock = superblock.with_context(|| format!("read the superblock of {path}"))?;
        let used = store::describe::used(Arc::new(disk), &superblock).await;
        for used in used.with_context(|| format!("read the index of {path}"))? {
            let range = Range::new(dir, Path::new(&path), (used.at, used.len), disk_kind(used.kind));
            map.push(range.part_of(used.fragment, used.durable));
        }
    }
    Ok(map)
}

fn metadata_kind(kind: metadata::UsedKind) -> &'static str {
    match kind {
        metadata::UsedKind::LogHeader => "log header",
        metadata::UsedKind::Log => "log",
        metadata::UsedKind::RowsPointer => "rows pointer",
        metadata::UsedKind::RowsManifest => "rows manifest",
        metadata::UsedKind::RowsTable => "rows table",
    }
}

fn disk_kind(kind: store::describe::UsedKind) -> &'static str {
    match kind {
        store::describe::UsedKind::Superblock => "superblock",
        store::describe::UsedKind::Journal => "journal",
        store::describe::UsedKind::Checkpoint => "checkpoint",
        store::describe::UsedKind::FragmentHeader => "fragment header",
        store::describe::UsedKind::FragmentData => "fragment data",
    }
}

/// Writes a line per range, or a JSON array.
pub fn write(map: &[Range], json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, map).context("print the map")?;
        writeln!(out)?;
        return Ok(());
    }
    for Range { file, at, len, kind, fragment, .. } in map {
        let fragment = fragment.as_deref().unwrap_or_default();
        writeln!(out, "{at:>16} {len:>10} {kind:<16} {} {fragment}", file.display())?;
    }
    Ok(())
}
