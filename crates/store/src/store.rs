//! An open disk as its callers see it.

use std::collections::hash_map;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use checksum::crc32c;
use device::{Durability, IoBuf, IoClass, IoError, IoVec};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use types::{BLOCK, ByteOffset, Epoch, FragmentId, GroupId};

use crate::checkpoint::Group;
use crate::error::CloseError;
use crate::fragments::{
    Checked, DeleteError, FragmentInfo, FragmentStore, ListError, Put, PutAck, PutError, ReadError, Space,
    StoreFuture, Verified,
};
use crate::header::{Header, INLINE_MAX, STORED_MAX, blocks_of};
use crate::index::{Entry, Run};
use crate::layout::{ClusterId, DiskId};
use crate::shared::{InFlight, Op, Pinned, Shared};
use crate::superblock::Superblock;

/// The fragments of one open disk. Clones are the same store.
///
/// Puts and deletes make progress while the [`crate::Driver`] of the store runs; reads and lists need nothing.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    pub(crate) opened: Superblock,
}

/// What admission found.
enum Admitted {
    /// The put is on its way; the answer comes from the driver.
    Waiting(oneshot::Receiver<Result<(), IoError>>, PutAck),
    /// A fragment of that name is there: its content has to be compared. Data and permit come back.
    Exists(Pinned, Handed),
}

/// What a put brings along.
type Handed = (IoVec, OwnedSemaphorePermit);

impl Store {
    /// The cluster that the disk belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.opened.cluster
    }

    /// Which disk this is.
    pub fn disk(&self) -> DiskId {
        self.opened.disk
    }

    /// How often the disk was opened: a disk that comes back with less was rolled back.
    pub fn incarnation(&self) -> u64 {
        self.opened.incarnation
    }

    /// The superblock as of the open.
    pub fn superblock(&self) -> &Superblock {
        &self.opened
    }

    /// How many fragments there are.
    pub fn fragments(&self) -> u64 {
        self.shared.index.len()
    }

    /// Bytes that fragments may take in all, headers and what is kept free included.
    pub fn capacity(&self) -> u64 {
        self.shared.alloc.blocks() * BLOCK
    }

    /// Bytes that fragments take, headers and puts in flight included.
    pub fn used(&self) -> u64 {
        self.shared.alloc.used() * BLOCK
    }

    /// Bytes that fragments may still take.
    pub fn free(&self) -> u64 {
        self.shared.alloc.free() * BLOCK
    }

    /// Bytes that are out of use, because what was read from there was not what had been written.
    pub fn withheld(&self) -> u64 {
        self.shared.bad.bytes()
    }

    /// How many checkpoints of the index were taken since the open.
    pub fn checkpoints(&self) -> u64 {
        self.shared.checkpoints.load(Ordering::Relaxed)
    }

    /// Whether the disk failed: everything answers [`IoError::Gone`] until it is opened anew.
    pub fn is_poisoned(&self) -> bool {
        self.shared.poisoned.load(Ordering::Acquire)
    }

    /// Where a fragment is, if it is here.
    pub fn entry(&self, id: &FragmentId) -> Option<Entry> {
        self.shared.index.get(id)
    }

    /// The header of a fragment, verified.
    pub async fn header(&self, id: FragmentId) -> Result<Header, ReadError> {
        self.shared.check()?;
        let pinned = self.shared.pin(id).ok_or(ReadError::NotFound(id))?;
        self.shared.read_header(id, pinned.entry).await.map(|header| Header::clone(&header))
    }

    /// Ends the store: what was handed over before is finished, then the index is written to the disk, so that the
    /// next open is quick. The driver ends; everything later answers [`IoError::Gone`].
    pub async fn close(&self) -> Result<(), CloseError> {
        self.shared.check()?;
        let (answer, answered) = oneshot::channel();
        self.shared.closed.store(true, Ordering::Release);
        self.shared.send(Op::Close { answer })?;
        answered.await.unwrap_or(Err(IoError::Gone)).map_err(CloseError::from)
    }

    /// Refuses puts of a group below `epoch` from now on. Durable on return; a smaller epoch than the one known
    /// changes nothing.
    pub async fn set_group_epoch(&self, group: GroupId, epoch: Epoch, state: u32) -> Result<(), IoError> {
        self.shared.check()?;
        self.shared.check_writable()?;
        let permit = Arc::clone(&self.shared.admission).acquire_owned().await;
        let _admitted = permit.map_err(|_| IoError::Gone)?;
        let (answer, answered) = oneshot::channel();
        self.shared.send(Op::Group { id: group, group: Group { epoch, state }, answer, _admitted })?;
        answered.await.unwrap_or(Err(IoError::Gone))
    }

    /// The epoch below which puts of a group are refused; 0 if none was ever set.
    pub fn group_epoch(&self, group: GroupId) -> Epoch {
        self.shared.epoch_of(group)
    }
}

