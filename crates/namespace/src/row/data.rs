//! `N`, `M`, `E`: what a file's bytes are.

use alloc::vec::Vec;
use types::{ExtentId, GroupId, LayoutId};

use crate::query::ExtentRow;
use crate::wire::{wire_enum, wire_struct};

/// The most bytes of an `N` row, which stands for the file's first unit.
pub(crate) const INLINE_MAX: u64 = 4096;

/// `N`, by inode: the file's first bytes. While there is one, no map row starts below [`INLINE_MAX`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Inline {
    /// 1 to [`INLINE_MAX`]; zeros follow up to [`INLINE_MAX`] or the file's end.
    pub(crate) bytes: Vec<u8>,
}
wire_struct!(Inline { bytes });

/// What a map row stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MapData {
    /// Space set aside that reads as zeros; any length.
    Unwritten,
    /// A part of an extent from `offset` on; at most 1 MiB.
    Extent { id: ExtentId, offset: u32 },
}
wire_enum!(MapData {
    0 => Unwritten,
    1 => Extent { id, offset },
});

/// `M`, by inode and start. No two rows of an inode overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Map {
    pub(crate) len: u64,
    /// The inode's `map_gen` when it was written; see [`super::reclaim::Tail`].
    pub(crate) generation: u32,
    pub(crate) data: MapData,
}
wire_struct!(Map { len, generation, data });

impl Map {
    /// The part from `from` bytes into the row, `len` bytes long.
    pub(crate) fn part(self, from: u64, len: u64) -> Map {
        let data = match self.data {
            MapData::Unwritten => MapData::Unwritten,
            // `from` is inside the row, so inside its extent, whose offsets are 32 bits wide.
            MapData::Extent { id, offset } => MapData::Extent { id, offset: offset + from as u32 },
        };
        Map { len, data, ..self }
    }
}

/// `E`, by extent id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    pub(crate) group: GroupId,
    pub(crate) layout: LayoutId,
    pub(crate) codec: u32,
    pub(crate) plain_len: u32,
    pub(crate) stored_len: u32,
    pub(crate) content_crc: u32,
    /// Map rows that name it; at 0 it is dead for good, and listed as such.
    pub(crate) refs: u32,
    /// Bytes of those rows.
    pub(crate) live: u64,
}
wire_struct!(Extent { group, layout, codec, plain_len, stored_len, content_crc, refs, live });

impl Extent {
    pub(crate) fn row(&self, id: ExtentId) -> ExtentRow {
        ExtentRow {
            id,
            group: self.group,
            layout: self.layout,
            codec: self.codec,
            plain_len: self.plain_len,
            stored_len: self.stored_len,
            content_crc: self.content_crc,
        }
    }
}

/// 4 KiB units that `start..start + len` touches, in bytes.
pub(crate) fn units(start: u64, len: u64) -> u64 {
    (start + len).div_ceil(types::BLOCK) * types::BLOCK - start / types::BLOCK * types::BLOCK
}
