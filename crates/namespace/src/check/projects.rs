//! Quotas: every inode counts for the one it lies in, and what they say is what is counted.

use alloc::collections::{BTreeMap, BTreeSet};
use types::Ino;

use super::data::AnyBody;
use super::tree::numbers;
use super::{Check, Fault, Inodes};
use crate::keys::{self, class, kind};
use crate::query::{FileKind, QuotaState};
use crate::row::names::Dentry;
use crate::row::project::{NONE, Project, Unvisited, Use};
use crate::row::volume::Volume;
use crate::rows::RowsError;

type Projects = BTreeMap<Ino, Project>;

/// A label and all around it; `None` if one of them is not there, or they go in a circle.
fn chain(projects: &Projects, label: Ino) -> Option<BTreeSet<Ino>> {
    let mut chain = BTreeSet::new();
    let mut at = label;
    while at != NONE {
        if !chain.insert(at) {
            return None;
        }
        at = projects.get(&at)?.outer;
    }
    Some(chain)
}

impl Check<'_> {
    /// `U`, the labels of inodes, and what a walk has still to look into.
    pub(super) fn projects(&mut self, volume: &Volume, inodes: &Inodes) -> Result<(), RowsError> {
        let mut projects = Projects::new();
        self.each(kind::PROJECT, |_, key, row: Project| {
            projects.insert(Ino(keys::last_u64(key)), row);
        })?;
        let unvisited = self.unvisited(inodes)?;
        let mut counted: BTreeMap<Ino, Use> = BTreeMap::new();
        for (ino, seen) in inodes {
            let label = seen.inode.project;
            let Some(chain) = chain(&projects, label) else {
                self.problem(&keys::inode(self.id, Ino(*ino)), Fault::NoProject(label));
                continue;
            };
            for at in chain {
                let sum = counted.entry(at).or_insert(Use { bytes: 0, inodes: 0 });
                sum.bytes = sum.bytes.saturating_add(seen.allocated);
                sum.inodes += 1;
            }
        }
        for (at, project) in &projects {
            let key = keys::of_inode(self.id, kind::PROJECT, *at);
            let sum = counted.get(at).copied().unwrap_or(Use { bytes: 0, inodes: 0 });
            self.compare(&key, "bytes", project.bytes, sum.bytes);
            self.compare(&key, "inodes", project.inodes, sum.inodes);
            let dir = inodes.get(&at.0).filter(|seen| seen.inode.is_dir() && seen.inode.nlink > 0);
            let labelled = dir.is_some_and(|seen| seen.inode.project == *at);
            let right = match project.state {
                QuotaState::Counting => labelled && volume.counting == *at,
                QuotaState::Set => labelled && volume.counting != *at,
                QuotaState::Removing => !labelled && volume.counting == *at,
                QuotaState::Removed => !labelled && project.inodes > 0,
            };
            if !right {
                self.problem(&key, Fault::WrongState);
            }
        }
        // A walk is over as soon as nothing is left of it.
        if (volume.counting != NONE) == unvisited.is_empty() {
            self.problem(&keys::volume(self.id), Fault::WrongState);
        }
        if projects.is_empty() { Ok(()) } else { self.labels(volume, inodes, &projects, &unvisited) }
    }

    /// Directories that the walk has still to look into.
    fn unvisited(&mut self, inodes: &Inodes) -> Result<BTreeSet<u64>, RowsError> {
        let mut unvisited = BTreeSet::new();
        let mut lost = None;
        self.each(kind::RECLAIM, |check, key, _: AnyBody| {
            if key[keys::PREFIX] != class::UNVISITED {
                return;
            }
            let dir = keys::last_u64(key);
            if inodes.get(&dir).is_some_and(|seen| !seen.inode.is_dir()) {
                check.problem(key, Fault::WrongState);
            }
            unvisited.insert(dir);
            if let Err(error) = check.one::<Unvisited>(key) {
                lost = Some(error);
            }
        })?;
        lost.map_or(Ok(unvisited), Err)
    }

    /// What has a name counts for what its directory counts for.
    fn labels(
        &mut self,
        volume: &Volume,
        inodes: &Inodes,
        projects: &Projects,
        unvisited: &BTreeSet<u64>,
    ) -> Result<(), RowsError> {
        let walked = projects.get(&volume.counting);
        let old_label = walked.map(|project| match project.state {
            QuotaState::Counting => project.outer,
            _ => volume.counting,
        });
        self.each(kind::DENTRY, |check, key, row: Dentry| {
            let (Some(dir), Some(child)) = (inodes.get(&numbers(key).0), inodes.get(&row.ino.0)) else {
                return;
            };
            let (label, of_dir) = (child.inode.project, dir.inode.project);
            let counts_for = match label == row.ino {
                true => projects.get(&label).map_or(NONE, |project| project.outer),
                false => label,
            };
            // A file may have, or have had, a name outside, where it counts.
            let outside = row.kind != FileKind::Directory
                && (counts_for == NONE
                    || chain(projects, of_dir).is_some_and(|all| all.contains(&counts_for)));
            let waits = unvisited.contains(&numbers(key).0) && old_label == Some(counts_for);
            if counts_for != of_dir && !outside && !waits {
                check.problem(key, Fault::OtherProject { counts_for, dir: of_dir });
            }
        })
    }
}