impl Shared {
    fn check_writable(&self) -> Result<(), IoError> {
        if self.read_only {
            return Err(crate::disk::read_only_error());
        }
        Ok(())
    }

    pub(crate) fn send(&self, op: Op) -> Result<(), IoError> {
        self.queue.send(op).map_err(|_| IoError::Gone)
    }

    async fn put(self: Arc<Self>, put: Put, data: IoVec) -> Result<PutAck, PutError> {
        self.check()?;
        self.check_writable()?;
        let data = verified(&put, data)?;
        let blocks = blocks_of(put.stored_len);
        let permit = Arc::clone(&self.admission).acquire_many_owned(blocks).await;
        let permit = permit.map_err(|_| IoError::Gone)?;
        let mut handed = (data, permit);
        let mut damaged = None;
        loop {
            let (pinned, back) = match self.admit(&put, handed, damaged)? {
                Admitted::Waiting(answered, ack) => {
                    answered.await.unwrap_or(Err(IoError::Gone))?;
                    return Ok(ack);
                }
                Admitted::Exists(pinned, back) => (pinned, back),
            };
            handed = back;
            let read = self.read_header(put.id, pinned.entry).await;
            match self.judged(&pinned.entry, read) {
                Ok(header) if same_content(&header, &put) => return Ok(PutAck::AlreadyHave),
                Ok(_) => {
                    tracing::error!(fragment = %put.id, "a fragment was put again with other content");
                    return Err(PutError::Conflict(put.id));
                }
                Err(ReadError::Io(IoError::Gone)) => return Err(IoError::Gone.into()),
                // What is there is lost, so this put repairs it.
                Err(_) => damaged = Some(pinned.entry),
            }
        }
    }

    /// Puts over what is there. A put of the same name that comes meanwhile has done it.
    async fn replace(self: Arc<Self>, put: Put, data: IoVec) -> Result<(), PutError> {
        self.check()?;
        self.check_writable()?;
        let data = verified(&put, data)?;
        let permit = Arc::clone(&self.admission).acquire_many_owned(blocks_of(put.stored_len)).await;
        let permit = permit.map_err(|_| IoError::Gone)?;
        let bad = self.index.get(&put.id);
        match self.admit(&put, (data, permit), bad)? {
            Admitted::Waiting(answered, _) => Ok(answered.await.unwrap_or(Err(IoError::Gone))?),
            Admitted::Exists(..) => Ok(()),
        }
    }

