//! Blocks that did not give back what was written to them: they are not used again.
//!
//! A read that fails makes the run of its fragment suspect, and nothing else: who has a good copy replaces it, and who has
//! none may still want its other bytes. When the fragment leaves, its run is not freed but *withheld*: the journal
//! says so in the batch that lets the fragment go, and every checkpoint from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use types::BLOCK;

use crate::index::Run;

/// So many runs are withheld at most, 257 MiB in all. A disk with more is to be replaced, not used up.
pub(crate) const RUNS_MAX: usize = 256;

/// So many suspects are remembered at most; others are found again when they are read.
const SUSPECTS_MAX: usize = 1_024;

/// What a disk's reads have shown of its blocks.
#[derive(Default)]
pub(crate) struct BadBlocks(Mutex<State>);

#[derive(Default)]
struct State {
    /// First blocks of runs that fragments have.
    suspects: BTreeSet<u64>,
    /// Runs that nobody gets any more.
    withheld: BTreeMap<u64, u32>,
}

impl BadBlocks {
    /// What an open found withheld.
    pub(crate) fn of(runs: impl IntoIterator<Item = Run>) -> BadBlocks {
        let withheld = runs.into_iter().map(|run| (run.block, run.blocks)).collect();
        BadBlocks(Mutex::new(State { suspects: BTreeSet::new(), withheld }))
    }

    /// A fragment on this run, which the caller keeps from being freed, was not read as it was written.
    pub(crate) fn suspect(&self, run: Run) {
        let mut state = self.state();
        if state.suspects.len() < SUSPECTS_MAX {
            state.suspects.insert(run.block);
        }
    }

    /// The fragment on this run is to leave: whether the run is withheld from now on, and the journal is to say so. Asked
    /// again it answers the same.
    pub(crate) fn withhold(&self, run: Run) -> bool {
        let mut state = self.state();
        if state.withheld.contains_key(&run.block) {
            return true;
        }
        if !state.suspects.contains(&run.block) || state.withheld.len() >= RUNS_MAX {
            return false;
        }
        state.suspects.remove(&run.block);
        state.withheld.insert(run.block, run.blocks);
        true
    }

    /// Nobody needs the run any more: whether it may be handed out again.
    pub(crate) fn may_free(&self, run: Run) -> bool {
        let mut state = self.state();
        state.suspects.remove(&run.block);
        !state.withheld.contains_key(&run.block)
    }

    /// Takes back that a run is withheld.
    pub(crate) fn forgive(&self, run: Run) {
        self.state().withheld.remove(&run.block);
    }

    /// Runs that are withheld.
    pub(crate) fn runs(&self) -> Vec<Run> {
        self.state().withheld.iter().map(|(block, blocks)| Run { block: *block, blocks: *blocks }).collect()
    }

    /// How many they are.
    pub(crate) fn count(&self) -> u64 {
        self.state().withheld.len() as u64
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.state().withheld.values().map(|blocks| u64::from(*blocks) * BLOCK).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
