//! FUSE mounts as such, without a request ever being looked at but the first: who mounts need not be who serves.
//!
//! [`mount`] puts a mount in place and answers the device behind it; [`shake_hands`] answers the kernel's FUSE_INIT on
//! it. From then on whoever has a copy of the device serves the mount, with no more to know than the [`Place`] and what
//! was [`Agreed`].
//!
//! | module | what it does |
//! |---|---|
//! | `place` | the mount as a whole: made, looked up, taken away |
//! | `point` | the mount point: found, judged, cleared of dead mounts |
//! | `privileged`, `fusermount` | mounting as root, and as a user |
//! | `table` | the mount table |
//! | `init` | what is agreed with the kernel, as data |
//! | `resend` | how requests come back whose reader is dead |

mod fusermount;
mod init;
mod place;
mod point;
mod privileged;
mod resend;
mod table;

pub use init::{
    Agreed, BACKGROUND_MAX, CONGESTED_FROM, InitError, NEEDED, TRANSFER_MAX, WANTED, names_of, shake_hands,
};
pub use place::{Look, MountError, Mounted, Place, Way, check_mount_point, mount};
pub use resend::{RESENT, ask_for_resend};
pub use table::{Row, rows};
