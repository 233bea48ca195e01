//! Files whose bytes are not on any disk any more, by name.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use namespace::{Answer, Query, Rows, query};
use types::{ByteSize, ExtentId, VolumeId};

/// A file that lacks some of its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// One of its names, from the root of its volume.
    pub path: String,
    /// How many of its bytes cannot be read.
    pub bytes: u64,
}

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} of its data cannot be read", self.path, ByteSize(self.bytes))
    }
}

/// The files of a volume whose map names one of these extents. Those that were deleted and wait for reclaim are not among
/// them.
pub fn files(
    rows: &dyn Rows,
    volume: VolumeId,
    extents: &BTreeSet<ExtentId>,
) -> anyhow::Result<Vec<Damaged>> {
    if extents.is_empty() {
        return Ok(Vec::new());
    }
    let mut lacking = BTreeMap::new();
    namespace::maps(rows, volume, &mut |ino, extent, bytes| {
        if extents.contains(&extent) {
            *lacking.entry(ino).or_insert(0) += bytes;
        }
        true
    })
    .context("read the maps of files")?;
    let mut files = Vec::new();
    for (ino, bytes) in lacking {
        // Without a path it was deleted, and nobody will read it.
        if let Answer::Bytes(path) =
            query(rows, &Query::Path { volume, ino }).context("read the names of files")?
        {
            files.push(Damaged { path: String::from_utf8_lossy(&path).into_owned(), bytes });
        }
    }
    Ok(files)
}
