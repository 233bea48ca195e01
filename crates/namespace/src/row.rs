//! What rows hold: `version u8 | born u64 | body`; drawn in docs/FORMATS/rows.md.

pub(crate) mod cluster;
pub(crate) mod data;
pub(crate) mod inode;
pub(crate) mod names;
pub(crate) mod project;
pub(crate) mod reclaim;
pub(crate) mod session;
pub(crate) mod volume;

use alloc::format;
use alloc::vec::Vec;

use crate::describe;
use crate::rows::{Rows, RowsError};
use crate::wire::{DecodeError, Reader, Wire};

/// The row version that this program writes.
const VERSION: u8 = 1;

/// The snapshot number at which rows are born: there are no snapshots yet.
const BORN: u64 = 0;

/// Bytes before the body.
const HEADER: usize = 9;

/// The body of a row whose key says everything: `P` (by inode, directory and cookie: one for each name while there is
/// more than one) and some of `G`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Empty;

impl Wire for Empty {
    fn write(&self, _: &mut Vec<u8>) {}

    fn read(_: &mut Reader<'_>) -> Result<Empty, DecodeError> {
        Ok(Empty)
    }
}

/// The value of a row with this body.
pub(crate) fn value<T: Wire>(body: &T) -> Vec<u8> {
    // Most fields take as many bytes as in memory. Values are kept, so what is too much is as bad as growing.
    let mut out = Vec::with_capacity(HEADER + size_of::<T>());
    VERSION.write(&mut out);
    BORN.write(&mut out);
    body.write(&mut out);
    out
}

/// The body of a row's value.
pub(crate) fn body<T: Wire>(value: &[u8]) -> Result<T, DecodeError> {
    let mut reader = Reader::new(value);
    match u8::read(&mut reader)? {
        VERSION => {
            u64::read(&mut reader)?;
            reader.whole()
        }
        version => Err(DecodeError::Version(version)),
    }
}

/// [`body`], with the key named in the error.
pub(crate) fn parse<T: Wire>(key: &[u8], value: &[u8]) -> Result<T, RowsError> {
    body(value).map_err(|why| {
        let name = describe::key_name(key).unwrap_or_else(|| describe::key_text(key));
        RowsError(format!("row {name}: {why}"))
    })
}

/// The row under `key`.
pub(crate) fn get<T: Wire>(rows: &dyn Rows, key: &[u8]) -> Result<Option<T>, RowsError> {
    match rows.get(key)? {
        Some(value) => parse(key, &value).map(Some),
        None => Ok(None),
    }
}

/// Visits rows of `from..to` in order, parsed, until `each` answers `false`.
pub(crate) fn scan<T: Wire>(
    rows: &dyn Rows,
    from: &[u8],
    to: &[u8],
    backward: bool,
    each: &mut dyn FnMut(&[u8], T) -> bool,
) -> Result<(), RowsError> {
    let mut broken = None;
    rows.scan(from, to, backward, &mut |key, value| match parse(key, value) {
        Ok(row) => each(key, row),
        Err(error) => {
            broken = Some(error);
            false
        }
    })?;
    broken.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
