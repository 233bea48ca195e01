//! The state machine of a volume's files and directories: rows in, rows out.
//!
//! Pure: no clock, no randomness, no I/O. Time and ids come in with the [`Entry`]; equal entries over equal rows
//! give equal rows. [`apply`] changes rows, [`query`] reads them.
#![no_std]
extern crate alloc;

mod command;
mod query;
mod rows;

pub use command::{
    Command, Commit, Content, Cred, Entry, Envelope, FallocateMode, NewExtent, NewKind, RenameMode, Reply,
    Segment, SetAttr, SetTime, SlotRef, XattrMode,
};
pub use query::{Answer, Attr, DirEntry, ExtentRow, FileKind, MapSegment, Query, SessionInfo, VolumeInfo};
pub use rows::{Batch, Rows, RowsError, Write};
