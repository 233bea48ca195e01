//! What is left for later, in bounded steps: deleted files, cut-off tails, closed sessions; and dead extents.

use alloc::format;
use alloc::vec::Vec;
use types::{ExtentId, Grant, Ino, SessionId};

use crate::command::Reply;
use crate::keys::{self, KeyReader, class, kind};
use crate::map::MapEdit;
use crate::overlay::Overlay;
use crate::query::FileKind;
use crate::row;
use crate::row::data::{Extent, Map};
use crate::row::inode;
use crate::row::names::Xattr;
use crate::row::reclaim::{DeadSession, SessionPhase, Tail};
use crate::row::session::{Pinned, Slot, Writer};
use crate::rows::{Rows, RowsError};
use crate::tx::{Outcome, Tx};
use crate::wire::Wire;

/// Rows that one command may look at.
const STEPS_MAX: usize = 1_000;

/// Looks at no more than `steps` rows, of the first items in key order.
pub(crate) fn reclaim(tx: &mut Tx<'_, '_>, steps: u32) -> Outcome<Reply> {
    let mut left = (steps as usize).min(STEPS_MAX);
    // All at once: where many were taken before, the way to the first leads past what is left of them in the store.
    for (class, id) in items(tx, left)? {
        let key = keys::reclaim(tx.id, class, id);
        while left > 0 && tx.over.get(&key)?.is_some() {
            let used = match class {
                class::INODE => inode_rows(tx, Ino(id), left)?,
                class::TAIL => tail_rows(tx, Ino(id), left)?,
                class::SESSION => session_rows(tx, SessionId(id), left)?,
                _ => return Err(RowsError(format!("reclaim class {class} is unknown")).into()),
            };
            left = left.saturating_sub(used);
        }
    }
    Ok(Reply::Left(items(tx, STEPS_MAX)?.len() as u32))
}

/// The first items, dead extents apart.
fn items(tx: &Tx<'_, '_>, max: usize) -> Result<Vec<(u8, u64)>, RowsError> {
    let from = keys::prefix(tx.id, kind::RECLAIM);
    let to = keys::reclaim_class(tx.id, class::DEAD_EXTENT);
    let mut items = Vec::new();
    tx.over.scan(&from, &to, false, &mut |key, _| {
        let class = KeyReader::open(key).and_then(|(_, _, mut rest)| rest.byte()).unwrap_or(0);
        items.push((class, keys::last_u64(key)));
        items.len() < max
    })?;
    Ok(items)
}

/// The first rows of a range.
fn some<T: Wire>(
    tx: &Tx<'_, '_>,
    from: &[u8],
    to: &[u8],
    max: usize,
) -> Result<Vec<(Vec<u8>, T)>, RowsError> {
    let mut rows = Vec::new();
    row::scan(tx.over, from, to, false, &mut |key, row| {
        rows.push((key.to_vec(), row));
        rows.len() < max
    })?;
    Ok(rows)
}

/// Rows of a nameless inode that nobody has open; the inode itself last. How many were looked at.
fn inode_rows(tx: &mut Tx<'_, '_>, ino: Ino, max: usize) -> Outcome<usize> {
    let item = keys::reclaim(tx.id, class::INODE, ino.0);
    let Some(inode) = tx.stored_inode(ino)?.cloned() else {
        tx.over.delete(item);
        return Ok(1);
    };
    // The row tells what else there is. To look for rows that are not there, or to delete them, is most of the work
    // where many small files go.
    let mut used = 0;
    let mut edit = MapEdit::begin(tx, ino)?;
    if inode.may_have_map() {
        let maps = keys::of_inode(tx.id, kind::MAP, ino);
        for (key, row) in some::<Map>(tx, &maps, &keys::after(&maps), max)? {
            edit.remove(tx, keys::last_u64(&key), &row);
            used += 1;
        }
    }
    if used < max && inode.xattr_bytes > 0 {
        let xattrs = keys::of_inode(tx.id, kind::XATTR, ino);
        for (key, _) in some::<Xattr>(tx, &xattrs, &keys::after(&xattrs), max - used)? {
            tx.over.delete(key);
            used += 1;
        }
    }
    if used == max {
        edit.finish(tx)?;
        return Ok(used);
    }
    edit.count_inline(inode.has(inode::INLINE), false);
    edit.finish(tx)?;
    for (kind, is_there) in [
        (kind::INLINE, inode.has(inode::INLINE)),
        (kind::SYMLINK, inode.kind == FileKind::Symlink),
        (kind::WRITER, inode.grant != Grant(0)),
    ] {
        if is_there {
            tx.over.delete(keys::of_inode(tx.id, kind, ino));
        }
    }
    if inode.has(inode::TAIL) {
        tx.over.delete(keys::reclaim(tx.id, class::TAIL, ino.0));
    }
    tx.over.delete(item);
    tx.forget_inode(ino)?;
    Ok(used + 1)
}

