//! Quotas: what lies below a directory is counted, and limited.
//!
//! Each inode has a label: the nearest directory with a quota that it lies in (itself included), or none. It counts
//! for that quota and for all around it. The label is that of its directory when it is made, and no name moves from
//! under one label to under another (`EXDEV`), so no count needs a walk: it changes with the inode's own rows.
//!
//! Only a quota that is set on, or taken from, a directory that has names already needs one: the walk gives each
//! inode below its new label, in steps. One walk at a time in a volume; until its end old and new label are both
//! right in the tree, and what is renamed between them gets the label of where it goes.

use alloc::format;
use alloc::vec::Vec;
use types::{Errno, Ino};

use crate::command::Reply;
use crate::keys::{self, KeyReader, class, kind};
use crate::query::{FileKind, QuotaState};
use crate::row;
use crate::row::Empty;
use crate::row::names::Dentry;
use crate::row::project::{NONE, Project, UNLIMITED, Unvisited, Use};
use crate::rows::{Rows, RowsError};
use crate::tx::{Outcome, Tx};

/// Names that one command may look at.
const STEPS_MAX: usize = 1_000;

/// The project of a label and all around it, the innermost first.
pub(crate) fn chain(
    rows: &dyn Rows,
    volume: types::VolumeId,
    label: Ino,
) -> Result<Vec<(Ino, Project)>, RowsError> {
    let mut chain: Vec<(Ino, Project)> = Vec::new();
    let mut at = label;
    while at != NONE {
        let row: Option<Project> = row::get(rows, &keys::of_inode(volume, kind::PROJECT, at))?;
        let Some(project) = row.filter(|_| chain.iter().all(|(seen, _)| *seen != at)) else {
            return Err(RowsError(format!("project {label} lies in project {at}, which is not there")));
        };
        chain.push((at, project));
        at = project.outer;
    }
    Ok(chain)
}

/// An inode with this label takes `added` more and gives back `removed`, in its project and all around it. `EDQUOT` if
/// one of them grows beyond its limit and `refuse` is set.
pub(crate) fn count(tx: &mut Tx<'_, '_>, label: Ino, added: Use, removed: Use, refuse: bool) -> Outcome<()> {
    for (at, mut project) in chain(tx.over, tx.id, label)? {
        project.add(added);
        project.sub(removed);
        let bytes = added.bytes > removed.bytes && project.bytes > project.limit_bytes;
        let inodes = added.inodes > removed.inodes && project.inodes > project.limit_inodes;
        if refuse && (bytes || inodes) {
            return Err(Errno::EDQUOT.into());
        }
        store(tx, at, &project);
    }
    Ok(())
}

/// A removed quota whose last inode went goes with it.
fn store(tx: &mut Tx<'_, '_>, at: Ino, project: &Project) {
    let key = keys::of_inode(tx.id, kind::PROJECT, at);
    if project.state == QuotaState::Removed && project.inodes == 0 {
        tx.over.delete(key);
    } else {
        tx.put(key, project);
    }
}

fn load(tx: &Tx<'_, '_>, at: Ino) -> Result<Option<Project>, RowsError> {
    tx.get(&keys::of_inode(tx.id, kind::PROJECT, at))
}

/// What counted for `from` counts for `to` from now on; what is around both sees no change.
fn transfer(tx: &mut Tx<'_, '_>, from: Ino, to: Ino, used: Use) -> Outcome<()> {
    let (old, new) = (chain(tx.over, tx.id, from)?, chain(tx.over, tx.id, to)?);
    let among = |all: &[(Ino, Project)], at: Ino| all.iter().any(|(other, _)| *other == at);
    for (at, mut project) in new.iter().copied().filter(|(at, _)| !among(&old, *at)) {
        project.add(used);
        store(tx, at, &project);
    }
    for (at, mut project) in old.iter().copied().filter(|(at, _)| !among(&new, *at)) {
        project.sub(used);
        store(tx, at, &project);
    }
    Ok(())
}

/// The inode gets another label.
fn relabel(tx: &mut Tx<'_, '_>, ino: Ino, to: Ino) -> Outcome<()> {
    let inode = tx.edit(ino)?;
    let (from, used) = (inode.project, Use { bytes: inode.allocated, inodes: 1 });
    inode.project = to;
    transfer(tx, from, to, used)
}

/// A project lies in another one from now on.
fn set_outer(tx: &mut Tx<'_, '_>, at: Ino, to: Ino) -> Outcome<()> {
    let Some(mut project) = load(tx, at)? else { return Ok(()) };
    let from = core::mem::replace(&mut project.outer, to);
    store(tx, at, &project);
    transfer(tx, from, to, project.used())
}

