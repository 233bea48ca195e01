//! Where files lie in more and emptier extents than they need: what compaction works on.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use types::{BLOCK, EXTENT_MAX, ExtentId, Ino, VolumeId};

use crate::keys::{self, kind};
use crate::map;
use crate::query::{Answer, Scattered};
use crate::row;
use crate::row::data::{Extent, Map, MapData};
use crate::rows::{Rows, RowsError};
use crate::tx::{Outcome, live_inode};

/// Map rows that one question may look at, whatever it asks for.
const LOOK_MAX: usize = 16_384;

/// Looks at some map rows from `from` on, whole windows of 1 MiB of a file. Each stands alone, so the walk may be cut
/// anywhere; a window with more rows than are looked at is told in parts.
pub(crate) fn scattered(rows: &dyn Rows, volume: VolumeId, from: (Ino, u64), look: usize) -> Outcome<Answer> {
    let look = look.clamp(1, LOOK_MAX);
    let found = some_rows(rows, volume, from, look)?;
    let mut windows: Vec<&[(Ino, u64, Map)]> =
        found.chunk_by(|one, next| one.0 == next.0 && one.1 / EXTENT_MAX == next.1 / EXTENT_MAX).collect();
    let mut next = None;
    if found.len() == look {
        // The last one may go on behind what was read. If it is alone this is all that can be told of it now.
        next = match windows.as_slice() {
            [_, .., last] => last.first().map(|(ino, start, _)| (*ino, *start)),
            _ => found.last().map(|(ino, start, _)| (*ino, start.saturating_add(1))),
        };
        if windows.len() > 1 {
            windows.pop();
        }
    }
    let mut answers = Vec::new();
    for window in windows {
        answers.extend(weigh(rows, volume, window)?);
    }
    Ok(Answer::Scattered { windows: answers, next })
}

fn some_rows(
    rows: &dyn Rows,
    volume: VolumeId,
    from: (Ino, u64),
    look: usize,
) -> Result<Vec<(Ino, u64, Map)>, RowsError> {
    let end = keys::after(&keys::prefix(volume, kind::MAP));
    let mut found = Vec::new();
    row::scan(rows, &keys::map(volume, from.0, from.1), &end, false, &mut |key, row: Map| {
        found.push((keys::map_ino(key), keys::last_u64(key), row));
        found.len() < look
    })?;
    Ok(found)
}

/// What a window has; `None` if there is nothing of an extent in it.
fn weigh(
    rows: &dyn Rows,
    volume: VolumeId,
    window: &[(Ino, u64, Map)],
) -> Result<Option<Scattered>, RowsError> {
    let Some((ino, ..)) = window.first() else { return Ok(None) };
    let Some(inode) = live_inode(rows, volume, *ino)? else { return Ok(None) };
    let tail = map::tail(rows, volume, *ino, &inode)?;
    let mut extents: BTreeMap<ExtentId, u64> = BTreeMap::new();
    let (mut count, mut runs, mut bytes) = (0, 0, 0);
    let (mut start, mut end) = (u64::MAX, u64::MAX);
    for (_, at, row) in window {
        let MapData::Extent { id, .. } = row.data else { continue };
        if tail.has(*at, row) {
            continue;
        }
        count += 1;
        runs += u32::from(end != *at);
        bytes += row.len;
        (start, end) = (start.min(*at), at + row.len);
        *extents.entry(id).or_default() += row.len;
    }
    if count == 0 {
        return Ok(None);
    }
    // Of what an extent takes beside its live bytes, a header among it, the window has its share. What it would take
    // in one extent is not waste.
    let (mut waste, mut frees): (u64, u64) = (0, 0);
    for (id, mine) in extents {
        let Some(extent) = row::get::<Extent>(rows, &keys::extent(id))? else { continue };
        let beside = u64::from(extent.plain_len).saturating_sub(extent.live) + BLOCK;
        waste += beside * mine / extent.live.max(1);
        if mine >= extent.live {
            frees += u64::from(extent.plain_len).next_multiple_of(BLOCK) + BLOCK;
        }
    }
    Ok(Some(Scattered {
        ino: *ino,
        start,
        end,
        bytes,
        needless_rows: count - runs,
        waste: waste.saturating_sub(BLOCK),
        frees,
    }))
}
