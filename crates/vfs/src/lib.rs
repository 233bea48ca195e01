//! What a system call on a mount means, without FUSE.
//!
//! [`Vfs`] serves one mount that has its volume exclusively: whatever changes on the volume goes through it, so it may
//! remember attributes and let the kernel remember them too. Written data is accepted into the arena, shows at once,
//! and becomes the file's in the order of writing when it is flushed.

mod ahead;
mod attr;
mod compact;
mod copy;
mod dir;
mod errno;
mod flush;
mod flusher;
mod handle;
mod interrupt;
mod landing;
mod layout;
mod names;
mod node;
mod op;
mod open;
mod pack;
mod quota;
mod read;
mod resume;
mod seek;
mod space;
mod table;
mod vfs;
mod write;
mod xattr;

#[cfg(test)]
mod tests;

pub use compact::CompactionFigures;
pub use flusher::FlushAllError;
pub use op::{Ctx, Handle, Listed, Op, OpenFlags, Outcome, RenameFlags, SeekTo, StatFs, TimeToLive};
pub use vfs::{Figures, Parts, Vfs};
