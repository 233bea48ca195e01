//! The pure half of fsck: do the rows of a volume agree with each other?

mod data;
mod holds;
mod projects;
mod tree;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use types::VolumeId;

use crate::keys::{self, KeyReader, kind};
use crate::query::{ExtentRow, GroupSlot, SlotState};
use crate::row;
use crate::row::cluster::{Clock, Counters, Disk, Group, Node, Restored, VolumeName};
use crate::row::data::Extent;
use crate::row::inode::Inode;
use crate::row::volume::Volume;
use crate::rows::{Rows, RowsError};
use crate::wire::Wire;

/// Problems that one check lists; the first are the ones to look at.
pub const PROBLEMS_MAX: usize = 1_000;

/// Rows between two calls of a check's `progress`.
const PROGRESS: u64 = 4_096;

/// Something that no sequence of commands leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The row at which it shows, in words.
    pub row: String,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.row, self.fault)
    }
}

/// What can be wrong with a row.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant's message says what it means
pub enum Fault {
    #[error("the row cannot be read: {0}")]
    Unreadable(String),
    #[error("no row of this kind is known")]
    UnknownKind,
    #[error("the volume has no row, or its name does not lead to it")]
    NoVolume,
    #[error("it belongs to an inode that does not exist")]
    NoInode,
    #[error("the directory that holds it does not exist or has been removed")]
    NoDirectory,
    #[error("no file can have this name")]
    BadName,
    #[error("the directory holds this name twice")]
    NameTwice,
    #[error("its cookie is not that of its name")]
    WrongCookie,
    #[error("it says {said}, but the inode is {is}")]
    WrongKind { said: &'static str, is: &'static str },
    #[error("the inode does not lead back to this name")]
    NoWayBack,
    #[error("there is no such name")]
    NoSuchName,
    #[error("{field} is {stored}, but {counted} are counted")]
    Miscounted { field: &'static str, stored: u64, counted: u64 },
    #[error("it cannot be reached from the root")]
    Unreachable,
    #[error("it has no name, and {0}")]
    Nameless(&'static str),
    #[error("it has a name, or is gone, but is held as if it had none")]
    HeldWithName,
    #[error("a flag of the inode says otherwise")]
    WrongFlag,
    #[error("its length is not one that it can have")]
    WrongLength,
    #[error("it lies behind the end of the file")]
    BehindEnd,
    #[error("it overlaps the row before it")]
    Overlap,
    #[error("it names extent {0}, which does not exist or has no such range")]
    NoExtent(types::ExtentId),
    #[error("nothing names it, but it is not listed as dead")]
    DeadUnlisted,
    #[error("it is listed as dead, but is not")]
    ListedAlive,
    #[error("it is no access control list that its inode can have, or the mode says otherwise")]
    WrongAcl,
    #[error("its session is neither open nor being reclaimed")]
    NoSession,
    #[error("the group {0}")]
    BadGroup(&'static str),
    #[error("its number has not been given out yet")]
    NumberAhead,
    #[error("it counts for project {0}, which does not exist")]
    NoProject(types::Ino),
    #[error("it counts for project {counts_for}, but its directory for {dir}")]
    OtherProject { counts_for: types::Ino, dir: types::Ino },
    #[error("its state is not that of its directory, or of the volume")]
    WrongState,
}

/// Compares all rows of a volume with each other: names and inodes lead to each other, counts are right, maps do not
/// overlap, extents are named as often as they say, nothing is left over. Volume 0 is the list of volumes and groups.
///
/// Reads every row once, and holds the volume's inodes in memory. `progress` hears how many rows have been read.
///
/// # Errors
/// Rows that the store cannot read. Rows that are there but wrong are problems, at most [`PROBLEMS_MAX`].
pub fn check(
    rows: &dyn Rows,
    volume: VolumeId,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Problem>, RowsError> {
    let mut check = Check { rows, id: volume, progress, read: 0, problems: Vec::new() };
    if volume == keys::CLUSTER {
        check.cluster()?;
    } else {
        check.volume()?;
    }
    let read = check.read;
    (check.progress)(read);
    Ok(check.problems)
}

/// Visits every extent row of a volume, in order of id, with whether a file's map names it, until `each` answers
/// `false`. A store can be compared with them.
///
/// # Errors
/// Rows that cannot be read or are not what this program writes.
pub fn extents(
    rows: &dyn Rows,
    volume: VolumeId,
    each: &mut dyn FnMut(ExtentRow, bool) -> bool,
) -> Result<(), RowsError> {
    let prefix = keys::prefix(volume, kind::EXTENT);
    row::scan(rows, &prefix, &keys::after(&prefix), false, &mut |key, extent: Extent| match KeyReader::open(
        key,
    )
    .and_then(|(_, _, mut rest)| rest.extent())
    {
        Some(id) => each(extent.row(id), extent.refs > 0),
        None => true,
    })
}

struct Check<'a> {
    rows: &'a dyn Rows,
    id: VolumeId,
    progress: &'a mut dyn FnMut(u64),
    read: u64,
    problems: Vec<Problem>,
}

/// An inode, and what the other rows say about it.
struct Seen {
    inode: Inode,
    names: u32,
    subdirs: u32,
    pointers: u32,
    allocated: u64,
    xattr_bytes: u64,
    inline: bool,
    target: bool,
    pinned: bool,
    condemned: bool,
    tail: row::reclaim::Tail,
    has_tail: bool,
}

type Inodes = BTreeMap<u64, Seen>;

impl Check<'_> {
    fn problem(&mut self, key: &[u8], fault: Fault) {
        if self.problems.len() < PROBLEMS_MAX {
            let row = crate::describe::key_name(key).unwrap_or_else(|| crate::describe::key_text(key));
            self.problems.push(Problem { row, fault });
        }
    }

    /// `fault` unless the two are equal.
    fn compare(&mut self, key: &[u8], field: &'static str, stored: u64, counted: u64) {
        if stored != counted {
            self.problem(key, Fault::Miscounted { field, stored, counted });
        }
    }

    /// The row under a key; one that cannot be read is a problem, and as good as none.
    fn one<T: Wire>(&mut self, key: &[u8]) -> Result<Option<T>, RowsError> {
        let Some(value) = self.rows.get(key)? else { return Ok(None) };
        match row::body(&value) {
            Ok(row) => Ok(Some(row)),
            Err(why) => {
                self.problem(key, Fault::Unreadable(why.to_string()));
                Ok(None)
            }
        }
    }

    /// Every readable row of a kind whose key is whole.
    fn each<T: Wire>(
        &mut self,
        kind: u8,
        mut each: impl FnMut(&mut Self, &[u8], T),
    ) -> Result<(), RowsError> {
        let prefix = keys::prefix(self.id, kind);
        let rows = self.rows;
        rows.scan(&prefix, &keys::after(&prefix), false, &mut |key, value| {
            self.read += 1;
            if self.read.is_multiple_of(PROGRESS) {
                (self.progress)(self.read);
            }
            if crate::describe::key_name(key).is_none() {
                self.problem(key, Fault::UnknownKind);
                return true;
            }
            match row::body(value) {
                Ok(row) => each(self, key, row),
                Err(why) => self.problem(key, Fault::Unreadable(why.to_string())),
            }
            true
        })
    }

    fn cluster(&mut self) -> Result<(), RowsError> {
        let counters: Option<Counters> = self.one(&keys::counters())?;
        self.each(kind::CLOCK, |_, _, _: Clock| {})?;
        self.each(kind::NODE, |_, _, _: Node| {})?;
        self.each(kind::RESTORED, |_, _, _: Restored| {})?;
        let ahead = |volume: u32, group: u32| {
            counters.as_ref().is_none_or(|next| volume >= next.volume.0 || group >= next.group.0)
        };
        let mut disks = BTreeMap::new();
        self.each(kind::DISK, |_, key, row: Disk| {
            disks.insert(key.last_chunk::<16>().copied().unwrap_or_default(), row);
        })?;
        let mut groups = 0;
        self.each(kind::GROUP, |check, key, row: Group| {
            groups += 1;
            if ahead(0, keys::group_of(key).0) {
                check.problem(key, Fault::NumberAhead);
            }
            if let Some(why) = bad_slots(&row, &disks) {
                check.problem(key, Fault::BadGroup(why));
            }
        })?;
        // None ever goes, so the next number tells how many there are.
        let given = counters.as_ref().map_or(0, |next| u64::from(next.group.0.saturating_sub(1)));
        self.compare(&keys::counters(), "groups", given, groups);
        let mut lost = None;
        self.each(kind::NAME, |check, key, row: VolumeName| {
            if ahead(row.volume.0, 0) {
                check.problem(key, Fault::NumberAhead);
            }
            match check.one::<Volume>(&keys::volume(row.volume)) {
                Ok(Some(volume)) if key.ends_with(&volume.name) => {}
                Ok(_) => check.problem(key, Fault::NoVolume),
                Err(error) => lost = Some(error),
            }
        })?;
        lost.map_or(Ok(()), Err)
    }

    fn volume(&mut self) -> Result<(), RowsError> {
        self.unknown_kinds()?;
        let key = keys::volume(self.id);
        let mut volume = None;
        self.each(kind::VOLUME, |_, _, row: Volume| volume = Some(row))?;
        let Some(volume) = volume else {
            self.problem(&key, Fault::NoVolume);
            return Ok(());
        };
        let name: Option<VolumeName> = self.one(&keys::volume_name(&volume.name))?;
        if name.is_none_or(|name| name.volume != self.id) {
            self.problem(&key, Fault::NoVolume);
        }
        let mut inodes = self.inodes(&volume)?;
        self.holds(&volume, &mut inodes)?;
        self.names(&volume, &mut inodes)?;
        self.reachable(&inodes);
        self.data(&mut inodes)?;
        let mut used = 0;
        for (ino, seen) in &inodes {
            let key = keys::inode(self.id, types::Ino(*ino));
            self.compare(&key, "allocated", seen.inode.allocated, seen.allocated);
            self.compare(&key, "xattr bytes", u64::from(seen.inode.xattr_bytes), seen.xattr_bytes);
            used += seen.allocated;
        }
        self.projects(&volume, &inodes)?;
        self.compare(&key, "used", volume.used, used);
        self.compare(&key, "inodes", volume.inodes, inodes.len() as u64);
        Ok(())
    }

    /// Keys of the volume's range whose kind nothing reads.
    fn unknown_kinds(&mut self) -> Result<(), RowsError> {
        let known: BTreeSet<u8> = [
            kind::VOLUME,
            kind::INODE,
            kind::DENTRY,
            kind::PARENT,
            kind::INLINE,
            kind::MAP,
            kind::EXTENT,
            kind::XATTR,
            kind::SYMLINK,
            kind::SESSION,
            kind::SLOT,
            kind::WRITER,
            kind::PINNED,
            kind::RECLAIM,
            kind::PROJECT,
        ]
        .into();
        let mut from = keys::prefix(self.id, 0);
        let end = keys::after(&from[..keys::PREFIX - 1]);
        let rows = self.rows;
        // One row of each kind: the scan leaps over the rest.
        loop {
            let mut next = None;
            rows.scan(&from, &end, false, &mut |key, _| {
                let kind = key[keys::PREFIX - 1];
                if !known.contains(&kind) {
                    self.problem(key, Fault::UnknownKind);
                }
                next = kind.checked_add(1);
                false
            })?;
            match next {
                Some(kind) => from = keys::prefix(self.id, kind),
                None => return Ok(()),
            }
        }
    }
}

/// What no command makes of a group.
fn bad_slots(group: &Group, disks: &BTreeMap<[u8; 16], Disk>) -> Option<&'static str> {
    let slots = &group.slots;
    if slots.is_empty() || slots.len() > crate::groups::SLOTS_MAX {
        return Some("has no slot, or too many");
    }
    if slots.iter().enumerate().any(|(at, slot)| slots[..at].iter().any(|other| other.disk == slot.disk)) {
        return Some("has a disk twice");
    }
    if slots.iter().all(|slot| slot.state != SlotState::In) {
        return Some("has no slot that holds all of its data");
    }
    let usable = |slot: &GroupSlot| match disks.get(&slot.disk) {
        Some(disk) => !disk.retired || slot.state == SlotState::Absent,
        None => false,
    };
    if slots.iter().all(usable) { None } else { Some("has a disk that is not in use") }
}

#[cfg(test)]
mod tests;
