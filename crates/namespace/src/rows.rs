//! The border to the row store: ordered keys, read singly or by range, changed in one atomic batch.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A consistent view of ordered rows. Keys order as byte strings.
pub trait Rows {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError>;

    /// Calls `each` with the rows of `from..to` in order (last first if `backward`) until it answers `false`.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        backward: bool,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError>;
}

/// One row's change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// The row now has this value.
    Put(Vec<u8>),
    /// There is no such row any more.
    Delete,
}

/// Changes that take effect together or not at all; each key once, in key order.
pub type Batch = Vec<(Vec<u8>, Write)>;

/// The rows cannot be read, or are not what this program writes. Never a reply: it stops the voter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowsError(pub String);

impl fmt::Display for RowsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for RowsError {}