/// Map rows that truncates cut off.
fn tail_rows(tx: &mut Tx<'_, '_>, ino: Ino, max: usize) -> Outcome<usize> {
    let item = keys::reclaim(tx.id, class::TAIL, ino.0);
    let tail: Option<Tail> = tx.get(&item)?;
    let (Some(mut tail), Some(_)) = (tail, tx.stored_inode(ino)?) else {
        tx.over.delete(item);
        return Ok(1);
    };
    let (from, maps) = (keys::map(tx.id, ino, tail.cursor), keys::of_inode(tx.id, kind::MAP, ino));
    let rows = some::<Map>(tx, &from, &keys::after(&maps), max)?;
    let mut edit = MapEdit::begin(tx, ino)?;
    for (key, row) in &rows {
        let start = keys::last_u64(key);
        if edit.is_cut(start, row) {
            edit.remove(tx, start, row);
        }
        tail.cursor = start + 1;
    }
    edit.finish(tx)?;
    if rows.len() == max {
        tx.put(item, &tail);
        return Ok(max);
    }
    tx.over.delete(item);
    if let Some(inode) = tx.stored_inode(ino)? {
        inode.set(inode::TAIL, false);
    }
    Ok(rows.len() + 1)
}

/// Rows of a closed session: its slots, its write grants, what it had open.
fn session_rows(tx: &mut Tx<'_, '_>, session: SessionId, max: usize) -> Outcome<usize> {
    let item = keys::reclaim(tx.id, class::SESSION, session.0);
    let Some(mut dead) = tx.get::<DeadSession>(&item)? else { return Ok(1) };
    let (used, next) = match dead.phase {
        SessionPhase::Slots => {
            let slots = keys::slots(tx.id, session);
            let rows = some::<Slot>(tx, &slots, &keys::after(&slots), max)?;
            let used = rows.len();
            for (key, _) in rows {
                tx.over.delete(key);
            }
            (used, Some(SessionPhase::Writers))
        }
        SessionPhase::Writers => {
            let rows = from_cursor::<Writer>(tx, kind::WRITER, &mut dead, max)?;
            let used = rows.len();
            for (key, writer) in rows {
                if writer.session == session {
                    tx.over.delete(key);
                }
            }
            (used, Some(SessionPhase::Pinned))
        }
        SessionPhase::Pinned => {
            let rows = from_cursor::<Pinned>(tx, kind::PINNED, &mut dead, max)?;
            let used = rows.len();
            for (key, pinned) in rows {
                if pinned.sessions.contains(&session) {
                    crate::sessions::unpin(tx, Ino(keys::last_u64(&key)), session)?;
                }
            }
            (used, None)
        }
    };
    if used == max {
        tx.put(item, &dead);
        return Ok(used);
    }
    match next {
        Some(phase) => tx.put(item, &DeadSession { phase, cursor: 0 }),
        None => tx.over.delete(item),
    }
    Ok(used + 1)
}

/// Rows of a kind from the cursor on, which moves behind them.
fn from_cursor<T: Wire>(
    tx: &Tx<'_, '_>,
    kind: u8,
    dead: &mut DeadSession,
    max: usize,
) -> Result<Vec<(Vec<u8>, T)>, RowsError> {
    let from = keys::of_inode(tx.id, kind, Ino(dead.cursor));
    let rows = some(tx, &from, &keys::after(&keys::prefix(tx.id, kind)), max)?;
    if let Some((key, _)) = rows.last() {
        dead.cursor = keys::last_u64(key) + 1;
    }
    Ok(rows)
}

/// The fragments of these are deleted. What is not dead stays, whoever asks.
pub(crate) fn drop_extents(over: &mut Overlay<'_>, ids: &[ExtentId]) -> Outcome<Reply> {
    for id in ids {
        let key = keys::extent(*id);
        if row::get::<Extent>(over, &key)?.is_some_and(|extent| extent.refs == 0) {
            over.delete(key);
            over.delete(keys::dead_extent(*id));
        }
    }
    Ok(Reply::Done)
}
