//! The state machine of a volume's files and directories: rows in, rows out.
//!
//! Pure: no clock, no randomness, no I/O. Time and ids come in with the [`Entry`]; equal entries over equal rows
//! give equal rows. [`apply`] changes rows, [`query`] reads them.
#![no_std]
extern crate alloc;

mod acl;
mod answer;
mod apply;
mod attrs;
mod check;
mod cluster;
mod command;
mod commit;
mod copy;
mod describe;
mod encoding;
mod fallocate;
mod files;
mod groups;
mod journal;
mod keys;
mod map;
mod memory;
mod names;
mod overlay;
mod projects;
mod query;
mod reclaim;
mod remove;
mod rename;
mod restored;
mod rewrite;
mod row;
mod rows;
mod scattered;
mod sessions;
mod slots;
#[cfg(test)]
mod tests;
mod truncate;
mod tx;
mod wire;
mod xattrs;

pub use answer::query;
pub use apply::apply;
pub use check::{Fault, PROBLEMS_MAX, Problem, check, extents};
pub use command::{
    Command, Commit, Content, Cred, Entry, Envelope, FallocateMode, NewExtent, NewKind, RenameMode, Reply,
    Segment, SetAttr, SetTime, SlotRef, XattrMode,
};
pub use describe::describe;
pub use encoding::{
    ENTRY_COMMANDS_MAX, decode_entry, decode_envelope, decode_journaled, decode_reply, digest, encode_entry,
    encode_envelope, encode_journaled, encode_reply,
};
pub use files::maps;
pub use journal::{
    Expected, Home, JOURNAL_COMMANDS_MAX, Journaled, Single, any_slot, ends_among_siblings, has_no_map, home,
    inode_key, is_for_space, is_inode_row, predict, siblings,
};
pub use keys::{NAMESPACE_TABLE, RAFT_TABLE};
pub use memory::MemoryRows;
pub use query::{
    Answer, Attr, DirEntry, DiskRow, ExtentRow, FileKind, GroupRow, GroupSlot, MapSegment, Query, QuotaInfo,
    QuotaState, Scattered, SessionInfo, SlotState, VolumeInfo,
};
pub use rows::{Batch, Rows, RowsError, Write};
pub use wire::DecodeError;
