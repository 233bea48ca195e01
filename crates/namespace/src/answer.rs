//! Questions.

use alloc::vec::Vec;
use types::{Errno, ExtentId, Ino, SessionId, VolumeId};

use crate::journal;
use crate::keys::{self, kind};
use crate::map;
use crate::names;
use crate::projects;
use crate::query::{Answer, DirEntry, DiskRow, ExtentRow, FileKind, GroupRow, MapSegment, Query, QuotaState};
use crate::row;
use crate::row::Empty;
use crate::row::cluster::{Disk, Group, VolumeName};
use crate::row::data::{Extent, INLINE_MAX, Inline, MapData};
use crate::row::inode::{self, Inode};
use crate::row::names::{Dentry, Target, Xattr};
use crate::row::project::Project;
use crate::row::session::Session;
use crate::row::volume::Volume;
use crate::rows::{Rows, RowsError};
use crate::scattered::scattered;
use crate::tx::{Fail, Outcome, live_inode};
use crate::xattrs;

/// Answers a question from the rows.
///
/// # Errors
/// Rows that cannot be read or are not what this program writes. A question is never the cause.
pub fn query(rows: &dyn Rows, query: &Query) -> Result<Answer, RowsError> {
    match answer(rows, query) {
        Ok(answer) => Ok(answer),
        Err(Fail::Errno(errno)) => Ok(Answer::Failed(errno)),
        Err(Fail::Fenced) => Ok(Answer::Failed(Errno::ESTALE)),
        Err(Fail::Rows(error)) => Err(error),
    }
}

fn answer(rows: &dyn Rows, query: &Query) -> Outcome<Answer> {
    match query {
        Query::Lookup { volume, parent, name } => lookup(rows, *volume, *parent, name),
        Query::GetAttr { volume, ino } => Ok(Answer::Attr(live(rows, *volume, *ino)?.attr(*ino))),
        Query::Parent { volume, ino } => match dir(rows, *volume, *ino)?.parent {
            Ino(0) => Err(Errno::ENOENT.into()),
            parent => Ok(Answer::Parent(parent)),
        },
        Query::ReadDir { volume, ino, after, max, attrs } => {
            read_dir(rows, *volume, *ino, *after, *max as usize, *attrs)
        }
        Query::ReadLink { volume, ino } => {
            if live(rows, *volume, *ino)?.kind != FileKind::Symlink {
                return Err(Errno::EINVAL.into());
            }
            let key = keys::of_inode(*volume, kind::SYMLINK, *ino);
            let target: Target = row::get(rows, &key)?.ok_or_else(|| lost("target", *ino))?;
            Ok(Answer::Bytes(target.path))
        }
        Query::GetXattr { volume, ino, name } => {
            live(rows, *volume, *ino)?;
            xattrs::check(name)?;
            let row: Option<Xattr> = row::get(rows, &keys::xattr(*volume, *ino, name))?;
            Ok(Answer::Bytes(row.ok_or(Errno::ENODATA)?.value))
        }
        Query::ListXattr { volume, ino } => list_xattr(rows, *volume, *ino),
        Query::Map { volume, ino, start, end, max } => {
            file_map(rows, *volume, *ino, *start..*end, *max as usize)
        }
        Query::VolumeByName { name } => {
            let row: Option<VolumeName> = row::get(rows, &keys::volume_name(name))?;
            volume_info(rows, row.ok_or(Errno::ENOENT)?.volume)
        }
        Query::Volume { volume } => volume_info(rows, *volume),
        Query::Volumes => volumes(rows),
        Query::Quotas { volume, after, max } => quotas(rows, *volume, *after, *max as usize),
        Query::QuotasOf { volume, ino } => {
            let chain = projects::chain(rows, *volume, live(rows, *volume, *ino)?.project)?;
            Ok(Answer::Quotas(chain.iter().map(|(dir, project)| project.info(*dir)).collect()))
        }
        Query::Path { volume, ino } => path(rows, *volume, *ino),
        Query::Groups => groups(rows),
        Query::Disks => disks(rows),
        Query::Sessions { volume } => sessions(rows, *volume),
        Query::DeadExtents { volume, max } => dead_extents(rows, *volume, *max as usize),
        Query::Scattered { volume, ino, start, look } => {
            scattered(rows, *volume, (*ino, *start), *look as usize)
        }
        Query::Garbage { ids } => garbage(rows, ids),
        Query::ExtentRows { ids } => extent_rows(rows, ids),
        Query::RowsAt { keys } => {
            let mut found = Vec::new();
            for key in keys {
                found.extend(rows.get(key)?.map(|value| (key.clone(), value)));
            }
            Ok(Answer::Rows(found))
        }
        Query::Rows { from, to, max } => stored_rows(rows, from, to, *max as usize),
        Query::Time => Ok(Answer::Time(journal::applied_time(rows)?)),
    }
}

