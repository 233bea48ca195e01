//! What a running `up` has done since its start: a crash in which a part had not run says nothing about it.

use anyhow::ensure;

use crate::served::{Served, number};

/// The parts that have to run in each cycle.
#[derive(Clone, Copy, Default, Debug)]
pub struct Seen {
    /// Times that the metadata log was purged.
    pub purges: u64,
    /// Times that a disk wrote a checkpoint.
    pub checkpoints: u64,
    /// Most bytes that were accepted and lay in the arena only.
    pub accepted: u64,
    /// Most commands that were answered and lay in the mount's journal only.
    pub journaled: u64,
    /// Windows of files that compaction wrote anew.
    pub compacted: u64,
    /// Dead extents whose space was reclaimed.
    pub reclaimed: u64,
}

impl Seen {
    /// Looks once more.
    pub fn look(&mut self, served: &Served) -> anyhow::Result<()> {
        let status = served.status()?;
        let number = |pointer: &str| number(&status, pointer);
        self.purges = number("/metadata/purges")?;
        self.checkpoints = number("/disks/0/checkpoints")?;
        self.accepted = self.accepted.max(number("/mounts/0/dirty_bytes")?);
        self.journaled = self.journaled.max(number("/mounts/0/pending_commands")?);
        self.compacted = number("/mounts/0/compacted_windows")?;
        self.reclaimed = number("/data/reclaimed")?;
        Ok(())
    }

    /// Each part that has not run yet.
    fn missing(&self) -> Vec<&'static str> {
        let parts = [
            ("purge of the log", self.purges),
            ("checkpoint", self.checkpoints),
            ("write in the arena only", self.accepted),
            ("command in the mount's journal only", self.journaled),
            ("compaction", self.compacted),
            ("reclaim", self.reclaimed),
        ];
        parts.into_iter().filter(|(_, count)| *count == 0).map(|(part, _)| part).collect()
    }

    /// Whether all parts ran.
    pub fn is_all(&self) -> bool {
        self.missing().is_empty()
    }

    /// The cycle is void if a part did not run.
    pub fn check(&self, cycle: u64) -> anyhow::Result<()> {
        let missing = self.missing();
        ensure!(missing.is_empty(), "void: no {} in cycle {cycle}", missing.join(", no "));
        Ok(())
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Seen { purges, checkpoints, compacted, reclaimed, .. } = self;
        write!(
            f,
            "{purges} purges, {checkpoints} checkpoints, {compacted} windows compacted, {reclaimed} extents reclaimed"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[test]
    fn a_part_that_did_not_run_makes_a_cycle_void() {
        let all = Seen { purges: 1, checkpoints: 1, accepted: 1, journaled: 1, compacted: 1, reclaimed: 1 };
        assert!(all.is_all() && all.check(0).is_ok());
        let text = Seen { compacted: 0, reclaimed: 0, ..all }.check(3).expect_err("void").to_string();
        assert_eq!(text, "void: no compaction, no reclaim in cycle 3");
    }
}
