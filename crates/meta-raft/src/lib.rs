//! One partition of the metadata service: openraft over our log and our row store.
//!
//! Only this crate names openraft and lsm-tree. [`open`] runs a [`Partition`] on the [`Executor`] of a thread: a
//! [`RowStore`] for the rows, a [`LogBackend`] for the log, a [`StateMachine`] for what the commands mean.

mod log;
mod lsm_rows;
mod machine;
mod network;
mod partition;
mod raft_types;
mod record;
mod rows;
mod runtime;
mod sim_rows;
mod stop;

pub use log::{JournalLog, LogBackend, LogError, MemoryLog, Recovered};
pub use lsm_rows::{FrozenRows, LsmRows, LsmView, MakeRoom, Room, RowsOpenError};
pub use machine::{Namespace, StateMachine};
pub use partition::{Beat, Figures, OpenError, Partition, Setup, entries, open};
pub use record::{Ballot, Payload, Position, Record};
pub use rows::{Applied, FormatError, Members, RowStore, RowView, SyncError};
pub use runtime::{Executor, sleep, spawn};
pub use sim_rows::{SimRows, SimView};
pub use stop::Stopped;
