//! fallocate(2): space is set aside, or given back.

use types::{BLOCK, Errno, Ino};

use crate::attrs;
use crate::command::{FallocateMode, Reply};
use crate::commit::{inline, set_inline};
use crate::map::{FILE_MAX, MapEdit, touching};
use crate::query::FileKind;
use crate::row::data::{INLINE_MAX, MapData};
use crate::row::inode;
use crate::tx::{Outcome, Tx};

/// Map rows that one command may look at: 64 GiB of data in whole extents. More is `EFBIG`; a caller asks in parts.
const ROWS_MAX: usize = 65_536;

/// Space that is set aside is one row however long it is; only the volume's limit bounds it.
pub(crate) fn fallocate(
    tx: &mut Tx<'_, '_>,
    ino: Ino,
    mode: FallocateMode,
    offset: u64,
    len: u64,
    kill_priv: bool,
) -> Outcome<Reply> {
    match tx.inode(ino)?.kind {
        FileKind::File => {}
        FileKind::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::ENODEV.into()),
    }
    if len == 0 {
        return Err(Errno::EINVAL.into());
    }
    let end = offset.checked_add(len).filter(|end| *end <= FILE_MAX).ok_or(Errno::EFBIG)?;
    let grows = matches!(mode, FallocateMode::Allocate | FallocateMode::Zero);
    let mut edit = MapEdit::begin(tx, ino)?;
    let mut from = offset;
    if tx.inode(ino)?.has(inode::INLINE) && offset < INLINE_MAX {
        // The inline row is the space of the first unit.
        if !matches!(mode, FallocateMode::Allocate | FallocateMode::AllocateKeepSize) {
            zero_inline(tx, &mut edit, ino, offset, end, mode == FallocateMode::PunchHole)?;
        }
        from = INLINE_MAX;
    }
    if from < end {
        let rows = touching(tx.over, tx.id, ino, from, end, ROWS_MAX + 1)?;
        if rows.len() > ROWS_MAX {
            return Err(Errno::EFBIG.into());
        }
        match mode {
            FallocateMode::Allocate | FallocateMode::AllocateKeepSize => {
                let mut at = from;
                for (start, row) in &rows {
                    if edit.is_cut(*start, row) {
                        edit.remove(tx, *start, row);
                        continue;
                    }
                    // A unit that a row begins or ends in is paid for with that row.
                    let gap = start / BLOCK * BLOCK;
                    if at < gap {
                        edit.put(tx, at, gap - at, MapData::Unwritten);
                    }
                    at = (start + row.len).next_multiple_of(BLOCK);
                }
                if at < end {
                    edit.put(tx, at, end - at, MapData::Unwritten);
                }
            }
            FallocateMode::PunchHole => edit.clear_rows(tx, &rows, from, end),
            FallocateMode::Zero | FallocateMode::ZeroKeepSize => {
                edit.clear_rows(tx, &rows, from, end);
                edit.put(tx, from, end - from, MapData::Unwritten);
            }
        }
    }
    edit.finish(tx)?;
    let now = tx.now;
    let inode = tx.edit(ino)?;
    if grows {
        inode.size = inode.size.max(end);
    }
    inode.touch_mtime(now);
    if kill_priv {
        attrs::kill_priv(tx, ino)?;
    }
    Ok(Reply::Attr(tx.inode(ino)?.attr(ino)))
}

/// Inline bytes in the range become zeros; a hole over all of them takes the row away.
fn zero_inline(
    tx: &mut Tx<'_, '_>,
    edit: &mut MapEdit,
    ino: Ino,
    offset: u64,
    end: u64,
    punch: bool,
) -> Outcome<()> {
    let mut bytes = inline(tx, ino)?;
    let to = end.min(bytes.len() as u64) as usize;
    let Some(range) = bytes.get_mut(offset as usize..to.max(offset as usize)) else { return Ok(()) };
    range.fill(0);
    if punch && offset == 0 && to == bytes.len() {
        bytes.clear();
    }
    set_inline(tx, edit, ino, &bytes)
}