/// Sets limits of the directory, `None` leaves one as it is; of the root: the volume's own. A directory without a quota
/// gets one, and the walk begins. `EBUSY` if another walk is under way, `EINVAL` without any limit.
pub(crate) fn set(tx: &mut Tx<'_, '_>, dir: Ino, bytes: Option<u64>, inodes: Option<u64>) -> Outcome<Reply> {
    if bytes.is_none() && inodes.is_none() {
        return Err(Errno::EINVAL.into());
    }
    let around = tx.dir(dir)?.project;
    if dir == Ino::ROOT {
        tx.volume.quota_bytes = bytes.unwrap_or(tx.volume.quota_bytes);
        tx.volume.quota_inodes = inodes.unwrap_or(tx.volume.quota_inodes);
        return Ok(Reply::Left(0));
    }
    let known = load(tx, dir)?;
    let (limit_bytes, limit_inodes) = (bytes.unwrap_or(UNLIMITED), inodes.unwrap_or(UNLIMITED));
    let project = match known {
        Some(project) if matches!(project.state, QuotaState::Set | QuotaState::Counting) => {
            let limit_bytes = bytes.unwrap_or(project.limit_bytes);
            let limit_inodes = inodes.unwrap_or(project.limit_inodes);
            store(tx, dir, &Project { limit_bytes, limit_inodes, ..project });
            return Ok(Reply::Left(unvisited(tx)?));
        }
        _ if tx.volume.counting != NONE => return Err(Errno::EBUSY.into()),
        // Nameless inodes of a quota that was removed still count for it.
        Some(project) => {
            set_outer(tx, dir, around)?;
            Project { outer: around, limit_bytes, limit_inodes, state: QuotaState::Counting, ..project }
        }
        None => Project {
            outer: around,
            limit_bytes,
            limit_inodes,
            bytes: 0,
            inodes: 0,
            state: QuotaState::Counting,
        },
    };
    store(tx, dir, &project);
    begin(tx, dir, dir)
}

/// Takes the quota of a directory away; of the root: the volume's own limits. `ENODATA` if there is none, `EBUSY` if a
/// walk is under way.
pub(crate) fn remove(tx: &mut Tx<'_, '_>, dir: Ino) -> Outcome<Reply> {
    tx.dir(dir)?;
    if dir == Ino::ROOT {
        if (tx.volume.quota_bytes, tx.volume.quota_inodes) == (UNLIMITED, UNLIMITED) {
            return Err(Errno::ENODATA.into());
        }
        (tx.volume.quota_bytes, tx.volume.quota_inodes) = (UNLIMITED, UNLIMITED);
        return Ok(Reply::Left(0));
    }
    let project = match load(tx, dir)? {
        None | Some(Project { state: QuotaState::Removed, .. }) => return Err(Errno::ENODATA.into()),
        Some(Project { state: QuotaState::Removing, .. }) => return Ok(Reply::Left(unvisited(tx)?)),
        Some(_) if tx.volume.counting != NONE => return Err(Errno::EBUSY.into()),
        Some(project) => project,
    };
    let limits = (UNLIMITED, UNLIMITED);
    let (limit_bytes, limit_inodes) = limits;
    store(tx, dir, &Project { limit_bytes, limit_inodes, state: QuotaState::Removing, ..project });
    begin(tx, dir, project.outer)
}

/// A walk begins at the directory, which gets the new label, and goes as far as one command may.
fn begin(tx: &mut Tx<'_, '_>, dir: Ino, to: Ino) -> Outcome<Reply> {
    tx.volume.counting = dir;
    relabel(tx, dir, to)?;
    to_be_visited(tx, dir);
    step(tx, STEPS_MAX as u32)
}

fn to_be_visited(tx: &mut Tx<'_, '_>, dir: Ino) {
    let key = keys::reclaim(tx.id, class::UNVISITED, dir.0);
    tx.put(key, &Unvisited { cursor: 0 });
}

/// How many directories the walk has still to look into, at least.
fn unvisited(tx: &Tx<'_, '_>) -> Result<u32, RowsError> {
    let rows = keys::reclaim_class(tx.id, class::UNVISITED);
    let mut count = 0;
    tx.over.scan(&rows, &keys::after(&rows), false, &mut |_, _| {
        count += 1;
        (count as usize) < STEPS_MAX
    })?;
    Ok(count)
}

/// The labels of the walk that is under way: what has the first gets the second.
#[derive(Clone, Copy)]
struct Walk {
    from: Ino,
    to: Ino,
    is_removal: bool,
}

fn walk(tx: &Tx<'_, '_>) -> Result<Option<Walk>, RowsError> {
    let dir = tx.volume.counting;
    if dir == NONE {
        return Ok(None);
    }
    Ok(load(tx, dir)?.and_then(|project| match project.state {
        QuotaState::Counting => Some(Walk { from: project.outer, to: dir, is_removal: false }),
        QuotaState::Removing => Some(Walk { from: dir, to: project.outer, is_removal: true }),
        // The directory itself was removed: nothing is below it.
        QuotaState::Set | QuotaState::Removed => None,
    }))
}

