//! Sessions and what they hold; what waits for reclaim.

use alloc::collections::BTreeSet;
use types::SessionId;

use super::data::AnyBody;
use super::tree::numbers;
use super::{Check, Fault, Inodes};
use crate::keys::{self, class, kind};
use crate::row::reclaim::{DeadSession, Tail};
use crate::row::session::{Pinned, Session, Slot, Writer};
use crate::row::volume::Volume;
use crate::rows::RowsError;

impl Check<'_> {
    /// `S`, `T`, `W`, `O`, and the classes of `G` but the dead extents.
    pub(super) fn holds(&mut self, volume: &Volume, inodes: &mut Inodes) -> Result<(), RowsError> {
        // Open ones, and closed ones whose rows are not all gone.
        let mut sessions = BTreeSet::new();
        self.each(kind::SESSION, |check, key, row: Session| {
            let id = SessionId(keys::last_u64(key));
            if id >= volume.next_session || row.epoch >= volume.next_epoch {
                check.problem(key, Fault::NumberAhead);
            }
            sessions.insert(id);
        })?;
        let mut lost = None;
        self.each(kind::RECLAIM, |check, key, _: AnyBody| {
            let id = keys::last_u64(key);
            match key[keys::PREFIX] {
                class::INODE => match inodes.get_mut(&id) {
                    Some(seen) if seen.inode.nlink == 0 => seen.condemned = true,
                    _ => check.problem(key, Fault::HeldWithName),
                },
                class::TAIL => match (inodes.get_mut(&id), check.one::<Tail>(key)) {
                    (Some(seen), Ok(Some(tail))) => {
                        let top = seen.inode.map_gen;
                        let sorted =
                            tail.cuts.is_sorted_by(|a, b| a.from < b.from && a.generation < b.generation);
                        if !sorted || tail.cuts.iter().any(|cut| cut.generation > top) {
                            check.problem(key, Fault::WrongFlag);
                        }
                        seen.has_tail = true;
                        seen.tail = tail;
                    }
                    (None, Ok(_)) => check.problem(key, Fault::NoInode),
                    (_, Ok(None)) => {}
                    (_, Err(error)) => lost = Some(error),
                },
                class::SESSION => match check.one::<DeadSession>(key) {
                    Ok(_) if sessions.insert(SessionId(id)) => {}
                    Ok(_) => check.problem(key, Fault::NoSession),
                    Err(error) => lost = Some(error),
                },
                _ => {}
            }
        })?;
        self.each(kind::SLOT, |check, key, _: Slot| {
            if !sessions.contains(&SessionId(numbers(key).0)) {
                check.problem(key, Fault::NoSession);
            }
        })?;
        self.each(kind::WRITER, |check, key, row: Writer| {
            if !sessions.contains(&row.session) {
                check.problem(key, Fault::NoSession);
            }
            match inodes.get(&keys::last_u64(key)) {
                Some(seen) if seen.inode.grant == row.grant => {}
                Some(_) => check.problem(key, Fault::WrongFlag),
                None => check.problem(key, Fault::NoInode),
            }
        })?;
        self.each(kind::PINNED, |check, key, row: Pinned| {
            if row.sessions.is_empty() || row.sessions.iter().any(|id| !sessions.contains(id)) {
                check.problem(key, Fault::NoSession);
            }
            match inodes.get_mut(&keys::last_u64(key)) {
                Some(seen) if seen.inode.nlink == 0 => seen.pinned = true,
                _ => check.problem(key, Fault::HeldWithName),
            }
        })?;
        lost.map_or(Ok(()), Err)
    }
}