    /// Starts a put, unless a fragment of that name is there that is not known to be `damaged`.
    ///
    /// From the look at what is there to the hand-over to the driver nothing waits: a caller that is dropped leaves
    /// either nothing, or a put that runs to its end. Otherwise blocks could be handed out anew while a write to
    /// them is still under way.
    fn admit(
        self: &Arc<Self>,
        put: &Put,
        (data, admitted): Handed,
        damaged: Option<Entry>,
    ) -> Result<Admitted, PutError> {
        let (answer, answered) = oneshot::channel();
        let mut in_flight = self.in_flight();
        // Under the lock under which an epoch is raised: who passes here is in the queue before it is.
        let current = self.epoch_of(put.id.group);
        if put.epoch < current {
            return Err(PutError::StaleEpoch { sent: put.epoch, current });
        }
        let count = in_flight.len();
        let vacant = match in_flight.entry(put.id) {
            hash_map::Entry::Occupied(mut same) => {
                let same = same.get_mut();
                if (same.content_crc, same.stored_len) != (put.content_crc, put.stored_len) {
                    return Err(PutError::Conflict(put.id));
                }
                same.waiting.push(answer);
                return Ok(Admitted::Waiting(answered, PutAck::AlreadyHave));
            }
            hash_map::Entry::Vacant(vacant) => vacant,
        };
        if let Some(pinned) = self.pin(put.id).filter(|pinned| Some(pinned.entry) != damaged) {
            return Ok(Admitted::Exists(pinned, (data, admitted)));
        }
        if !self.index_has_room(count, 1) {
            return Err(PutError::NoSpace(put.stored_len));
        }
        let run = self.claim(blocks_of(put.stored_len)).ok_or(PutError::NoSpace(put.stored_len))?;
        let (entry, bufs) = self.laid_out(put, run, data);
        let at = ByteOffset(run.block * BLOCK);
        let write = self.dev.write(at, bufs, Durability::Buffered, IoClass::Write);
        vacant.insert(InFlight {
            content_crc: put.content_crc,
            stored_len: put.stored_len,
            waiting: vec![answer],
        });
        // The order in the queue is the order in the journal, so it is sent under the lock.
        if self.send(Op::Put { id: put.id, entry, write, _admitted: admitted }).is_err() {
            in_flight.remove(&put.id);
            // The blocks stay taken: a write to them may be under way. Nothing is handed out any more anyway.
            return Err(IoError::Gone.into());
        }
        Ok(Admitted::Waiting(answered, PutAck::Stored))
    }

    /// Header and data as they go to the disk, and what the index will say of them.
    fn laid_out(&self, put: &Put, run: Run, data: IoVec) -> (Entry, IoVec) {
        let header = Header {
            epoch: put.epoch,
            id: put.id,
            disk: self.disk,
            block: run.block,
            stored_len: put.stored_len,
            crcs: put.block_crcs.clone(),
            content_crc: put.content_crc,
        };
        let inline = if header.is_inline() { &data[0][..put.stored_len as usize] } else { &[] };
        let (block, header_crc) = header.encode(inline);
        let mut bufs = vec![block];
        if !header.is_inline() {
            bufs.extend(data);
        }
        let entry =
            Entry { block: run.block, stored_len: put.stored_len, header_crc, epoch: put.epoch, heat: 0 };
        self.headers.keep(&entry, Arc::new(header));
        (entry, bufs)
    }

    async fn delete(self: Arc<Self>, ids: Vec<FragmentId>) -> Result<(), DeleteError> {
        self.check()?;
        self.check_writable()?;
        for ids in ids.chunks(self.delete_ids_max) {
            let permit = Arc::clone(&self.admission).acquire_many_owned(ids.len() as u32).await;
            let _admitted = permit.map_err(|_| IoError::Gone)?;
            let (answer, answered) = oneshot::channel();
            self.send(Op::Delete { ids: ids.to_vec(), answer, _admitted })?;
            answered.await.unwrap_or(Err(IoError::Gone))?;
        }
        Ok(())
    }
}

fn same_content(header: &Header, put: &Put) -> bool {
    (header.content_crc, header.stored_len) == (put.content_crc, put.stored_len)
        && header.crcs == put.block_crcs
}

