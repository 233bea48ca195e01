//! Seals plaintext into extents on fragment stores and reads it back verified.
//!
//! [`Extents`] is one session's writer and reader: it hands out extent ids in order, makes an extent durable on every
//! present slot of a group before anybody may name it, and keeps the *settled* mark below which no id is in flight.
//! The groups come from a [`Placement`], which it tells of disks and copies that fail.
//! [`memory::MemoryStore`] is a store for tests.

mod counters;
mod extents;
pub mod memory;
mod pieces;
mod placement;

pub use extents::{Extents, ReadExtentError, SealError};
pub use placement::{BadCopy, FixedPlacement, Group, Placement, Slot, capacity, space};
