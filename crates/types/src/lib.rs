//! Names, numbers and errno values that every crate shares.
//!
//! Nothing here does I/O or knows a format: a type says what a number means, and a conversion says what may go wrong.
#![no_std]
extern crate alloc;

mod errno;
mod ids;
mod size;
mod time;

pub use errno::Errno;
pub use ids::{
    Dseq, Epoch, ExtentId, FragmentId, FragmentKind, Grant, GroupId, Ino, LayoutId, SessionId, VolumeId,
};
pub use size::{ByteOffset, ByteSize, SizeError};
pub use time::Nanos;

/// The unit of checksums, of allocation and of file usage, in bytes.
pub const BLOCK: u64 = 4096;

/// The most plaintext that one extent may hold, in bytes.
pub const EXTENT_MAX: u64 = 1 << 20;