fn live(rows: &dyn Rows, volume: VolumeId, ino: Ino) -> Outcome<Inode> {
    Ok(live_inode(rows, volume, ino)?.ok_or(Errno::ESTALE)?)
}

fn dir(rows: &dyn Rows, volume: VolumeId, ino: Ino) -> Outcome<Inode> {
    let inode = live(rows, volume, ino)?;
    if inode.is_dir() { Ok(inode) } else { Err(Errno::ENOTDIR.into()) }
}

fn volume_row(rows: &dyn Rows, volume: VolumeId) -> Outcome<Volume> {
    Ok(row::get(rows, &keys::volume(volume))?.ok_or(Errno::ENOENT)?)
}

/// A row that another row promises.
fn lost(what: &str, ino: Ino) -> RowsError {
    RowsError(alloc::format!("inode {ino} has no {what} row"))
}

fn lookup(rows: &dyn Rows, volume: VolumeId, parent: Ino, name: &[u8]) -> Outcome<Answer> {
    dir(rows, volume, parent)?;
    names::check(name)?;
    let (_, dentry) =
        names::find(rows, volume, &volume_row(rows, volume)?, parent, name)?.ok_or(Errno::ENOENT)?;
    Ok(Answer::Attr(named(rows, volume, dentry.ino)?.attr(dentry.ino)))
}

fn named(rows: &dyn Rows, volume: VolumeId, ino: Ino) -> Result<Inode, RowsError> {
    row::get(rows, &keys::inode(volume, ino))?.ok_or_else(|| lost("inode", ino))
}

fn read_dir(
    rows: &dyn Rows,
    volume: VolumeId,
    ino: Ino,
    after: u64,
    max: usize,
    attrs: bool,
) -> Outcome<Answer> {
    dir(rows, volume, ino)?;
    let mut entries = Vec::new();
    if max > 0 && after < u64::MAX {
        let from = keys::dentry(volume, ino, after.max(2) + 1);
        let to = keys::after(&keys::of_inode(volume, kind::DENTRY, ino));
        row::scan(rows, &from, &to, false, &mut |key, Dentry { ino, kind, name }| {
            entries.push(DirEntry { cookie: keys::last_u64(key), ino, kind, name, attr: None });
            entries.len() < max
        })?;
    }
    if attrs {
        for entry in &mut entries {
            entry.attr = Some(named(rows, volume, entry.ino)?.attr(entry.ino));
        }
    }
    Ok(Answer::Entries(entries))
}

fn list_xattr(rows: &dyn Rows, volume: VolumeId, ino: Ino) -> Outcome<Answer> {
    live(rows, volume, ino)?;
    let prefix = keys::of_inode(volume, kind::XATTR, ino);
    let mut names = Vec::new();
    rows.scan(&prefix, &keys::after(&prefix), false, &mut |key, _| {
        names.push(key[prefix.len()..].to_vec());
        true
    })?;
    Ok(Answer::Names(names))
}

