//! One command at work on one volume.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use types::{Errno, Ino, Nanos, SessionId, VolumeId};

use crate::keys;
use crate::overlay::Overlay;
use crate::projects;
use crate::row;
use crate::row::inode::Inode;
use crate::row::project::Use;
use crate::row::session::Pinned;
use crate::row::volume::Volume;
use crate::rows::{Rows, RowsError};
use crate::wire::Wire;

const ONE: Use = Use { bytes: 0, inodes: 1 };
const NOTHING: Use = Use { bytes: 0, inodes: 0 };

/// Why a command did nothing.
pub(crate) enum Fail {
    /// It is refused.
    Errno(Errno),
    /// Its session is closed.
    Fenced,
    /// The voter stops.
    Rows(RowsError),
}

impl From<Errno> for Fail {
    fn from(errno: Errno) -> Fail {
        Fail::Errno(errno)
    }
}

impl From<RowsError> for Fail {
    fn from(error: RowsError) -> Fail {
        Fail::Rows(error)
    }
}

/// What a step of a command comes to.
pub(crate) type Outcome<T> = Result<T, Fail>;

/// The inode, if it has a name or a session that has it open; what waits for reclaim is gone for everybody.
pub(crate) fn live_inode(rows: &dyn Rows, volume: VolumeId, ino: Ino) -> Result<Option<Inode>, RowsError> {
    let Some(inode) = row::get::<Inode>(rows, &keys::inode(volume, ino))? else { return Ok(None) };
    if inode.nlink == 0 && rows.get(&keys::of_inode(volume, keys::kind::PINNED, ino))?.is_none() {
        return Ok(None);
    }
    Ok(Some(inode))
}

/// The volume's row, the inodes that the command met, and all else through the overlay. Inodes and the volume are
/// written once, at the end: a rename may meet one inode in four roles.
pub(crate) struct Tx<'o, 'r> {
    pub(crate) over: &'o mut Overlay<'r>,
    pub(crate) now: Nanos,
    pub(crate) id: VolumeId,
    pub(crate) volume: Volume,
    volume_read: Volume,
    inodes: BTreeMap<Ino, (Inode, bool)>,
    /// The caller was told of success before: nothing is refused for want of space.
    pub(crate) answered: bool,
}

impl<'o, 'r> Tx<'o, 'r> {
    /// `ENOENT` if there is no such volume.
    pub(crate) fn begin(over: &'o mut Overlay<'r>, now: Nanos, id: VolumeId) -> Outcome<Tx<'o, 'r>> {
        let volume: Volume = row::get(over, &keys::volume(id))?.ok_or(Errno::ENOENT)?;
        Ok(Tx {
            over,
            now,
            id,
            volume_read: volume.clone(),
            volume,
            inodes: BTreeMap::new(),
            answered: false,
        })
    }

    /// Writes the volume and the inodes that changed.
    pub(crate) fn finish(self) {
        let Tx { over, id, volume, volume_read, inodes, .. } = self;
        for (ino, (inode, changed)) in inodes {
            if changed {
                over.put(keys::inode(id, ino), row::value(&inode));
            }
        }
        if volume != volume_read {
            over.put(keys::volume(id), row::value(&volume));
        }
    }

    pub(crate) fn get<T: Wire>(&self, key: &[u8]) -> Result<Option<T>, RowsError> {
        row::get(self.over, key)
    }

    pub(crate) fn put<T: Wire>(&mut self, key: Vec<u8>, row: &T) {
        self.over.put(key, row::value(row));
    }

    /// The first row of a range.
    pub(crate) fn first<T: Wire>(&self, from: &[u8], to: &[u8]) -> Result<Option<(Vec<u8>, T)>, RowsError> {
        let mut first = None;
        row::scan(self.over, from, to, false, &mut |key, row| {
            first = Some((key.to_vec(), row));
            false
        })?;
        Ok(first)
    }

    /// The inode; `ESTALE` if it is gone.
    pub(crate) fn inode(&mut self, ino: Ino) -> Outcome<&Inode> {
        if !self.inodes.contains_key(&ino) {
            let inode = live_inode(self.over, self.id, ino)?.ok_or(Errno::ESTALE)?;
            self.inodes.insert(ino, (inode, false));
        }
        Ok(&self.inodes[&ino].0)
    }

