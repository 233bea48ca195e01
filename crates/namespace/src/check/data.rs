//! Inline bytes, maps and extents.

use alloc::collections::{BTreeMap, BTreeSet};
use types::{EXTENT_MAX, ExtentId, Ino};

use super::tree::numbers;
use super::{Check, Fault, Inodes};
use crate::keys::{self, KeyReader, class, kind};
use crate::query::FileKind;
use crate::row::data::{Extent, INLINE_MAX, Inline, Map, MapData, units};
use crate::row::inode;

use crate::rows::RowsError;

/// How often, and with how many bytes, maps name an extent; how far into it.
#[derive(Default)]
struct Named {
    refs: u64,
    live: u64,
    end: u64,
}

fn extent_of(key: &[u8]) -> Option<ExtentId> {
    let (_, kind, mut rest) = KeyReader::open(key)?;
    if kind == kind::RECLAIM {
        rest.byte()?;
    }
    rest.extent()
}

impl Check<'_> {
    /// `N`, `M`, `E` and the list of dead extents.
    pub(super) fn data(&mut self, inodes: &mut Inodes) -> Result<(), RowsError> {
        self.each(kind::INLINE, |check, key, row: Inline| {
            let Some(seen) = inodes.get_mut(&keys::last_u64(key)) else {
                return check.problem(key, Fault::NoInode);
            };
            let len = row.bytes.len() as u64;
            seen.inline = true;
            seen.allocated += types::BLOCK;
            if len == 0 || len > INLINE_MAX || len > seen.inode.size || seen.inode.kind != FileKind::File {
                check.problem(key, Fault::WrongLength);
            }
        })?;
        for (ino, seen) in inodes.iter() {
            if seen.inode.has(inode::INLINE) != seen.inline || seen.inode.has(inode::TAIL) != seen.has_tail {
                self.problem(&keys::inode(self.id, Ino(*ino)), Fault::WrongFlag);
            }
        }
        let named = self.maps(inodes)?;
        self.extents(named)
    }

    fn maps(&mut self, inodes: &mut Inodes) -> Result<BTreeMap<ExtentId, Named>, RowsError> {
        let mut named: BTreeMap<ExtentId, Named> = BTreeMap::new();
        let mut before = (0, 0);
        self.each(kind::MAP, |check, key, row: Map| {
            let (ino, start) = numbers(key);
            let Some(seen) = inodes.get_mut(&ino) else { return check.problem(key, Fault::NoInode) };
            let Some(end) = start.checked_add(row.len).filter(|end| row.len > 0 && *end <= i64::MAX as u64)
            else {
                return check.problem(key, Fault::WrongLength);
            };
            seen.allocated += units(start, row.len);
            if before.0 == ino && start < before.1 {
                check.problem(key, Fault::Overlap);
            }
            before = (ino, end);
            if seen.inode.has(inode::INLINE) && start < INLINE_MAX {
                check.problem(key, Fault::Overlap);
            }
            let cut = seen.tail.has(start, &row);
            if cut && start < seen.tail.cursor {
                check.problem(key, Fault::WrongFlag);
            }
            if let MapData::Extent { id, offset } = row.data {
                if row.len > EXTENT_MAX {
                    check.problem(key, Fault::WrongLength);
                }
                if end > seen.inode.size && !cut && !seen.condemned {
                    check.problem(key, Fault::BehindEnd);
                }
                let named = named.entry(id).or_default();
                named.refs += 1;
                named.live += row.len;
                named.end = named.end.max(u64::from(offset) + row.len);
                if id.volume != check.id {
                    check.problem(key, Fault::NoExtent(id));
                }
            }
            if row.generation > seen.inode.map_gen || seen.inode.kind != FileKind::File {
                check.problem(key, Fault::WrongFlag);
            }
        })?;
        Ok(named)
    }

    fn extents(&mut self, mut named: BTreeMap<ExtentId, Named>) -> Result<(), RowsError> {
        let mut dead = BTreeSet::new();
        self.each(kind::EXTENT, |check, key, row: Extent| {
            let Some(id) = extent_of(key) else { return };
            let counted = named.remove(&id).unwrap_or_default();
            check.compare(key, "references", u64::from(row.refs), counted.refs);
            check.compare(key, "live bytes", row.live, counted.live);
            if counted.end > u64::from(row.plain_len) {
                check.problem(key, Fault::NoExtent(id));
            }
            if row.refs == 0 {
                dead.insert(id);
            }
        })?;
        for id in named.into_keys() {
            self.problem(&keys::extent(id), Fault::NoExtent(id));
        }
        self.each(kind::RECLAIM, |check, key, _: AnyBody| {
            let Some((_, _, mut rest)) = KeyReader::open(key) else { return };
            if rest.byte() == Some(class::DEAD_EXTENT) && !extent_of(key).is_some_and(|id| dead.remove(&id)) {
                check.problem(key, Fault::ListedAlive);
            }
        })?;
        for id in dead {
            self.problem(&keys::extent(id), Fault::DeadUnlisted);
        }
        Ok(())
    }
}

/// A body that somebody else looks at.
pub(super) struct AnyBody;

impl crate::wire::Wire for AnyBody {
    fn write(&self, _: &mut alloc::vec::Vec<u8>) {}

    fn read(from: &mut crate::wire::Reader<'_>) -> Result<AnyBody, crate::wire::DecodeError> {
        from.rest();
        Ok(AnyBody)
    }
}
