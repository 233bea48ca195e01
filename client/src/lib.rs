//! The engine of this node's mounts: session, arena, extents, semantics and the kernel, put together.
//!
//! [`start`] opens a volume and mounts it; the [`Mount`] it answers runs until it is unmounted, by
//! [`Mount::unmount`] or by anybody else, and [`Mount::stop`] then writes what is left and closes the session.
//!
//! A process that mounts needs a tokio runtime with its timer and at least two worker threads: requests that wait,
//! the flusher and the heartbeat run there.

mod figures;
mod heartbeat;
mod mount;
mod start;

pub use extents::Placement;
pub use figures::Figures;
pub use fuse::{
    BUCKETS, Ended, Failures, Holder, LATENCY_BOUNDS_US, MountError, OpFigures, OpKind, UnmountError,
    ask_for_short_slices, check_mount_point, share_heaps,
};
pub use mount::{FlushError, Mount, StopError};
pub use start::{MountOptions, StartError, start};
