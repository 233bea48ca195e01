//! The node agent: this node's disks, and what runs on them in the background.
//!
//! The agent lists and deletes; what may be deleted the metadata service says, asked after the listing:
//! - [`Reclaim`] frees the fragments of extents that nothing names any more;
//! - [`Sweep`] finds fragments that no row ever named, left by writers that died.
//!
//! [`Scrub`] reads everything in a period and tells what is bad; [`Scrubbing`] is its task.
//!
//! [`Background`] runs both, paced. [`verify`] is the offline check of what rows and disks say of each other.

mod agent;
mod background;
mod figures;
mod reclaim;
mod scrub;
mod sweep;
#[cfg(test)]
mod tests;
pub mod verify;

pub use agent::{
    CloseError, Disk, DiskStatus, FormatError, NodeAgent, OpenError, Options, RegisterError, format,
};
pub use background::{Background, Pace};
pub use figures::{Counts, Figures};
pub use reclaim::{Reclaim, ReclaimError};
pub use scrub::{Scrub, ScrubError, ScrubState, Scrubbed, Scrubbing};
pub use sweep::{Sweep, SweepError};
