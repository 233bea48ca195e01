//! What the tests stand on: small disks, fragments, and a store with its driver.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use clock::SimClock;
use device::{BlockDev, Durability, Geometry, IoBuf, IoClass, IoFuture, IoVec, SimDisk};
use store::{
    ClusterId, DiskId, FormatOptions, FragmentStore, OpenError, OpenOptions, Put, RecoveryReport, Store,
};
use tokio::task::JoinHandle;
use types::{
    ByteOffset, Epoch, ExtentId, FragmentId, FragmentKind, GroupId, LayoutId, Nanos, SessionId, VolumeId,
};

pub(crate) const CLUSTER: ClusterId = ClusterId([1; 16]);
pub(crate) const DISK: DiskId = DiskId([2; 16]);

/// A layout that fits a few MiB.
pub(crate) fn small() -> FormatOptions {
    FormatOptions {
        journal_bytes: Some(8 * (16 << 10)),
        intent_bytes: Some(16 << 10),
        checkpoint_bytes: Some(64 << 10),
        segment_bytes: 16 << 10,
        ..FormatOptions::new(CLUSTER, DISK)
    }
}

/// A disk of `bytes`, formatted.
pub(crate) async fn formatted(bytes: u64) -> SimDisk {
    formatted_with(bytes, &small()).await
}

pub(crate) async fn formatted_with(bytes: u64, options: &FormatOptions) -> SimDisk {
    let disk = SimDisk::new(bytes);
    store::format(&disk, options).await.expect("format");
    disk
}

/// A store and the task that drives it.
pub(crate) struct Running {
    pub(crate) store: Store,
    pub(crate) report: RecoveryReport,
    pub(crate) driver: JoinHandle<Result<(), store::CloseError>>,
}

impl Running {
    /// Closes in order.
    pub(crate) async fn close(self) {
        self.store.close().await.expect("close");
        self.driver.await.expect("no panic").expect("an orderly end");
    }

    /// Ends as a crash of the process does.
    pub(crate) async fn kill(self) {
        self.driver.abort();
        let _ = self.driver.await;
    }
}

pub(crate) async fn open_with(disk: &SimDisk, options: OpenOptions) -> Result<Running, OpenError> {
    let clock = Arc::new(SimClock::new(Nanos(0)));
    let (store, driver, report) = store::open(Arc::new(disk.clone()), clock, options).await?;
    Ok(Running { store, report, driver: tokio::spawn(driver.run()) })
}

pub(crate) async fn open(disk: &SimDisk) -> Running {
    open_with(disk, OpenOptions::default()).await.expect("open")
}

pub(crate) fn id(counter: u64) -> FragmentId {
    FragmentId {
        group: GroupId(1),
        extent: ExtentId { volume: VolumeId(1), session: SessionId(1), counter },
        layout: LayoutId(0),
        index: 0,
        kind: FragmentKind::Data,
    }
}

/// Bytes that no other fragment, version or length has.
pub(crate) fn content(counter: u64, version: u8, len: usize) -> Vec<u8> {
    let mut state = counter << 32 | u64::from(version) << 24 | len as u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((state >> 16).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn put_of(id: FragmentId, bytes: &[u8]) -> (Put, IoVec) {
    let block_crcs = checksum::block_crcs(bytes);
    let content_crc = checksum::content_crc(&block_crcs);
    let put = Put { id, epoch: Epoch(1), stored_len: bytes.len() as u32, block_crcs, content_crc };
    (put, vec![IoBuf::from_bytes(bytes)])
}

pub(crate) async fn put(store: &Store, counter: u64, bytes: &[u8]) -> Result<store::PutAck, store::PutError> {
    let (put, data) = put_of(id(counter), bytes);
    store.put(put, data).await
}

/// All of a fragment.
pub(crate) async fn get(store: &Store, counter: u64) -> Result<Vec<u8>, store::ReadError> {
    let len = store.entry(&id(counter)).map_or(1, |entry| entry.stored_len);
    get_range(store, counter, 0..len).await
}

pub(crate) async fn get_range(
    store: &Store,
    counter: u64,
    range: std::ops::Range<u32>,
) -> Result<Vec<u8>, store::ReadError> {
    let verified = store.read(id(counter), range).await?;
    let all: Vec<u8> = verified.blocks.iter().flat_map(|block| block.iter().copied()).collect();
    Ok(all[verified.range].to_vec())
}

/// No damage, no leak, no overlap.
pub(crate) async fn assert_clean(store: &Store) {
    let report = store.verify(|_| ()).await.expect("a disk that answers");
    assert!(report.is_clean(), "{report:?}");
}

/// A disk whose reads wait until they are let through.
pub(crate) struct Gated {
    pub(crate) disk: SimDisk,
    pub(crate) shut: Arc<AtomicBool>,
}

impl BlockDev for Gated {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read(&self, at: ByteOffset, buf: IoBuf, class: IoClass) -> IoFuture<IoBuf> {
        let shut = Arc::clone(&self.shut);
        let (disk, mut buf) = (self.disk.clone(), Some(buf));
        let mut read = None;
        Box::pin(poll_fn(move |cx| {
            if shut.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
            read.get_or_insert_with(|| disk.read(at, buf.take().expect("once"), class)).as_mut().poll(cx)
        }))
    }

    fn write(&self, at: ByteOffset, bufs: IoVec, sync: Durability, class: IoClass) -> IoFuture<IoVec> {
        self.disk.write(at, bufs, sync, class)
    }

    fn flush(&self) -> IoFuture<()> {
        self.disk.flush()
    }
}
