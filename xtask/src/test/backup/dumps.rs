//! What has been given out, as the dumps of a stopped data directory tell.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::served::Up;
use crate::{shell, tree};

/// Ids of extents and numbers of inodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Used {
    /// Extents that have a row.
    rows: BTreeSet<String>,
    /// Extents that have a fragment on the disk.
    fragments: BTreeSet<String>,
    inodes: BTreeSet<u64>,
}

impl Used {
    /// Reads rows and the disk's index, which is whole in its checkpoint after an orderly stop.
    pub fn read(up: &Up) -> anyhow::Result<Used> {
        let dump = |what: &str| {
            shell::read(Command::new(tree::holdfast()).args(["dump", "--data"]).arg(&up.data).arg(what))
                .with_context(|| format!("dump {what}"))
        };
        let rows = dump("rows")?;
        let after = |line: &str, word: &str| -> Option<String> {
            let rest = line.split_once(word)?.1;
            Some(rest.split([':', ' ']).next()?.to_string())
        };
        let extents = rows.lines().filter_map(|line| after(line, "volume 1 extent "));
        let inodes = rows.lines().filter_map(|line| after(line, "volume 1 inode "));
        // group/extent/layout/index
        let checkpoint = dump("checkpoint")?;
        let fragments = checkpoint.lines().filter_map(|line| {
            let parts: Vec<&str> = line.split(' ').next()?.split('/').collect();
            (parts.len() == 4 && parts[1].split('.').count() == 3).then(|| parts[1].to_string())
        });
        let used = Used {
            rows: extents.collect(),
            fragments: fragments.collect(),
            inodes: inodes.filter_map(|ino| ino.parse().ok()).collect(),
        };
        ensure!(!used.rows.is_empty() && !used.fragments.is_empty(), "the dumps show no extents");
        ensure!(used.inodes.len() > 10, "the dumps show no inodes");
        Ok(used)
    }

    /// What is in here and in none of `earlier`, and there is some, has numbers that are above all of theirs.
    pub fn is_above(&self, earlier: &[&Used]) -> anyhow::Result<()> {
        let all = |used: &Used| -> BTreeSet<(u64, u64)> {
            used.rows.union(&used.fragments).filter_map(|id| session(id)).collect()
        };
        let before: BTreeSet<(u64, u64)> = earlier.iter().flat_map(|used| all(used)).collect();
        let newest = before.last().context("there were no extents")?.0;
        let now = all(self);
        let fresh: Vec<&(u64, u64)> = now.difference(&before).collect();
        ensure!(!fresh.is_empty(), "no new extent was made, which proves nothing");
        let again: Vec<_> = fresh.iter().filter(|(session, _)| *session <= newest).collect();
        ensure!(again.is_empty(), "extents of sessions up to {newest} were sealed again: {again:?}");
        let inodes: BTreeSet<u64> = earlier.iter().flat_map(|used| used.inodes.iter().copied()).collect();
        let last = inodes.last().context("there were no inodes")?;
        let fresh: Vec<&u64> = self.inodes.difference(&inodes).collect();
        ensure!(!fresh.is_empty(), "no new inode was made, which proves nothing");
        ensure!(
            fresh.iter().all(|ino| *ino > last),
            "inode numbers up to {last} were given out again: {fresh:?}"
        );
        Ok(())
    }

    /// Fragments of `earlier` that no row names here are still on the disk.
    pub fn still_has(&self, earlier: &Used) -> anyhow::Result<()> {
        let unnamed: Vec<_> = earlier.fragments.difference(&self.rows).collect();
        ensure!(!unnamed.is_empty(), "everything on the disk is named, which proves nothing");
        let gone: Vec<_> = unnamed.into_iter().filter(|id| !self.fragments.contains(*id)).collect();
        ensure!(gone.is_empty(), "fragments that another backup may name were freed: {gone:?}");
        Ok(())
    }
}

/// Session and counter of an extent id.
fn session(id: &str) -> Option<(u64, u64)> {
    let mut parts = id.split('.').skip(1);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
