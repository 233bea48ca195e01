//! The cache as rows that commands run over; what is not known stops them, and is remembered.

use std::cell::RefCell;

use namespace::{Home, Rows, RowsError};
use types::{ExtentId, Ino, VolumeId};

use super::cache::{Cache, Group, Seq};

/// Why a command or question could not be run over the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Missing {
    /// Rows of an inode from here on, up to the end.
    Rows(Ino, Vec<u8>, Vec<u8>),
    /// A row of no inode.
    Shared(Vec<u8>),
    /// The inode's rows are known once this command is answered.
    Blocked(Ino, Seq),
    /// Rows that are never kept: only the service can run it.
    Foreign,
}

/// One look at the cache.
pub(super) struct View<'a> {
    cache: &'a Cache,
    volume: VolumeId,
    settled: Seq,
    /// Extents that were never committed before.
    fresh: &'a [ExtentId],
    /// Rows of no inode that do not exist, as far as was asked for this look.
    absent: &'a [Vec<u8>],
    missing: RefCell<Option<Missing>>,
}

impl<'a> View<'a> {
    pub(super) fn new(cache: &'a Cache, volume: VolumeId, settled: Seq) -> View<'a> {
        View { cache, volume, settled, fresh: &[], absent: &[], missing: RefCell::new(None) }
    }

    /// With extents that were never committed, and rows of no inode that are known not to exist.
    pub(super) fn with(self, fresh: &'a [ExtentId], absent: &'a [Vec<u8>]) -> View<'a> {
        View { fresh, absent, ..self }
    }

    /// What the last failure was owed to.
    pub(super) fn into_missing(self) -> Option<Missing> {
        self.missing.into_inner()
    }

    fn fail<T>(&self, missing: Missing) -> Result<T, RowsError> {
        *self.missing.borrow_mut() = Some(missing);
        Err(RowsError(String::from("a row is not known here")))
    }

    /// The inode's group, unless a command on its way makes what is known of it meaningless.
    fn group(&self, ino: Ino) -> Result<Option<&'a Group>, RowsError> {
        let group = self.cache.group(ino, self.settled);
        match group {
            Some(group) if group.blocked > self.settled => self.fail(Missing::Blocked(ino, group.blocked)),
            group => Ok(group),
        }
    }

    /// Fails unless the inode has no map rows.
    fn check_no_map(&self, ino: Ino) -> Result<(), RowsError> {
        match self.get(&namespace::inode_key(self.volume, ino))? {
            Some(row) if namespace::has_no_map(&row) => Ok(()),
            _ => self.fail(Missing::Foreign),
        }
    }
}

impl Rows for View<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        match namespace::home(key) {
            Home::Inode(ino) => {
                let group = self.group(ino)?;
                match group.filter(|group| group.knows(key)) {
                    Some(group) => Ok(group.rows.get(key).cloned()),
                    None => {
                        let mut after = key.to_vec();
                        after.push(0);
                        self.fail(Missing::Rows(ino, key.to_vec(), after))
                    }
                }
            }
            Home::Shared => match self.cache.shared(key) {
                Some(value) => Ok(Some(value.clone())),
                None if self.absent.iter().any(|absent| absent == key) => Ok(None),
                None => self.fail(Missing::Shared(key.to_vec())),
            },
            Home::Map(ino) => self.check_no_map(ino).map(|()| None),
            Home::Extent(id) if self.fresh.contains(&id) => Ok(None),
            Home::Extent(_) | Home::Reclaim => self.fail(Missing::Foreign),
        }
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        backward: bool,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        if from >= to {
            return Ok(());
        }
        let ino = match namespace::home(from) {
            Home::Inode(ino) => ino,
            Home::Map(ino) => return self.check_no_map(ino),
            // Nothing that a mount runs reads these by range.
            _ => return self.fail(Missing::Foreign),
        };
        // A range over several inodes is nothing that a mount reads.
        if !namespace::ends_among_siblings(from, to) {
            return self.fail(Missing::Foreign);
        }
        let group = self.group(ino)?;
        let known = group.and_then(|group| Some((group, group.known_until(from, to)?)));
        let Some((group, until)) = known else {
            return self.fail(Missing::Rows(ino, from.to_vec(), to.to_vec()));
        };
        if backward {
            if until != to {
                return self.fail(Missing::Rows(ino, until.to_vec(), to.to_vec()));
            }
            let _all = group.range(from, to).rev().all(|(key, value)| each(key, value));
            return Ok(());
        }
        if group.range(from, until).all(|(key, value)| each(key, value)) && until != to {
            return self.fail(Missing::Rows(ino, until.to_vec(), to.to_vec()));
        }
        Ok(())
    }
}
