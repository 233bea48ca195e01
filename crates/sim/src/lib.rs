//! Runs the real store, log and state machine through simulated crashes.
//!
//! Each component has a module with one `run(seed, points)`: it drives the real code on a simulated disk with seeded
//! workloads, cuts the power after every prefix of every operation's I/O, recovers and compares with what was
//! acknowledged. What it saw comes back as a [`Report`]. The program (`cargo run --release -p sim`) runs them all,
//! once as they are and once for each planted bug.

pub mod meta;
pub mod report;
pub mod store;

pub use report::{Report, Violation};

/// One part of the system that is crashed on its own.
#[derive(Clone, Copy)]
pub struct Component {
    /// Its name in reports and for `--component`.
    pub name: &'static str,
    /// Runs it from `seed` until about `points` distinct crash points were seen, or a violation was.
    pub run: fn(seed: u64, points: u64) -> Report,
}

/// Every component that can be simulated.
pub const COMPONENTS: &[Component] =
    &[Component { name: "store", run: store::run }, Component { name: "metadata", run: meta::run }];
