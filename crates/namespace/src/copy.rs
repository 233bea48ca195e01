//! copy_file_range(2): a range of one file becomes a range of another by naming the same extents.

use alloc::vec::Vec;
use types::{Errno, Ino};

use crate::attrs;
use crate::command::Reply;
use crate::commit::{inline, set_inline};
use crate::map::{self, FILE_MAX, MapEdit, touching};
use crate::query::FileKind;
use crate::row::data::{INLINE_MAX, Map, MapData};
use crate::row::inode;
use crate::tx::{Outcome, Tx};

/// Map rows of each file that one command looks at; a copy that meets more stops there, and the caller goes on.
const ROWS_MAX: usize = 1024;

/// A place in a file.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) ino: Ino,
    pub(crate) offset: u64,
}

/// Shares what it can, and answers how much. Bytes in an inline row cannot be shared, and a range cannot end inside
/// one: then the answer is 0, nothing changed, and the caller writes these bytes anew. Holes and space that is set
/// aside become holes.
pub(crate) fn copy(tx: &mut Tx<'_, '_>, from: Place, to: Place, len: u64, kill_priv: bool) -> Outcome<Reply> {
    for place in [from, to] {
        match tx.inode(place.ino)?.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    let source = tx.inode(from.ino)?.clone();
    let len = len.min(source.size.saturating_sub(from.offset));
    if to.offset.checked_add(len).is_none_or(|end| end > FILE_MAX) {
        return Err(Errno::EFBIG.into());
    }
    let apart = from.offset + len <= to.offset || to.offset + len <= from.offset;
    if from.ino == to.ino && !apart {
        return Err(Errno::EINVAL.into());
    }
    let parts = parts(tx, from, to, len)?;
    let replaces_inline = tx.inode(to.ino)?.has(inode::INLINE) && to.offset < INLINE_MAX;
    let covered = !replaces_inline || (to.offset == 0 && parts.len >= inline(tx, to.ino)?.len() as u64);
    let in_row = source.has(inode::INLINE) && from.offset < INLINE_MAX;
    if parts.len == 0 || in_row || !covered {
        return Ok(Reply::Copied { attr: tx.inode(to.ino)?.attr(to.ino), bytes: 0 });
    }
    let end = to.offset + parts.len;
    let mut edit = MapEdit::begin(tx, to.ino)?;
    if replaces_inline {
        set_inline(tx, &mut edit, to.ino, &[])?;
    }
    edit.clear(tx, to.offset, end)?;
    for (start, part) in parts.rows {
        edit.put(tx, start, part.len, part.data);
    }
    edit.finish(tx)?;
    let now = tx.now;
    let inode = tx.edit(to.ino)?;
    inode.size = inode.size.max(end);
    inode.touch_mtime(now);
    if kill_priv {
        attrs::kill_priv(tx, to.ino)?;
    }
    Ok(Reply::Copied { attr: tx.inode(to.ino)?.attr(to.ino), bytes: parts.len })
}

/// What one command copies.
struct Parts {
    len: u64,
    /// Where each begins in the destination.
    rows: Vec<(u64, Map)>,
}

fn parts(tx: &mut Tx<'_, '_>, from: Place, to: Place, len: u64) -> Outcome<Parts> {
    let source = tx.inode(from.ino)?.clone();
    let tail = map::tail(tx.over, tx.id, from.ino, &source)?;
    let mut len = len;
    let rows = touching(tx.over, tx.id, from.ino, from.offset, from.offset + len, ROWS_MAX + 1)?;
    if let Some((start, _)) = rows.get(ROWS_MAX) {
        len = start - from.offset;
    }
    let there = touching(tx.over, tx.id, to.ino, to.offset, to.offset + len, ROWS_MAX + 1)?;
    if let Some((start, _)) = there.get(ROWS_MAX) {
        len = start - to.offset;
    }
    let mut parts = Vec::new();
    for (start, row) in rows {
        let (first, end) = (start.max(from.offset), (start + row.len).min(from.offset + len));
        if first < end && matches!(row.data, MapData::Extent { .. }) && !tail.has(start, &row) {
            parts.push((to.offset + (first - from.offset), row.part(first - start, end - first)));
        }
    }
    Ok(Parts { len, rows: parts })
}
