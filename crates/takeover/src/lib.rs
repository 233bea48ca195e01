//! A model of how a new engine takes over a mount from a dead one, checked state by state.
//!
//! Two applications, one kernel connection, an arena, a metadata service with command slots, and engines that may die
//! between any two of their steps. [`Takeover`] is the model for stateright; its tests explore every state of small
//! scopes, and show that each [`Mistake`] breaks a property. What it proves, and what the engine has to do because of
//! it, is in docs/decisions/2026-11-21-takeover-model.md.
//!
//! An atomic step of the model is one store to the arena, one message, or one system call on the kernel's descriptor.
//! A slot's store and its message are one step, after which a death may lose the message.
//! Left out: lost messages while an engine lives (a repeat of a slot is harmless, `namespace` tests that), FUSE_INTERRUPT,
//! the death of the node, and the bytes of data: a file is one value.

mod arena;
mod engine;
mod file;
mod history;
mod kernel;
mod model;
mod recovery;
mod scope;
mod serve;
mod service;
mod state;

pub use model::{Action, Takeover};
pub use scope::{Mistake, Mode, Op, Scope};
pub use state::State;

#[cfg(test)]
mod tests;
