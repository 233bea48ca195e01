//! What a store promised, and what may be there after a cut.

use std::collections::BTreeMap;
use std::rc::Rc;

use device::{IoBuf, IoVec};
use store::{FragmentStore, Put, ReadError, Store};
use types::{Epoch, ExtentId, FragmentId, FragmentKind, GroupId, LayoutId, SessionId, VolumeId};

use super::bench::now;

/// All fragments of the workloads are in this group.
pub(crate) const GROUP: GroupId = GroupId(1);

/// One content of a fragment; none is used twice for an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Content {
    pub(crate) version: u32,
    pub(crate) len: usize,
}

/// A change of one fragment. Moments are counts of the disk's operations.
#[derive(Clone, Debug)]
struct Event {
    began: u64,
    acknowledged: Option<u64>,
    /// What is there afterwards; `None`: nothing.
    state: Option<Content>,
    bytes: Rc<[u8]>,
}

/// Every change that was asked for, per fragment, in order.
#[derive(Clone, Default)]
pub(crate) struct Model {
    events: BTreeMap<u64, Vec<Event>>,
    /// What went wrong before any cut.
    pub(crate) broken: Vec<String>,
}

impl Model {
    /// Notes that a change was asked for at `began`. It may take effect from then on.
    pub(crate) fn begin(&mut self, counter: u64, began: u64, state: Option<Content>) {
        let bytes = state.map_or(Rc::from([]), |state| Rc::from(content(counter, state)));
        self.events.entry(counter).or_default().push(Event { began, acknowledged: None, state, bytes });
    }

    /// Notes that the last change was acknowledged at `at`.
    pub(crate) fn acknowledge(&mut self, counter: u64, at: u64) {
        let last = self.events.get_mut(&counter).and_then(|events| events.last_mut());
        last.expect("it has begun").acknowledged = Some(at);
    }

    /// Notes that the last change was refused.
    pub(crate) fn refuse(&mut self, counter: u64) {
        self.events.get_mut(&counter).and_then(Vec::pop).expect("it has begun");
    }

    /// What is there if all that was asked for took effect.
    pub(crate) fn latest(&self, counter: u64) -> Option<Content> {
        self.events.get(&counter).and_then(|events| events.last()).and_then(|event| event.state)
    }

    /// Notes what an open after a crash found: from then on it stays.
    pub(crate) fn settle(&mut self, store: &Store, at: u64) {
        for (counter, events) in &mut self.events {
            if events.last().is_some_and(|event| event.acknowledged.is_some()) {
                continue;
            }
            let there = store.entry(&id(*counter)).is_some();
            let found = events.iter().rev().find(|event| event.state.is_some() == there);
            let (state, bytes) =
                found.map_or((None, Rc::from([])), |event| (event.state, event.bytes.clone()));
            events.push(Event { began: at, acknowledged: Some(at), state, bytes });
        }
    }

    /// What may be there after a cut during operation `op`: a state with its bytes, or nothing.
    fn allowed(events: &[Event], op: u64) -> Vec<Option<(Content, &[u8])>> {
        let mut allowed = vec![None];
        for event in events.iter().filter(|event| event.began < op) {
            if event.acknowledged.is_some_and(|at| at < op) {
                allowed.clear();
            }
            allowed.push(event.state.map(|state| (state, &event.bytes[..])));
        }
        allowed
    }

    /// Compares a store that was opened after a cut during operation `op` with the promises.
    pub(crate) fn check(&self, store: &Store, op: u64) -> Result<(), String> {
        self.check_known(store)?;
        for (counter, events) in &self.events {
            let allowed = Model::allowed(events, op);
            match read(store, *counter) {
                Ok(None) if allowed.contains(&None) => {}
                Ok(Some(bytes)) if allowed.iter().flatten().any(|(_, right)| **right == bytes[..]) => {}
                Ok(found) => {
                    let found =
                        found.map_or("is lost".to_owned(), |bytes| format!("has {} bytes", bytes.len()));
                    let promised: Vec<_> =
                        allowed.iter().map(|state| state.map(|(state, _)| state)).collect();
                    return Err(format!("fragment {counter} {found}: promised was one of {promised:?}"));
                }
                Err(error) => return Err(format!("fragment {counter}: {error}")),
            }
        }
        let report = now(store.verify(|_| ())).map_err(|error| error.to_string())?;
        if report.is_clean() { Ok(()) } else { Err(format!("{report:?}")) }
    }

    /// The same for a disk that did not keep what it promised: things may be missing or damaged, never wrong.
    pub(crate) fn check_nothing_wrong(&self, store: &Store) -> Result<(), String> {
        self.check_known(store)?;
        for (counter, events) in &self.events {
            let Ok(Some(bytes)) = read(store, *counter) else { continue };
            if !events.iter().any(|event| event.state.is_some() && *event.bytes == bytes[..]) {
                return Err(format!("fragment {counter} has {} bytes that were never put", bytes.len()));
            }
        }
        Ok(())
    }

    fn check_known(&self, store: &Store) -> Result<(), String> {
        let list = now(store.list(GROUP, None, usize::MAX)).map_err(|error| error.to_string())?;
        match list.iter().find(|info| !self.events.contains_key(&info.id.extent.counter)) {
            Some(info) => Err(format!("fragment {} was never put", info.id)),
            None if list.len() as u64 != store.fragments() => Err("fragments in unknown groups".to_owned()),
            None => Ok(()),
        }
    }
}

/// All of a fragment; `None` if it is not there.
pub(crate) fn read(store: &Store, counter: u64) -> Result<Option<Vec<u8>>, ReadError> {
    let Some(entry) = store.entry(&id(counter)) else { return Ok(None) };
    now(store.read(id(counter), 0..entry.stored_len)).map(|verified| {
        let all: Vec<u8> = verified.blocks.iter().flat_map(|block| block.iter().copied()).collect();
        Some(all[verified.range].to_vec())
    })
}

pub(crate) fn id(counter: u64) -> FragmentId {
    FragmentId {
        group: GROUP,
        extent: ExtentId { volume: VolumeId(1), session: SessionId(1), counter },
        layout: LayoutId(0),
        index: 0,
        kind: FragmentKind::Data,
    }
}

/// Bytes that no other fragment or version has.
pub(crate) fn content(counter: u64, what: Content) -> Vec<u8> {
    let mut rng = super::bench::Rng::new(counter << 32 | u64::from(what.version));
    let mut bytes = Vec::with_capacity(what.len + 8);
    while bytes.len() < what.len {
        bytes.extend(rng.next().to_le_bytes());
    }
    bytes.truncate(what.len);
    bytes
}

pub(crate) fn put_of(counter: u64, what: Content) -> (Put, IoVec) {
    let bytes = content(counter, what);
    let block_crcs = checksum::block_crcs(&bytes);
    let content_crc = checksum::content_crc(&block_crcs);
    let put =
        Put { id: id(counter), epoch: Epoch(1), stored_len: bytes.len() as u32, block_crcs, content_crc };
    (put, vec![IoBuf::from_bytes(&bytes)])
}