fn file_map(
    rows: &dyn Rows,
    volume: VolumeId,
    ino: Ino,
    range: core::ops::Range<u64>,
    max: usize,
) -> Outcome<Answer> {
    let inode = live(rows, volume, ino)?;
    match inode.kind {
        FileKind::File => {}
        FileKind::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    let attr = inode.attr(ino);
    let mut prefix = Vec::new();
    if inode.has(inode::INLINE) {
        let key = keys::of_inode(volume, kind::INLINE, ino);
        prefix = row::get::<Inline>(rows, &key)?.ok_or_else(|| lost("inline", ino))?.bytes;
    }
    if inode.size == 0 || (inode.has(inode::INLINE) && inode.size <= INLINE_MAX) {
        prefix.resize(inode.size as usize, 0);
        return Ok(Answer::Inline { bytes: prefix, attr });
    }
    let segments = segments(rows, volume, ino, &inode, range, max)?;
    Ok(Answer::Map { prefix, segments, attr })
}

/// The segments that touch the range; what truncates cut off is not among them.
fn segments(
    rows: &dyn Rows,
    volume: VolumeId,
    ino: Ino,
    inode: &Inode,
    range: core::ops::Range<u64>,
    max: usize,
) -> Outcome<Vec<MapSegment>> {
    let tail = map::tail(rows, volume, ino, inode)?;
    let mut segments = Vec::new();
    let mut from = range.start;
    // Rows that are cut off do not count, so there may be more to read.
    while segments.len() < max {
        let wanted = max - segments.len();
        let found = map::touching(rows, volume, ino, from, range.end, wanted)?;
        for (start, row) in &found {
            from = start + row.len;
            if tail.has(*start, row) {
                continue;
            }
            let data = match row.data {
                MapData::Unwritten => None,
                MapData::Extent { id, offset } => {
                    let extent: Extent =
                        row::get(rows, &keys::extent(id))?.ok_or_else(|| lost("extent", ino))?;
                    Some((extent.row(id), offset))
                }
            };
            segments.push(MapSegment { start: *start, len: row.len, data });
        }
        if found.len() < wanted {
            break;
        }
    }
    Ok(segments)
}

fn volume_info(rows: &dyn Rows, volume: VolumeId) -> Outcome<Answer> {
    Ok(Answer::Volume(volume_row(rows, volume)?.info(volume)))
}

fn volumes(rows: &dyn Rows) -> Outcome<Answer> {
    let prefix = keys::prefix(keys::CLUSTER, kind::NAME);
    let mut ids = Vec::new();
    row::scan(rows, &prefix, &keys::after(&prefix), false, &mut |_, row: VolumeName| {
        ids.push(row.volume);
        true
    })?;
    let mut volumes = Vec::new();
    for id in ids {
        volumes.push(volume_row(rows, id)?.info(id));
    }
    Ok(Answer::Volumes(volumes))
}

fn quotas(rows: &dyn Rows, volume: VolumeId, after: Ino, max: usize) -> Outcome<Answer> {
    let from = keys::of_inode(volume, kind::PROJECT, Ino(after.0.saturating_add(1)));
    let to = keys::after(&keys::prefix(volume, kind::PROJECT));
    let mut quotas = Vec::new();
    row::scan(rows, &from, &to, false, &mut |key, row: Project| {
        if quotas.len() < max && row.state != QuotaState::Removed {
            quotas.push(row.info(Ino(keys::last_u64(key))));
        }
        quotas.len() < max
    })?;
    Ok(Answer::Quotas(quotas))
}

fn path(rows: &dyn Rows, volume: VolumeId, ino: Ino) -> Outcome<Answer> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut at = ino;
    while at != Ino::ROOT {
        let inode = dir(rows, volume, at)?;
        if inode.nlink == 0 {
            return Err(Errno::ENOENT.into());
        }
        let dentry: Option<Dentry> = row::get(rows, &keys::dentry(volume, inode.parent, inode.cookie))?;
        names.push(dentry.ok_or_else(|| lost("dentry", at))?.name);
        at = inode.parent;
    }
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    Ok(Answer::Bytes(if path.is_empty() { b"/".to_vec() } else { path }))
}

