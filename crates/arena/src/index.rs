//! The live records, by inode, by age and by request.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use types::{Dseq, Grant, Ino, Nanos};

use crate::layout::HEAD;
use crate::pieces::Pieces;

/// An accepted write. Its bytes are read with `Arena::read_record`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The file.
    pub ino: Ino,
    /// The write grant under which it was accepted.
    pub grant: Grant,
    /// Its place in the session's order.
    pub dseq: Dseq,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes, 1 to 1 MiB.
    pub len: u32,
    /// The kernel's number of the request that brought it; 0 for none.
    pub unique: u64,
    /// When it was accepted, as the caller's clock had it.
    pub time: Nanos,
    /// Whoever wrote it may not keep set-id bits and capabilities.
    pub kill_priv: bool,
    /// The file's times were set after it, as far as an engine before this one has told ([`crate::Arena::times_are_set`]).
    pub times_set: bool,
    /// Where its head lies in the arena.
    pub(crate) at: u64,
}

impl Record {
    /// The range of the file.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.len)
    }

    pub(crate) fn data_at(&self) -> u64 {
        self.at + HEAD
    }
}

/// The live records of one inode, in sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The file.
    pub ino: Ino,
    /// How many records.
    pub records: usize,
    /// Bytes of all of them; what was written twice counts twice.
    pub bytes: u64,
    /// One past the last byte that any of them writes: the file is at least so long.
    pub end: u64,
    /// The oldest record.
    pub first: Dseq,
    /// The newest record.
    pub last: Dseq,
    /// When the oldest was accepted.
    pub oldest: Nanos,
    /// When the newest was accepted: the file's mtime.
    pub newest: Nanos,
    /// The grant of the newest.
    pub grant: Grant,
}

/// All live records.
#[derive(Debug, Default)]
pub(crate) struct Index {
    inodes: HashMap<Ino, InodeRecords>,
    /// Inodes by their oldest record.
    by_age: BTreeMap<Dseq, Ino>,
    by_unique: HashMap<u64, (Ino, Dseq)>,
    bytes: u64,
    records: usize,
}

#[derive(Debug, Default)]
struct InodeRecords {
    /// In dseq order.
    records: VecDeque<Record>,
    /// Ends that no later record reaches, with the record that reaches each: descending, so the first is the largest.
    ends: VecDeque<(Dseq, u64)>,
    bytes: u64,
    pieces: Pieces,
}

impl Index {
    /// Adds a record whose dseq is above all others.
    pub(crate) fn push(&mut self, record: Record) {
        let inode = self.inodes.entry(record.ino).or_default();
        assert!(
            inode.records.back().is_none_or(|last| last.dseq < record.dseq),
            "records come in dseq order"
        );
        if inode.records.is_empty() {
            self.by_age.insert(record.dseq, record.ino);
        }
        if record.unique != 0 {
            self.by_unique.insert(record.unique, (record.ino, record.dseq));
        }
        self.bytes += u64::from(record.len);
        self.records += 1;
        inode.push(record);
    }

    /// Takes out the records of an inode up to `through`, oldest first.
    pub(crate) fn pop_through(&mut self, ino: Ino, through: Dseq) -> Vec<Record> {
        let Some(inode) = self.inodes.get_mut(&ino) else { return Vec::new() };
        let mut popped = Vec::new();
        while inode.records.front().is_some_and(|record| record.dseq <= through) {
            popped.extend(inode.pop());
        }
        let Some(first) = popped.first() else { return popped };
        self.by_age.remove(&first.dseq);
        match inode.records.front() {
            Some(next) => {
                self.by_age.insert(next.dseq, ino);
            }
            None => {
                self.inodes.remove(&ino);
            }
        }
        for record in &popped {
            // A request that was split or repeated may have a later record under the same number.
            if self.by_unique.get(&record.unique) == Some(&(ino, record.dseq)) {
                self.by_unique.remove(&record.unique);
            }
            self.bytes -= u64::from(record.len);
        }
        self.records -= popped.len();
        popped
    }

    pub(crate) fn records(&self, ino: Ino) -> impl Iterator<Item = &Record> {
        self.inodes.get(&ino).into_iter().flat_map(|inode| inode.records.iter())
    }

    pub(crate) fn last(&self, ino: Ino) -> Option<Dseq> {
        self.inodes.get(&ino)?.records.back().map(|record| record.dseq)
    }

    pub(crate) fn find(&self, ino: Ino, dseq: Dseq) -> Option<Record> {
        let records = &self.inodes.get(&ino)?.records;
        let at = records.binary_search_by_key(&dseq, |record| record.dseq).ok()?;
        Some(records[at])
    }

    pub(crate) fn find_unique(&self, unique: u64) -> Option<Record> {
        let (ino, dseq) = self.by_unique.get(&unique)?;
        self.find(*ino, *dseq)
    }

    pub(crate) fn summary(&self, ino: Ino) -> Option<Summary> {
        let inode = self.inodes.get(&ino)?;
        let (first, last) = (inode.records.front()?, inode.records.back()?);
        Some(Summary {
            ino,
            records: inode.records.len(),
            bytes: inode.bytes,
            end: inode.ends.front()?.1,
            first: first.dseq,
            last: last.dseq,
            oldest: first.time,
            newest: last.time,
            grant: last.grant,
        })
    }

    /// Inodes with records, the one with the oldest record first.
    pub(crate) fn by_age(&self) -> impl Iterator<Item = Ino> {
        self.by_age.values().copied()
    }

    /// What shows of an inode's records in `range`.
    pub(crate) fn shown(&self, ino: Ino, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, u64)> {
        self.inodes.get(&ino).into_iter().flat_map(move |inode| inode.pieces.within(range.clone()))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn count(&self) -> usize {
        self.records
    }
}

impl InodeRecords {
    fn push(&mut self, record: Record) {
        let range = record.range();
        while self.ends.back().is_some_and(|(_, end)| *end <= range.end) {
            self.ends.pop_back();
        }
        self.ends.push_back((record.dseq, range.end));
        self.bytes += u64::from(record.len);
        self.pieces.cover(range, record.dseq, record.data_at());
        self.records.push_back(record);
    }

    fn pop(&mut self) -> Option<Record> {
        let record = self.records.pop_front()?;
        if self.ends.front().is_some_and(|(dseq, _)| *dseq == record.dseq) {
            self.ends.pop_front();
        }
        self.bytes -= u64::from(record.len);
        self.pieces.uncover(record.range(), record.dseq);
        Some(record)
    }
}
