//! Shared memory that holds a mount's accepted writes and commands.
//!
//! [`Arena::accept`] copies a write once into a memfd, as a record that survives the engine but not the node; the
//! bytes stay visible through [`Arena::overlay`] until a commit has made them the file's ([`Arena::mapped`]).
//! The [`Journal`] beside them holds the commands that an exclusive mount has run itself, as bytes that only their owner
//! reads. [`Arena::recover`] rebuilds everything from the memfd alone, after an engine that died at any point.
//!
//! The memfd is read and written by system calls, not through a mapping: running out of memory is then an error value
//! and not a SIGBUS, freeing a chunk interrupts no other core, and nothing here is unsafe. The layout is drawn in
//! docs/FORMATS/arena.md.

mod arena;
mod chunks;
mod entry;
mod index;
mod journal;
mod late_errors;
mod layout;
mod memory;
mod pieces;
mod recover;
mod recover_journal;
mod ring;
#[cfg(test)]
mod tests;

pub use arena::{AcceptError, Arena, CreateError, Options, Write};
pub use index::{Record, Summary};
pub use journal::{AppendError, Entry, Journal, RanEntry};
pub use late_errors::LateError;
pub use layout::{LayoutError, Owner};
pub use memory::MemoryFailed;
pub use recover::{DamagedRecord, RecoverError, Recovery};
pub use recover_journal::{FoundEntry, FoundJournal};