    /// A directory that can get names; `ENOTDIR`, and `ENOENT` if it was removed while open.
    pub(crate) fn dir(&mut self, ino: Ino) -> Outcome<&Inode> {
        let inode = self.inode(ino)?;
        if !inode.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        if inode.nlink == 0 {
            return Err(Errno::ENOENT.into());
        }
        Ok(inode)
    }

    /// The inode, to be changed.
    pub(crate) fn edit(&mut self, ino: Ino) -> Outcome<&mut Inode> {
        self.inode(ino)?;
        let entry = self.inodes.get_mut(&ino).expect("the inode was read just now");
        entry.1 = true;
        Ok(&mut entry.0)
    }

    /// The inode, to be changed, even if it waits for reclaim and [`Tx::inode`] no longer shows it.
    pub(crate) fn stored_inode(&mut self, ino: Ino) -> Outcome<Option<&mut Inode>> {
        if !self.inodes.contains_key(&ino) {
            let Some(inode) = self.get::<Inode>(&keys::inode(self.id, ino))? else { return Ok(None) };
            self.inodes.insert(ino, (inode, true));
        }
        let entry = self.inodes.get_mut(&ino).expect("the inode was read just now");
        entry.1 = true;
        Ok(Some(&mut entry.0))
    }

    /// A new inode row, which takes no space yet. One more than a limit allows is `EDQUOT` or, of the volume, `ENOSPC`.
    pub(crate) fn add_inode(&mut self, inode: Inode) -> Outcome<Ino> {
        let ino = self.volume.next_ino;
        self.volume.next_ino = Ino(ino.0 + 1);
        self.volume.inodes += 1;
        if !self.answered && self.volume.inodes > self.volume.quota_inodes {
            return Err(Errno::ENOSPC.into());
        }
        projects::count(self, inode.project, ONE, NOTHING, !self.answered)?;
        self.inodes.insert(ino, (inode, true));
        Ok(ino)
    }

    /// The inode's row goes; it takes no space any more.
    pub(crate) fn forget_inode(&mut self, ino: Ino) -> Outcome<()> {
        if let Some(inode) = self.stored_inode(ino)? {
            let label = inode.project;
            projects::count(self, label, NOTHING, ONE, false)?;
        }
        self.inodes.remove(&ino);
        self.over.delete(keys::inode(self.id, ino));
        self.volume.inodes = self.volume.inodes.saturating_sub(1);
        Ok(())
    }

    /// The inode lost its last name: it stays for the session that has it open, or is reclaimed.
    pub(crate) fn orphan(&mut self, ino: Ino, pinned_by: Option<SessionId>) -> Outcome<()> {
        let inode = self.edit(ino)?;
        inode.nlink = 0;
        inode.parent = Ino(0);
        inode.cookie = 0;
        match pinned_by {
            Some(session) => {
                let key = keys::of_inode(self.id, keys::kind::PINNED, ino);
                self.put(key, &Pinned { sessions: Vec::from([session]) });
            }
            None => self.condemn(ino),
        }
        Ok(())
    }

    /// Nothing holds the nameless inode any more.
    pub(crate) fn condemn(&mut self, ino: Ino) {
        let key = keys::reclaim(self.id, keys::class::INODE, ino.0);
        self.put(key, &row::Empty);
    }

    /// Space that an inode takes and gives back, in bytes. Growth over a limit is `EDQUOT` or, of the volume, `ENOSPC`;
    /// but what was `promised` to a write that was accepted is never refused.
    pub(crate) fn charge(&mut self, ino: Ino, added: u64, removed: u64, promised: bool) -> Outcome<()> {
        let inode = self.stored_inode(ino)?.ok_or(Errno::ESTALE)?;
        let label = inode.project;
        inode.allocated = inode.allocated.saturating_add(added).saturating_sub(removed);
        self.volume.used = self.volume.used.saturating_add(added).saturating_sub(removed);
        let bytes = |bytes: u64| Use { bytes, inodes: 0 };
        let promised = promised || self.answered;
        projects::count(self, label, bytes(added), bytes(removed), !promised)?;
        if !promised && added > removed && self.volume.used > self.volume.most_bytes() {
            return Err(Errno::ENOSPC.into());
        }
        Ok(())
    }
}
