//! Seals plaintext into extents on fragment stores and reads it back verified.
//!
//! [`Extents`] is one session's writer and reader: it hands out extent ids in order, makes an extent durable on every
//! slot of a group before anybody may name it, and keeps the *settled* mark below which no id is in flight.
//! [`memory::MemoryStore`] is a store for tests.

mod counters;
mod extents;
pub mod memory;
mod pieces;

pub use extents::{Extents, Group, ReadExtentError, SealError};
