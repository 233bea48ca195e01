//! A file's map: rows are cut, put and counted, and extents follow.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use types::{Errno, ExtentId, Ino, VolumeId};

use crate::keys;
use crate::row;
use crate::row::Empty;
use crate::row::data::{Extent, Map, MapData, units};
use crate::row::inode;
use crate::row::reclaim::{Cut, Tail};
use crate::rows::{Rows, RowsError};
use crate::tx::{Outcome, Tx};

/// No file reaches further: offsets are an off_t.
pub(crate) const FILE_MAX: u64 = i64::MAX as u64;

/// Map rows of the inode that touch `from..to`, in order, at most `max`.
pub(crate) fn touching(
    rows: &dyn Rows,
    volume: VolumeId,
    ino: Ino,
    from: u64,
    to: u64,
    max: usize,
) -> Result<Vec<(u64, Map)>, RowsError> {
    let mut found = Vec::new();
    if from >= to || max == 0 {
        return Ok(found);
    }
    let (first, at) = (keys::map(volume, ino, 0), keys::map(volume, ino, from));
    row::scan(rows, &first, &at, true, &mut |key, row: Map| {
        let start = keys::last_u64(key);
        if start.saturating_add(row.len) > from {
            found.push((start, row));
        }
        false
    })?;
    if found.len() == max {
        return Ok(found);
    }
    row::scan(rows, &at, &keys::map(volume, ino, to), false, &mut |key, row: Map| {
        found.push((keys::last_u64(key), row));
        found.len() < max
    })?;
    Ok(found)
}

/// Which map rows of the inode are cut off by a truncate.
pub(crate) fn tail(
    rows: &dyn Rows,
    volume: VolumeId,
    ino: Ino,
    inode: &inode::Inode,
) -> Result<Tail, RowsError> {
    if !inode.has(inode::TAIL) {
        return Ok(Tail::default());
    }
    let key = keys::reclaim(volume, keys::class::TAIL, ino.0);
    Ok(row::get(rows, &key)?.unwrap_or_default())
}

/// Changes to one file's map in one command. Rows change at once, extents and usage in [`MapEdit::finish`], so that
/// an extent which loses one row and gains another in the same command never dies between.
pub(crate) struct MapEdit {
    ino: Ino,
    generation: u32,
    tail: Tail,
    /// There is no map row, so that none need be looked for.
    bare: bool,
    extents: BTreeMap<ExtentId, (i64, i64)>,
    added: u64,
    removed: u64,
}

impl MapEdit {
    pub(crate) fn begin(tx: &mut Tx<'_, '_>, ino: Ino) -> Outcome<MapEdit> {
        let Some(inode) = tx.stored_inode(ino)?.cloned() else {
            return Err(RowsError(format!("inode {ino} has a map but no row")).into());
        };
        let tail = tail(tx.over, tx.id, ino, &inode)?;
        let (generation, bare) = (inode.map_gen, !inode.may_have_map());
        Ok(MapEdit { ino, generation, tail, bare, extents: BTreeMap::new(), added: 0, removed: 0 })
    }

    fn count(&mut self, start: u64, row: &Map, gained: bool) {
        let bytes = units(start, row.len);
        if gained {
            self.added += bytes;
        } else {
            self.removed += bytes;
        }
        if let MapData::Extent { id, .. } = row.data {
            let (refs, live) = self.extents.entry(id).or_default();
            let sign = if gained { 1 } else { -1 };
            *refs += sign;
            *live += sign * row.len as i64;
        }
    }

    fn store(&mut self, tx: &mut Tx<'_, '_>, start: u64, row: Map) {
        self.count(start, &row, true);
        self.bare = false;
        let key = keys::map(tx.id, self.ino, start);
        tx.put(key, &row);
    }

    /// A new row where nothing is.
    pub(crate) fn put(&mut self, tx: &mut Tx<'_, '_>, start: u64, len: u64, data: MapData) {
        self.store(tx, start, Map { len, generation: self.generation, data });
    }

