//! Extents over stores in memory.

use std::sync::Arc;

use device::{IoError, IoVec};
use namespace::{ExtentRow, NewExtent};
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert_eq, proptest};
use store::{
    Checked, DeleteError, DiskId, FragmentInfo, FragmentStore, ListError, Put, PutAck, PutError, ReadError,
    Space, StoreFuture, Verified,
};
use tokio::sync::Semaphore;
use types::{Epoch, FragmentId, GroupId, SessionId, VolumeId};

use super::{Extents, Group, ReadExtentError, SealError};
use crate::memory::MemoryStore;
use crate::placement::{FixedPlacement, Slot};

const MIB: usize = 1 << 20;

/// Every group has disks of its own.
fn group(id: u32, slots: &[&Arc<MemoryStore>]) -> Group {
    let slots = slots.iter().map(|store| Arc::clone(store) as Arc<dyn FragmentStore>).collect();
    let mut group = Group::numbered(GroupId(id), slots);
    group.slots.iter_mut().for_each(|slot| slot.disk.0[0] = id as u8);
    group
}

fn over(groups: Vec<Group>) -> Extents {
    Extents::new(VolumeId(3), SessionId(9), 1, FixedPlacement::of(groups))
}

fn row(sealed: &NewExtent) -> ExtentRow {
    let NewExtent { id, group, layout, codec, plain_len, stored_len, content_crc } = *sealed;
    ExtentRow { id, group, layout, codec, plain_len, stored_len, content_crc }
}

fn fragment(sealed: &NewExtent, index: usize) -> FragmentId {
    group(sealed.group.0, &[]).fragment(sealed.id, sealed.layout, index)
}

