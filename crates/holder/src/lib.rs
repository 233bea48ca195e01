//! The process that keeps mounts while engines come and go, and the way to it.
//!
//! A mount lives as long as somebody holds its device, and what its engine has accepted lives as long as somebody holds
//! its arena. The holder is that somebody: it mounts, answers the kernel's first request, keeps every descriptor,
//! starts the engine as its child, and starts another one when that dies. It never looks at file data, and knows
//! neither a runtime nor the formats of what it keeps.
//!
//! An engine, a second keeper and a holder's successor all speak to it through a [`Keeper`]; docs/FORMATS has the
//! protocol.
//!
//! | module | what it does |
//! |---|---|
//! | `begin` | how a holder begins: its socket, its mounts |
//! | `holder`, `rules` | the loop: who comes, who dies; what a message does |
//! | `peer` | one that speaks to the holder, and what waits to be said to it |
//! | `engine` | the engine's process: started, watched, started again after a pause |
//! | `replace` | a newer engine in the place of one that serves |
//! | `kept` | what is kept |
//! | `keeper` | the other side: the engine's, or a second keeper's |
//! | `wire`, `socket` | messages as bytes, and their way with descriptors |
//! | `oom` | whom the kernel ends first when memory is short |

mod begin;
mod engine;
mod holder;
mod keeper;
mod kept;
mod oom;
mod peer;
mod replace;
mod rules;
mod socket;
mod wire;

pub use begin::{HoldError, Options, Plan, Start};
pub use holder::{Ended, hold};
pub use keeper::{Keeper, KeeperError};
pub use kept::{Change, Item, KeptMount, Name, NameError, Taken};
pub use wire::{BadMessage, Role};
