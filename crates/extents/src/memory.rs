//! A fragment store in memory, for tests: same promises as a disk, except that it forgets with the process.

use std::collections::BTreeMap;
use std::future::ready;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use checksum::{block_crcs, content_crc};
use device::{IoBuf, IoError, IoVec};
use store::{
    Checked, DeleteError, FragmentInfo, FragmentStore, ListError, Put, PutAck, PutError, ReadError, Space,
    StoreFuture, Verified,
};
use types::{BLOCK, Epoch, FragmentId, GroupId};

/// Fragments in memory, with a capacity and with faults on request.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    capacity: u64,
    used: u64,
    broken: bool,
    /// The longest fragment that is taken.
    longest: u32,
    fragments: BTreeMap<FragmentId, Fragment>,
    epochs: BTreeMap<GroupId, Epoch>,
}

#[derive(Debug)]
struct Fragment {
    epoch: Epoch,
    content_crc: u32,
    block_crcs: Vec<u32>,
    stored: Vec<u8>,
}

/// What a fragment takes of the capacity: a header block and its data in whole blocks.
fn footprint(stored_len: u64) -> u64 {
    BLOCK + stored_len.next_multiple_of(BLOCK)
}

impl MemoryStore {
    /// An empty store that holds fragments of at most `capacity` bytes, each counted as a block more than its data in
    /// whole blocks.
    pub fn new(capacity: u64) -> MemoryStore {
        let (fragments, epochs) = (BTreeMap::new(), BTreeMap::new());
        MemoryStore {
            state: Mutex::new(State {
                capacity,
                used: 0,
                broken: false,
                longest: u32::MAX,
                fragments,
                epochs,
            }),
        }
    }

    /// From now on every operation fails with [`IoError::Gone`], or no longer.
    pub fn set_broken(&self, broken: bool) {
        self.state().broken = broken;
    }

    /// From now on there is no run of blocks for a fragment of more stored bytes than this.
    pub fn set_longest(&self, bytes: u32) {
        self.state().longest = bytes;
    }

    /// Flips one bit of a stored byte, as rot does: reads of its block fail from now on.
    ///
    /// # Panics
    /// If there is no such fragment or byte.
    pub fn rot(&self, id: FragmentId, at: usize) {
        self.state().fragments.get_mut(&id).expect("a fragment to damage").stored[at] ^= 1;
    }

    /// How many fragments there are.
    pub fn fragments(&self) -> usize {
        self.state().fragments.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T, E>(&self, work: impl FnOnce(&mut State) -> Result<T, E>) -> StoreFuture<Result<T, E>>
    where
        T: Send + 'static,
        E: From<IoError> + Send + 'static,
    {
        let mut state = self.state();
        let answer = if state.broken { Err(E::from(IoError::Gone)) } else { work(&mut state) };
        Box::pin(ready(answer))
    }
}

impl State {
    fn put(&mut self, put: Put, data: &[IoBuf]) -> Result<PutAck, PutError> {
        let len = put.stored_len as usize;
        let mut stored: Vec<u8> = data.iter().flat_map(|buf| buf.iter().copied()).collect();
        let fits = (1..=(1 << 20) + BLOCK as usize).contains(&len) && len <= stored.len();
        stored.truncate(len);
        if !fits || block_crcs(&stored) != put.block_crcs || content_crc(&put.block_crcs) != put.content_crc {
            return Err(PutError::Damaged(put.id));
        }
        let current = self.epochs.get(&put.id.group).copied().unwrap_or_default();
        if put.epoch < current {
            return Err(PutError::StaleEpoch { sent: put.epoch, current });
        }
        if let Some(there) = self.fragments.get(&put.id) {
            let same = there.content_crc == put.content_crc && there.stored.len() == len;
            return if same { Ok(PutAck::AlreadyHave) } else { Err(PutError::Conflict(put.id)) };
        }
        let needs = footprint(len as u64);
        if needs > self.capacity - self.used || put.stored_len > self.longest {
            return Err(PutError::NoSpace(put.stored_len));
        }
        self.used += needs;
        let Put { id, epoch, block_crcs, content_crc, .. } = put;
        self.fragments.insert(id, Fragment { epoch, content_crc, block_crcs, stored });
        Ok(PutAck::Stored)
    }