fn runs<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 60, ..Default::default() })]
    #[test]
    fn what_was_sealed_is_read(plain in vec(any::<u8>(), 1..20_000), cuts in any::<(u16, u16)>()) {
        runs(async {
            let store = Arc::new(MemoryStore::new(1 << 20));
            let extents = over(vec![group(1, &[&store])]);
            let row = row(&extents.seal(&plain).await.expect("sealed"));
            let len = plain.len() as u32;
            let (a, b) = (u32::from(cuts.0) % (len + 1), u32::from(cuts.1) % (len + 1));
            let range = a.min(b)..a.max(b);
            let part = extents.read(&row, range.clone()).await.expect("read");
            prop_assert_eq!(&part, &plain[range.start as usize..range.end as usize]);
            prop_assert_eq!(extents.read(&row, 0..len).await.expect("read"), plain);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn lengths_have_limits() {
    let store = Arc::new(MemoryStore::new(8 << 20));
    let extents = over(vec![group(1, &[&store])]);
    assert_eq!(extents.seal(&[]).await, Err(SealError::Length(0)));
    assert_eq!(extents.seal(&vec![0; MIB + 1]).await, Err(SealError::Length(MIB + 1)));
    let sealed = extents.seal(&vec![7; MIB]).await.expect("sealed");
    assert_eq!(sealed.id.counter, 1, "a refused length spends no id");
    let error = extents.read(&row(&sealed), 5..MIB as u32 + 1).await;
    assert_eq!(error, Err(ReadExtentError::OutOfRange { extent: sealed.id, from: 5, to: MIB as u32 + 1 }));
}

#[tokio::test]
async fn the_mark_waits_for_what_is_in_flight() {
    let store = Arc::new(MemoryStore::new(8 << 20));
    let extents = over(vec![group(1, &[&store])]);
    let first = extents.seal(b"one").await.expect("sealed");
    let second = extents.seal(b"two").await.expect("sealed");
    assert_eq!((extents.settled(), extents.in_flight()), (1, 2));
    extents.committed(second.id);
    assert_eq!(extents.settled(), 1);
    extents.abandoned(first.id);
    assert_eq!((extents.settled(), extents.in_flight()), (3, 0));
    store.set_broken(true);
    assert!(extents.seal(b"three").await.is_err());
    assert_eq!((extents.settled(), extents.in_flight()), (4, 0), "an error gives the id up");
}

#[tokio::test]
async fn a_full_group_sends_the_extent_to_the_next() {
    let small = Arc::new(MemoryStore::new(20 << 10));
    let large = Arc::new(MemoryStore::new(40 << 10));
    let extents = over(vec![group(1, &[&small]), group(2, &[&large])]);
    assert_eq!(extents.space(), Space { total: 60 << 10, free: 60 << 10 });
    // 8 KiB with their header: the one with more space first.
    let mut groups = Vec::new();
    let full = loop {
        match extents.seal(&[1; 4096]).await {
            Ok(sealed) => groups.push(sealed.group.0),
            Err(error) => break error,
        }
    };
    assert_eq!(full, SealError::NoSpace(4096));
    assert_eq!(groups.iter().filter(|group| **group == 1).count(), 2);
    assert_eq!(groups[..3], [2, 2, 2]);
    assert_eq!(groups.len(), 7);
    assert_eq!(extents.space().free, 4 << 10);
}

#[tokio::test]
async fn groups_that_share_disks_fill_them_evenly() {
    let disks = [2_u64, 3, 4].map(|mib| Arc::new(MemoryStore::new(mib << 20)));
    let pair = |id: u32, a: usize, b: usize| {
        let mut group = group(id, &[&disks[a], &disks[b]]);
        (group.slots[0].disk, group.slots[1].disk) = (DiskId([a as u8; 16]), DiskId([b as u8; 16]));
        group
    };
    let extents = over(vec![pair(1, 0, 1), pair(2, 0, 2), pair(3, 1, 2)]);
    let space = extents.space();
    assert_eq!(space.total, 9 << 19, "half of all");
    let mut stored = 0;
    while extents.seal(&[1; 4096]).await.is_ok() {
        stored += 8192;
    }
    assert!(stored >= space.total * 99 / 100, "{stored} of {}", space.total);
}

#[tokio::test]
async fn a_broken_group_is_passed_over() {
    let (bad, good) = (Arc::new(MemoryStore::new(4 << 20)), Arc::new(MemoryStore::new(1 << 20)));
    bad.set_broken(true);
    let extents = over(vec![group(1, &[&bad]), group(2, &[&good])]);
    let sealed = extents.seal(b"hold fast").await.expect("sealed");
    assert_eq!(sealed.group, GroupId(2));
    good.set_broken(true);
    let error = extents.seal(b"hold fast").await.expect_err("both are broken");
    assert!(matches!(error, SealError::Put { source: PutError::Io(IoError::Gone), .. }), "{error}");
}

#[tokio::test]
async fn every_slot_holds_a_copy_or_the_extent_is_not_sealed() {
    let (a, b) = (Arc::new(MemoryStore::new(1 << 20)), Arc::new(MemoryStore::new(1 << 20)));
    let extents = over(vec![group(1, &[&a, &b])]);
    let sealed = extents.seal(&[5; 9000]).await.expect("sealed");
    assert_eq!((a.fragments(), b.fragments()), (1, 1));
    // One copy rots: the other one serves.
    a.rot(fragment(&sealed, 0), 5000);
    assert_eq!(extents.read(&row(&sealed), 4990..5010).await.expect("read"), [5; 20]);
    b.rot(fragment(&sealed, 1), 5000);
    match extents.read(&row(&sealed), 4990..5010).await {
        Err(ReadExtentError::Damaged { extent, at: 4096, source: Some(ReadError::Damaged { .. }) }) => {
            assert_eq!(extent, sealed.id);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        extents.read(&row(&sealed), 0..4096).await.expect("read"),
        [5; 4096],
        "other blocks are whole"
    );
    b.set_broken(true);
    assert!(extents.seal(b"x").await.is_err());
    assert_eq!(a.fragments(), 2, "what arrived is garbage, not an error");
}

#[tokio::test]
async fn a_row_that_does_not_fit_is_told() {
    let store = Arc::new(MemoryStore::new(1 << 20));
    let extents = over(vec![group(1, &[&store])]);
    let sealed = extents.seal(&[5; 9000]).await.expect("sealed");
    let extent = sealed.id;
    let good = row(&sealed);
    let cases = [
        (
            ExtentRow { content_crc: good.content_crc ^ 1, ..good },
            ReadExtentError::Damaged { extent, at: 0, source: None },
        ),
        (ExtentRow { stored_len: 8999, ..good }, ReadExtentError::Damaged { extent, at: 8999, source: None }),
        (ExtentRow { codec: 3, ..good }, ReadExtentError::UnknownCodec { extent, codec: 3 }),
        (
            ExtentRow { group: GroupId(4), ..good },
            ReadExtentError::UnknownGroup { extent, group: GroupId(4) },
        ),
    ];
    for (bad, error) in cases {
        assert_eq!(extents.read(&bad, 0..9000).await, Err(error));
    }
    let id = fragment(&sealed, 0);
    store.delete(vec![id]).await.expect("deleted");
    let gone = ReadExtentError::Damaged { extent, at: 10, source: Some(ReadError::NotFound(id)) };
    assert_eq!(extents.read(&good, 10..20).await, Err(gone));
    store.set_broken(true);
    assert_eq!(extents.read(&good, 10..20).await, Err(ReadExtentError::Io { extent, source: IoError::Gone }));
}

/// Acknowledges a put only when the gate lets it.
struct Slow {
    inner: MemoryStore,
    gate: Arc<Semaphore>,
}

impl FragmentStore for Slow {
    fn put(&self, put: Put, data: IoVec) -> StoreFuture<Result<PutAck, PutError>> {
        let (stored, gate) = (self.inner.put(put, data), Arc::clone(&self.gate));
        Box::pin(async move {
            gate.acquire().await.expect("open").forget();
            stored.await
        })
    }
    fn replace(&self, put: Put, data: IoVec) -> StoreFuture<Result<(), PutError>> {
        self.inner.replace(put, data)
    }
    fn fence(&self, group: GroupId, epoch: Epoch) -> StoreFuture<Result<(), IoError>> {
        self.inner.fence(group, epoch)
    }
    fn has_failed(&self) -> bool {
        self.inner.has_failed()
    }
    fn read(&self, id: FragmentId, range: std::ops::Range<u32>) -> StoreFuture<Result<Verified, ReadError>> {
        self.inner.read(id, range)
    }
    fn check(&self, id: FragmentId) -> StoreFuture<Result<Checked, ReadError>> {
        self.inner.check(id)
    }
    fn have(&self, ids: Vec<FragmentId>) -> StoreFuture<Result<Vec<bool>, ListError>> {
        self.inner.have(ids)
    }
    fn list(
        &self,
        group: GroupId,
        after: Option<FragmentId>,
        max: usize,
    ) -> StoreFuture<Result<Vec<FragmentInfo>, ListError>> {
        self.inner.list(group, after, max)
    }
    fn delete(&self, ids: Vec<FragmentId>) -> StoreFuture<Result<(), DeleteError>> {
        self.inner.delete(ids)
    }
    fn space(&self) -> Space {
        self.inner.space()
    }
}

#[tokio::test]
async fn nobody_may_name_an_extent_before_every_slot_has_it() {
    let gate = Arc::new(Semaphore::new(0));
    let fast = Arc::new(MemoryStore::new(1 << 20));
    let slow: Arc<dyn FragmentStore> =
        Arc::new(Slow { inner: MemoryStore::new(1 << 20), gate: Arc::clone(&gate) });
    let mut slots = group(1, &[&fast]);
    slots.slots.push(Slot::held(DiskId([9; 16]), slow));
    let extents = over(vec![slots]);
    let mut seal = Box::pin(extents.seal(b"hold fast"));
    for _ in 0..10 {
        assert!(futures_util::future::poll_immediate(&mut seal).await.is_none());
    }
    assert_eq!((fast.fragments(), extents.settled()), (1, 1));
    gate.add_permits(1);
    seal.await.expect("sealed");
    assert_eq!(extents.settled(), 1, "in flight until its commit is known");

    let dropped = Box::pin(extents.seal(b"given up"));
    assert!(futures_util::future::poll_immediate(dropped).await.is_none());
    assert_eq!(extents.in_flight(), 1, "a dropped seal is given up");
}
