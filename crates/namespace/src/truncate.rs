//! A file's size changes.

use types::{Errno, Ino};

use crate::commit::{inline, set_inline};
use crate::map::{FILE_MAX, MapEdit, touching};
use crate::query::FileKind;
use crate::row::inode;
use crate::tx::{Outcome, Tx};

/// Map rows that one truncate deletes itself; a longer tail is left to reclaim.
const ROWS_AT_ONCE: usize = 256;

/// Sets the size: what lies behind it is gone at once, what the file grows by reads as zeros.
pub(crate) fn truncate(tx: &mut Tx<'_, '_>, ino: Ino, size: u64) -> Outcome<()> {
    let now = tx.now;
    let inode = tx.edit(ino)?;
    match inode.kind {
        FileKind::File => {}
        FileKind::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    if size > FILE_MAX {
        return Err(Errno::EFBIG.into());
    }
    let shrinks = size < inode.size;
    inode.size = size;
    inode.touch_mtime(now);
    if !shrinks {
        // Space set aside behind the old end comes into view, as zeros.
        return Ok(());
    }
    let is_inline = inode.has(inode::INLINE);
    let mut edit = MapEdit::begin(tx, ino)?;
    if is_inline {
        let mut bytes = inline(tx, ino)?;
        if size < bytes.len() as u64 {
            bytes.truncate(size as usize);
            set_inline(tx, &mut edit, ino, &bytes)?;
        }
    }
    let rows = touching(tx.over, tx.id, ino, size, u64::MAX, ROWS_AT_ONCE + 1)?;
    if rows.len() <= ROWS_AT_ONCE {
        edit.clear_rows(tx, &rows, size, u64::MAX);
    } else {
        if let Some((start, row)) = rows.first().filter(|(start, _)| *start < size) {
            edit.clear(tx, size, start + row.len)?;
        }
        if !edit.cut(tx, size)? {
            edit.clear(tx, size, u64::MAX)?;
        }
    }
    edit.finish(tx)
}
