//! Which files use which extents.

use types::{ExtentId, Ino, VolumeId};

use crate::keys::{self, kind};
use crate::row;
use crate::row::data::{Map, MapData};
use crate::rows::{Rows, RowsError};

/// Visits every part of a file of a volume that lies in an extent: the file, the extent, and how many bytes; in order of
/// the inode numbers, until `each` answers `false`. What truncates cut off and is not yet reclaimed is among them.
///
/// # Errors
/// Rows that cannot be read or are not what this program writes.
pub fn maps(
    rows: &dyn Rows,
    volume: VolumeId,
    each: &mut dyn FnMut(Ino, ExtentId, u64) -> bool,
) -> Result<(), RowsError> {
    let prefix = keys::prefix(volume, kind::MAP);
    row::scan(rows, &prefix, &keys::after(&prefix), false, &mut |key, map: Map| match map.data {
        MapData::Extent { id, .. } => each(keys::map_ino(key), id, map.len),
        MapData::Unwritten => true,
    })
}
