//! What may go wrong, and when.

use super::cache::Cache;
use std::collections::{BTreeMap, BTreeSet};
use types::{BLOCK, ByteOffset, Errno};

/// Something that goes wrong with a simulated disk. Operations count from 1 over the life of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Power is cut after so many operations. The next operation is in flight at the cut, and it and all after it answer
    /// `Gone`.
    CutAfter(u64),
    /// That operation fails (`EIO`, `ENOSPC`, …). A failed write may be there in part; a failed write or flush
    /// poisons the disk.
    Fail(u64, Errno),
    /// That write is acknowledged and never stored.
    LoseWrite(u64),
    /// That write is acknowledged and stored at another place (block aligned; lost if it does not fit there).
    MisdirectWrite(u64, ByteOffset),
    /// From that operation on flushes and durable writes are acknowledged but make nothing durable.
    LieFrom(u64),
    /// Flips the bits of the mask in the byte at this place, now and durably.
    Rot(ByteOffset, u8),
    /// The block at this place answers reads with `EIO` until it is written again; a power cut does not heal it.
    Unreadable(ByteOffset),
}

#[derive(Default)]
pub(super) struct Faults {
    cut_after: Option<u64>,
    fail: BTreeMap<u64, Errno>,
    lose: BTreeSet<u64>,
    misdirect: BTreeMap<u64, u64>,
    lie_from: Option<u64>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault, cache: &mut Cache) {
        match fault {
            Fault::CutAfter(op) => self.cut_after = Some(op),
            Fault::Fail(op, errno) => {
                self.fail.insert(op, errno);
            }
            Fault::LoseWrite(op) => {
                self.lose.insert(op);
            }
            Fault::MisdirectWrite(op, at) => {
                self.misdirect.insert(op, at.0 - at.0 % BLOCK);
            }
            Fault::LieFrom(op) => self.lie_from = Some(op),
            Fault::Rot(at, mask) => {
                cache.overwrite(at.0 / BLOCK, |page| page[(at.0 % BLOCK) as usize] ^= mask)
            }
            Fault::Unreadable(at) => cache.spoil(at.0 / BLOCK),
        }
    }

    pub(super) fn power_is_off(&self, op: u64) -> bool {
        self.cut_after.is_some_and(|last| op > last)
    }

    pub(super) fn errno(&self, op: u64) -> Option<Errno> {
        self.fail.get(&op).copied()
    }

    pub(super) fn cache_lies(&self, op: u64) -> bool {
        self.lie_from.is_some_and(|from| op >= from)
    }

    /// Where a write meant for `at` goes; `None` if nowhere.
    pub(super) fn place(&self, op: u64, at: u64) -> Option<u64> {
        if self.lose.contains(&op) { None } else { Some(self.misdirect.get(&op).copied().unwrap_or(at)) }
    }
}