/// Looks at no more than `steps` names; answers how many directories are left, at least.
pub(crate) fn step(tx: &mut Tx<'_, '_>, steps: u32) -> Outcome<Reply> {
    let mut left = (steps as usize).min(STEPS_MAX);
    let rows = keys::reclaim_class(tx.id, class::UNVISITED);
    while left > 0 {
        let Some((key, Unvisited { cursor })) = tx.first(&rows, &keys::after(&rows))? else {
            finish(tx)?;
            break;
        };
        let dir = Ino(keys::last_u64(&key));
        let looked = match walk(tx)? {
            Some(walk) => visit(tx, walk, dir, cursor, left)?,
            None => Vec::new(),
        };
        match looked.last() {
            Some(cursor) if looked.len() == left => tx.put(key, &Unvisited { cursor: *cursor }),
            _ => tx.over.delete(key),
        }
        left = left.saturating_sub(looked.len() + 1);
    }
    let unvisited = unvisited(tx)?;
    if unvisited == 0 {
        finish(tx)?;
    }
    Ok(Reply::Left(unvisited))
}

/// Names of the directory behind the cursor get their labels; their cookies.
fn visit(tx: &mut Tx<'_, '_>, walk: Walk, dir: Ino, cursor: u64, max: usize) -> Outcome<Vec<u64>> {
    let from = keys::dentry(tx.id, dir, cursor.saturating_add(1));
    let to = keys::after(&keys::of_inode(tx.id, kind::DENTRY, dir));
    let mut names = Vec::new();
    row::scan(tx.over, &from, &to, false, &mut |key, Dentry { ino, .. }| {
        names.push((keys::last_u64(key), ino));
        names.len() < max
    })?;
    for (_, ino) in &names {
        adopt(tx, walk, *ino)?;
    }
    Ok(names.into_iter().map(|(cookie, _)| cookie).collect())
}

/// Gives what is named in a directory of the new label that label too, if it has the old one.
fn adopt(tx: &mut Tx<'_, '_>, walk: Walk, ino: Ino) -> Outcome<()> {
    let inode = tx.inode(ino)?;
    let (label, is_dir, nlink) = (inode.project, inode.is_dir(), inode.nlink);
    if label == ino {
        return match load(tx, ino)? {
            Some(project) if project.outer == walk.from => set_outer(tx, ino, walk.to),
            _ => Ok(()),
        };
    }
    // A file that has a name outside counts there: so a name can never be where its file does not count.
    if label != walk.from || nlink > 1 && !is_dir && !walk.is_removal && !named_only_in(tx, ino, walk.to)? {
        return Ok(());
    }
    relabel(tx, ino, walk.to)?;
    if is_dir {
        to_be_visited(tx, ino);
    }
    Ok(())
}

/// Whether all names of a file with several are in directories of this label.
fn named_only_in(tx: &mut Tx<'_, '_>, ino: Ino, label: Ino) -> Outcome<bool> {
    let prefix = keys::of_inode(tx.id, kind::PARENT, ino);
    let mut dirs = Vec::new();
    row::scan(tx.over, &prefix, &keys::after(&prefix), false, &mut |key, _: Empty| {
        let dir = KeyReader::open(key).and_then(|(_, _, mut rest)| rest.u64().and_then(|_| rest.u64()));
        dirs.extend(dir.map(Ino));
        true
    })?;
    for dir in dirs {
        if tx.inode(dir)?.project != label {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The walk is at its end.
fn finish(tx: &mut Tx<'_, '_>) -> Outcome<()> {
    let dir = core::mem::replace(&mut tx.volume.counting, NONE);
    if let Some(project) = load(tx, dir)? {
        let state = match project.state {
            QuotaState::Counting => QuotaState::Set,
            QuotaState::Removing => QuotaState::Removed,
            state => state,
        };
        store(tx, dir, &Project { state, ..project });
    }
    Ok(())
}

/// A directory is removed, and its quota with it.
pub(crate) fn drop_dir(tx: &mut Tx<'_, '_>, dir: Ino) -> Outcome<()> {
    if tx.inode(dir)?.project == dir
        && let Some(project) = load(tx, dir)?
    {
        let (limit_bytes, limit_inodes) = (UNLIMITED, UNLIMITED);
        store(tx, dir, &Project { limit_bytes, limit_inodes, state: QuotaState::Removed, ..project });
    }
    Ok(())
}

/// A name of the inode goes from a directory of one label to one of another: `EXDEV`, unless a walk is giving both
/// the same one.
pub(crate) fn rename(tx: &mut Tx<'_, '_>, ino: Ino, from: Ino, to: Ino) -> Outcome<()> {
    let inode = tx.inode(ino)?;
    let (label, is_dir, nlink) = (inode.project, inode.kind == FileKind::Directory, inode.nlink);
    let counts_in = match label == ino {
        true => load(tx, ino)?.map_or(NONE, |project| project.outer),
        false => label,
    };
    if counts_in == to {
        return Ok(());
    }
    match walk(tx)? {
        Some(walk) if counts_in == walk.from && to == walk.to => adopt(tx, walk, ino),
        // A file with a name outside counts there, wherever inside it is called what.
        _ if from == to => Ok(()),
        Some(walk) if counts_in == walk.to && to == walk.from && !is_dir && nlink == 1 => {
            relabel(tx, ino, to)
        }
        _ => Err(Errno::EXDEV.into()),
    }
}
