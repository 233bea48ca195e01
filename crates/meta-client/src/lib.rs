//! A mount's way to its volume's partition: slots, retries, reads.
//!
//! [`MetaService`] is the border to the service, in this process or on another node. [`Session`] is one mount's
//! registration with it: every command of the mount goes through one of its 256 slots, so that it takes effect once,
//! whatever is repeated. [`Exclusive`] is what a mount uses that nobody else changes the volume beside: it runs its
//! commands itself, answers at once, and sends them in their order; what it ran is in an arena's journal, from which
//! [`Exclusive::resume`] goes on after its death. [`memory::MemoryService`] is a service for tests.

mod exclusive;
pub mod memory;
mod owed;
mod service;
mod session;
mod slots;

pub use exclusive::{Exclusive, ExclusiveOptions, Place, ResumeError};
pub use service::{CallError, MetaFuture, MetaService};
pub use session::{OpenSessionError, Session, SessionError};