    fn read(&self, id: FragmentId, range: Range<u32>) -> Result<Verified, ReadError> {
        let fragment = self.fragments.get(&id).ok_or(ReadError::NotFound(id))?;
        let (start, end) = (range.start as usize, range.end as usize);
        if start > end || end > fragment.stored.len() {
            return Err(ReadError::OutOfRange(id));
        }
        let first = start / BLOCK as usize;
        let from = first * BLOCK as usize;
        let to = end.next_multiple_of(BLOCK as usize).min(fragment.stored.len()).max(from);
        let bytes = &fragment.stored[from..to];
        for (at, crc) in block_crcs(bytes).into_iter().enumerate() {
            if fragment.block_crcs[first + at] != crc {
                let block = (first + at) as u32 + 1;
                return Err(ReadError::Damaged { id, block, at: u64::from(block) * BLOCK });
            }
        }
        Ok(Verified { blocks: vec![IoBuf::from_bytes(bytes)], range: start - from..end - from })
    }
}

impl FragmentStore for MemoryStore {
    fn put(&self, put: Put, data: IoVec) -> StoreFuture<Result<PutAck, PutError>> {
        self.with(|state| state.put(put, &data))
    }

    fn replace(&self, put: Put, data: IoVec) -> StoreFuture<Result<(), PutError>> {
        self.with(|state| {
            if let Some(old) = state.fragments.remove(&put.id) {
                state.used -= footprint(old.stored.len() as u64);
            }
            state.put(put, &data).map(|_| ())
        })
    }

    fn fence(&self, group: GroupId, epoch: Epoch) -> StoreFuture<Result<(), IoError>> {
        self.with(|state| {
            let known = state.epochs.entry(group).or_insert(epoch);
            *known = epoch.max(*known);
            Ok(())
        })
    }

    fn has_failed(&self) -> bool {
        self.state().broken
    }

    fn read(&self, id: FragmentId, range: Range<u32>) -> StoreFuture<Result<Verified, ReadError>> {
        self.with(|state| state.read(id, range))
    }

    fn check(&self, id: FragmentId) -> StoreFuture<Result<Checked, ReadError>> {
        self.with(|state| {
            let fragment = state.fragments.get(&id).ok_or(ReadError::NotFound(id))?;
            let (stored_len, content_crc) = (fragment.stored.len() as u32, fragment.content_crc);
            state.read(id, 0..stored_len).map(|_| Checked { stored_len, content_crc })
        })
    }

    fn have(&self, ids: Vec<FragmentId>) -> StoreFuture<Result<Vec<bool>, ListError>> {
        self.with(|state| Ok(ids.iter().map(|id| state.fragments.contains_key(id)).collect()))
    }

    fn list(
        &self,
        group: GroupId,
        after: Option<FragmentId>,
        max: usize,
    ) -> StoreFuture<Result<Vec<FragmentInfo>, ListError>> {
        self.with(|state| {
            let behind = state.fragments.iter().filter(|(id, _)| id.group == group && Some(**id) > after);
            Ok(behind
                .take(max)
                .map(|(id, fragment)| FragmentInfo {
                    id: *id,
                    stored_len: fragment.stored.len() as u32,
                    epoch: fragment.epoch,
                })
                .collect())
        })
    }

    fn delete(&self, ids: Vec<FragmentId>) -> StoreFuture<Result<(), DeleteError>> {
        self.with(|state| {
            for id in ids {
                if let Some(gone) = state.fragments.remove(&id) {
                    state.used -= footprint(gone.stored.len() as u64);
                }
            }
            Ok(())
        })
    }

    fn space(&self) -> Space {
        let state = self.state();
        Space { total: state.capacity, free: state.capacity - state.used }
    }
}
