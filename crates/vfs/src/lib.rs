//! What a system call on a mount means, without FUSE.

mod op;

pub use op::{Ctx, Handle, Op, OpenFlags, Outcome, RenameFlags, StatFs, TimeToLive};
