//! The kernel's FUSE protocol over the vfs: requests in, replies out, and the mounts that they belong to.
//!
//! Nothing here knows what an operation means. [`Filesystem`] is the border: a request becomes a [`vfs::Op`], and the
//! [`vfs::Outcome`] becomes its reply. A [`Session`] is one mount:
//!
//! | module | what it does |
//! |---|---|
//! | `filesystem` | the trait that is served |
//! | `adapter` | each request as an operation, read and answered by fuser |
//! | `channel` | the same without fuser |
//! | `server` | how an operation is run |
//! | `answer`, `listing`, `convert` | outcomes as replies |
//! | `init` | what is agreed with the kernel; the list, and mounting, are the crate `mounts` |
//! | `holders` | who keeps a mount busy |
//! | `session` | all of it together |
//! | `resume`, `resident` | serving a mount that another process keeps; memory that a kill finds ready |
//! | `figures` | how often and how fast each operation was |
//! | `slice`, `heaps` | how soon threads get a processor, and how much memory is kept for them |

mod adapter;
mod answer;
mod channel;
mod convert;
mod figures;
mod filesystem;
mod heaps;
mod holders;
mod init;
mod listing;
mod resident;
mod resume;
mod server;
mod session;
mod slice;

pub use figures::{BUCKETS, Failures, Figures, LATENCY_BOUNDS_US, OpFigures, OpKind};
pub use filesystem::{Filesystem, OpFuture};
pub use heaps::share_heaps;
pub use holders::Holder;
pub use init::agree;
pub use mounts::{MountError, check_mount_point};
pub use resume::{Kept, ResumeError};
pub use session::{Channel, Config, Ended, Session, UnmountError};
pub use slice::ask_for_short_slices;
