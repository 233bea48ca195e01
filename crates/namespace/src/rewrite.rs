//! The same bytes in other extents: what compaction commits.

use alloc::vec::Vec;
use types::{Errno, Ino, SessionId};

use crate::command::{NewExtent, Reply, Segment};
use crate::commit::{bring_in, check_extents, check_segments};
use crate::keys;
use crate::map::{FILE_MAX, MapEdit};
use crate::query::FileKind;
use crate::row::data::{Map, MapData};
use crate::tx::{Outcome, Tx};

/// Map rows that one command may replace.
const ROWS_MAX: usize = 8_192;

/// Replaces the map rows `from` by `to` if all of them are still there as they were read; `EAGAIN` if one is not.
///
/// A row that was cut, replaced, punched out or cut off by a truncate since is another row, or none, so nothing that
/// was written meanwhile can be lost. Rows are compared, not the inode's change count: a write beside them, in the
/// same file, does not spoil the work.
pub(crate) fn rewrite(
    tx: &mut Tx<'_, '_>,
    session: SessionId,
    ino: Ino,
    from: &[Segment],
    extents: &[NewExtent],
    to: &[Segment],
) -> Outcome<Reply> {
    if tx.inode(ino)?.kind != FileKind::File || from.len().max(to.len()) > ROWS_MAX {
        return Err(Errno::EINVAL.into());
    }
    check_segments(from, FILE_MAX)?;
    check_segments(to, FILE_MAX)?;
    if from.is_empty() || runs(from) != runs(to) {
        return Err(Errno::EINVAL.into());
    }
    let mut edit = MapEdit::begin(tx, ino)?;
    for segment in from {
        let row: Map = tx.get(&keys::map(tx.id, ino, segment.start))?.ok_or(Errno::EAGAIN)?;
        let data = MapData::Extent { id: segment.extent, offset: segment.offset };
        if row.len != u64::from(segment.len) || row.data != data || edit.is_cut(segment.start, &row) {
            return Err(Errno::EAGAIN.into());
        }
        edit.remove(tx, segment.start, &row);
    }
    let known = bring_in(tx, session, extents)?;
    check_extents(tx, &known, to)?;
    for segment in to {
        let data = MapData::Extent { id: segment.extent, offset: segment.offset };
        edit.put(tx, segment.start, u64::from(segment.len), data);
    }
    // Its bytes were accepted long ago, so no limit refuses a row that touches one unit more.
    edit.finish_promised(tx)?;
    Ok(Reply::Attr(tx.inode(ino)?.attr(ino)))
}

/// The bytes that ascending segments cover, as ranges that do not touch.
fn runs(segments: &[Segment]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for segment in segments {
        let end = segment.start + u64::from(segment.len);
        match runs.last_mut() {
            Some(last) if last.1 == segment.start => last.1 = end,
            _ => runs.push((segment.start, end)),
        }
    }
    runs
}