/// Compares data with its checksums and cuts it to the blocks that it needs.
fn verified(put: &Put, data: IoVec) -> Result<IoVec, PutError> {
    let damaged = PutError::Damaged(put.id);
    if put.stored_len == 0 || put.stored_len > STORED_MAX {
        return Err(damaged);
    }
    let count = put.stored_len.div_ceil(BLOCK as u32) as usize;
    // Whole copies only, as long as nothing is cut into shards: then a shard cannot be compared with the whole.
    if put.block_crcs.len() != count || checksum::content_crc(&put.block_crcs) != put.content_crc {
        return Err(damaged);
    }
    let mut rest = count;
    let mut cut = IoVec::with_capacity(data.len());
    for buf in data {
        let blocks = buf.len() / BLOCK as usize;
        match rest {
            0 => break,
            _ if blocks <= rest => cut.push(buf),
            _ => cut.push(IoBuf::from_bytes(&buf[..rest * BLOCK as usize])),
        }
        rest -= blocks.min(rest);
    }
    let crcs = cut.iter().flat_map(|buf| buf.chunks(BLOCK as usize)).map(crc32c);
    if rest > 0 || !crcs.eq(put.block_crcs.iter().copied()) {
        return Err(damaged);
    }
    // Small data is moved into the header's block, so it has to be in one buffer: it is at most one block.
    assert!(put.stored_len > INLINE_MAX || cut.len() == 1, "one block lies in one buffer");
    Ok(cut)
}

impl FragmentStore for Store {
    fn put(&self, put: Put, data: IoVec) -> StoreFuture<Result<PutAck, PutError>> {
        Box::pin(Arc::clone(&self.shared).put(put, data))
    }

    fn replace(&self, put: Put, data: IoVec) -> StoreFuture<Result<(), PutError>> {
        Box::pin(Arc::clone(&self.shared).replace(put, data))
    }

    fn fence(&self, group: GroupId, epoch: Epoch) -> StoreFuture<Result<(), IoError>> {
        let store = self.clone();
        Box::pin(async move {
            store.set_group_epoch(group, epoch, 0).await?;
            // Puts that passed before stand in the queue before this second one.
            store.set_group_epoch(group, epoch, 0).await
        })
    }

    fn has_failed(&self) -> bool {
        self.is_poisoned()
    }

    fn read(&self, id: FragmentId, range: Range<u32>) -> StoreFuture<Result<Verified, ReadError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            shared.check()?;
            let pinned = shared.pin(id).ok_or(ReadError::NotFound(id))?;
            let read = shared.read_range(id, pinned.entry, range, IoClass::Read).await;
            shared.judged(&pinned.entry, read)
        })
    }

    fn check(&self, id: FragmentId) -> StoreFuture<Result<Checked, ReadError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            shared.check()?;
            let pinned = shared.pin(id).ok_or(ReadError::NotFound(id))?;
            let read = shared.verify_fragment(id, pinned.entry).await;
            shared.judged(&pinned.entry, read)
        })
    }

    fn have(&self, ids: Vec<FragmentId>) -> StoreFuture<Result<Vec<bool>, ListError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            shared.check()?;
            Ok(ids.iter().map(|id| shared.index.get(id).is_some()).collect())
        })
    }

    fn list(
        &self,
        group: GroupId,
        after: Option<FragmentId>,
        max: usize,
    ) -> StoreFuture<Result<Vec<FragmentInfo>, ListError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            shared.check()?;
            Ok(shared.index.list(group, after.as_ref(), max))
        })
    }

    fn delete(&self, ids: Vec<FragmentId>) -> StoreFuture<Result<(), DeleteError>> {
        Box::pin(Arc::clone(&self.shared).delete(ids))
    }

    fn space(&self) -> Space {
        let kept_free = self.shared.alloc.reserve();
        // A fragment that the index has no room for finds no blocks either. The smallest that a full disk is made of
        // has a block of data and one of header.
        let entries = self.shared.index_room().saturating_mul(2 * BLOCK);
        Space { total: (self.shared.alloc.blocks() - kept_free) * BLOCK, free: self.free().min(entries) }
    }
}