fn groups(rows: &dyn Rows) -> Outcome<Answer> {
    let prefix = keys::prefix(keys::CLUSTER, kind::GROUP);
    let mut groups = Vec::new();
    row::scan(rows, &prefix, &keys::after(&prefix), false, &mut |key, row: Group| {
        groups.push(GroupRow { id: keys::group_of(key), epoch: row.epoch, slots: row.slots });
        true
    })?;
    Ok(Answer::Groups(groups))
}

fn disks(rows: &dyn Rows) -> Outcome<Answer> {
    let prefix = keys::prefix(keys::CLUSTER, kind::DISK);
    let mut disks = Vec::new();
    row::scan(rows, &prefix, &keys::after(&prefix), false, &mut |key, row: Disk| {
        let disk = key.last_chunk::<16>().copied().unwrap_or_default();
        disks.push(DiskRow { disk, bytes: row.bytes, retired: row.retired });
        true
    })?;
    Ok(Answer::Disks(disks))
}

fn sessions(rows: &dyn Rows, volume: VolumeId) -> Outcome<Answer> {
    let prefix = keys::prefix(volume, kind::SESSION);
    let mut sessions = Vec::new();
    row::scan(rows, &prefix, &keys::after(&prefix), false, &mut |key, row: Session| {
        sessions.push(row.info(volume, SessionId(keys::last_u64(key))));
        true
    })?;
    Ok(Answer::Sessions(sessions))
}

fn dead_extents(rows: &dyn Rows, volume: VolumeId, max: usize) -> Outcome<Answer> {
    let prefix = keys::reclaim_class(volume, keys::class::DEAD_EXTENT);
    let mut ids = Vec::new();
    if max > 0 {
        row::scan(rows, &prefix, &keys::after(&prefix), false, &mut |key, _: Empty| {
            ids.extend(key.last_chunk::<16>().map(ExtentId::from_bytes));
            ids.len() < max
        })?;
    }
    let mut extents: Vec<ExtentRow> = Vec::with_capacity(ids.len());
    for id in ids {
        extents.extend(row::get::<Extent>(rows, &keys::extent(id))?.map(|extent| extent.row(id)));
    }
    Ok(Answer::Extents(extents))
}

/// What an agent may delete. Asked after it listed them: an id without a row whose session may still commit it stays.
fn garbage(rows: &dyn Rows, ids: &[ExtentId]) -> Outcome<Answer> {
    let mut garbage = Vec::new();
    for id in ids {
        let Some(volume) = row::get::<Volume>(rows, &keys::volume(id.volume))? else { continue };
        let spent = match row::get::<Session>(rows, &keys::session(id.volume, id.session))? {
            Some(session) => id.counter < session.settled,
            // Never opened yet: nothing of it can be here, so something is wrong with the id; hands off.
            None => id.session.0 > 0 && id.session < volume.next_session,
        };
        if spent && rows.get(&keys::extent(*id))?.is_none() {
            garbage.push(*id);
        }
    }
    Ok(Answer::Garbage(garbage))
}

fn stored_rows(rows: &dyn Rows, from: &[u8], to: &[u8], max: usize) -> Outcome<Answer> {
    let mut found = Vec::new();
    if from < to && max > 0 {
        rows.scan(from, to, false, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            found.len() < max
        })?;
    }
    Ok(Answer::Rows(found))
}

fn extent_rows(rows: &dyn Rows, ids: &[ExtentId]) -> Outcome<Answer> {
    let mut extents = Vec::new();
    for id in ids {
        let row = row::get::<Extent>(rows, &keys::extent(*id))?.filter(|extent| extent.refs > 0);
        extents.extend(row.map(|extent| extent.row(*id)));
    }
    Ok(Answer::Extents(extents))
}
