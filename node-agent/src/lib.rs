//! The node agent: this node's disks, and what runs on them in the background.
//!
//! The agent lists and deletes; what may be deleted the metadata service says, asked after the listing:
//! - [`Reclaim`] frees the fragments of extents that nothing names any more;
//! - [`Sweep`] finds fragments that no row ever named, left by writers that died.
//!
//! A [`Keeper`] keeps the placement groups true when disks fail, come back or are given up; [`Fill`] gives slots the
//! copies that they lack, [`Repair`] replaces copies that were found bad.
//!
//! [`Background`] runs all of them, paced. [`Scrub`] reads everything in a period and finds copies that are bad or
//! missing; [`Scrubbing`] is its task. [`verify`] is the offline check of what rows and disks say of each other.

mod agent;
mod background;
mod copies;
mod draw;
mod driving;
mod figures;
mod fill;
mod keeper;
mod reclaim;
mod repair;
mod scrub;
mod sweep;
#[cfg(test)]
mod tests;
pub mod verify;

pub use agent::{CloseError, Disk, DiskStatus, FormatError, NodeAgent, OpenError, Options, format};
pub use background::{Background, Pace};
pub use figures::{Counts, Figures};
pub use fill::{Fill, FillError, FillStep};
pub use keeper::{Keeper, KeeperError};
pub use reclaim::{Reclaim, ReclaimError};
pub use repair::{Repair, RepairError, Repaired};
pub use scrub::{Scrub, ScrubError, ScrubState, Scrubbed, Scrubbing};
pub use sweep::{Sweep, SweepError};
