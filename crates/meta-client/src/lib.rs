//! A mount's way to its volume's partition: slots, retries, reads.
//!
//! [`MetaService`] is the border to the service, in this process or on another node. [`Session`] is one mount's
//! registration with it: every command of the mount goes through one of its 256 slots, so that it takes effect once,
//! whatever is repeated. [`memory::MemoryService`] is a service for tests.

pub mod memory;
mod owed;
mod service;
mod session;
mod slots;

pub use service::{CallError, MetaFuture, MetaService};
pub use session::{OpenSessionError, Session, SessionError};