    /// A row goes whole.
    pub(crate) fn remove(&mut self, tx: &mut Tx<'_, '_>, start: u64, row: &Map) {
        self.count(start, row, false);
        tx.over.delete(keys::map(tx.id, self.ino, start));
    }

    /// Space that an inline row takes or gives back.
    pub(crate) fn count_inline(&mut self, had: bool, has: bool) {
        self.removed += u64::from(had) * types::BLOCK;
        self.added += u64::from(has) * types::BLOCK;
    }

    /// Whether the row is cut off by a truncate.
    pub(crate) fn is_cut(&self, start: u64, row: &Map) -> bool {
        self.tail.has(start, row)
    }

    /// Makes `from..to` a hole. `rows` are all that touch it; those that reach over an end keep the rest.
    pub(crate) fn clear_rows(&mut self, tx: &mut Tx<'_, '_>, rows: &[(u64, Map)], from: u64, to: u64) {
        for (start, row) in rows {
            let (start, end) = (*start, start + row.len);
            self.remove(tx, start, row);
            if start < from {
                self.store(tx, start, row.part(0, from - start));
            }
            if end > to {
                self.store(tx, to, row.part(to - start, end - to));
            }
        }
    }

    /// Makes `from..to` a hole.
    pub(crate) fn clear(&mut self, tx: &mut Tx<'_, '_>, from: u64, to: u64) -> Outcome<()> {
        if self.bare {
            return Ok(());
        }
        let rows = touching(tx.over, tx.id, self.ino, from, to, usize::MAX)?;
        self.clear_rows(tx, &rows, from, to);
        Ok(())
    }

    /// Leaves all rows that start at or behind `from` to reclaim; `false` if that cannot be noted. None may reach
    /// over `from`.
    pub(crate) fn cut(&mut self, tx: &mut Tx<'_, '_>, from: u64) -> Outcome<bool> {
        let Some(generation) = self.generation.checked_add(1) else { return Ok(false) };
        if !self.tail.push(Cut { from, generation }) {
            return Ok(false);
        }
        self.generation = generation;
        let inode = tx.edit(self.ino)?;
        inode.map_gen = generation;
        inode.set(inode::TAIL, true);
        let key = keys::reclaim(tx.id, keys::class::TAIL, self.ino.0);
        tx.put(key, &self.tail);
        Ok(true)
    }

    /// Counts what changed: extents' rows and bytes, the inode's space, what it counts for. Growth over a limit is
    /// `ENOSPC` or `EDQUOT`, and more rows that name one extent than it can count are `ENOSPC`.
    pub(crate) fn finish(self, tx: &mut Tx<'_, '_>) -> Outcome<()> {
        self.count_all(tx, false)
    }

    /// As [`MapEdit::finish`] for data whose space was set aside when it was accepted: a limit that was lowered
    /// since then must not lose it.
    pub(crate) fn finish_promised(self, tx: &mut Tx<'_, '_>) -> Outcome<()> {
        self.count_all(tx, true)
    }

    fn count_all(self, tx: &mut Tx<'_, '_>, promised: bool) -> Outcome<()> {
        for (id, (refs, live)) in self.extents {
            if refs == 0 && live == 0 {
                continue;
            }
            let key = keys::extent(id);
            let wrong =
                || RowsError(format!("extent {id}, named by the map of inode {}, is miscounted", self.ino));
            let mut extent: Extent = tx.get(&key)?.ok_or_else(wrong)?;
            let refs = i64::from(extent.refs) + refs;
            if refs > i64::from(u32::MAX) {
                return Err(Errno::ENOSPC.into());
            }
            extent.refs = u32::try_from(refs).map_err(|_| wrong())?;
            extent.live = extent.live.checked_add_signed(live).ok_or_else(wrong)?;
            tx.put(key, &extent);
            if extent.refs == 0 {
                tx.put(keys::dead_extent(id), &Empty);
            }
        }
        tx.charge(self.ino, self.added, self.removed, promised)
    }
}
