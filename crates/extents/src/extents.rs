//! One session's extents: sealed, named, read.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use checksum::{block_crcs, content_crc};
use device::{IoBuf, IoError};
use namespace::{ExtentRow, NewExtent, SlotState};
use store::{DiskId, Put, PutError, ReadError, Space, Verified};
use types::{EXTENT_MAX, ExtentId, GroupId, LayoutId, SessionId, VolumeId};

use crate::counters::Counters;
use crate::placement::{self, BadCopy, Group, Placement, Slot};

/// The codec of extents whose stored bytes are their plaintext.
const CODEC_PLAIN: u32 = 0;

/// How often a put begins anew because the groups changed under it.
const TRIES: usize = 8;

/// Why plaintext was not sealed. Whatever arrived at a store is garbage, and no row may name it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    /// An extent holds 1 byte to 1 MiB.
    #[error("an extent of {0} bytes cannot be")]
    Length(usize),
    /// No group has room for it.
    #[error("no group has space for an extent of {0} bytes")]
    NoSpace(u32),
    /// Too many disks are away: no group has as many slots as it must have to be written.
    #[error("no group has enough disks to be written")]
    NoGroup,
    /// The session has used up its extent ids.
    #[error("the session has no extent ids left: mount again")]
    NoIds,
    /// No group could take it, and at least one for another reason than space.
    #[error("no group could take extent {extent}; the last to fail was group {group}")]
    Put {
        /// The extent, given up now.
        extent: ExtentId,
        /// The group that failed last.
        group: GroupId,
        /// Why.
        source: PutError,
    },
}

/// Why an extent was not read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadExtentError {
    /// The range is not within the extent.
    #[error("bytes {from} to {to} are not all in extent {extent}")]
    OutOfRange {
        /// Which extent.
        extent: ExtentId,
        /// First byte asked for.
        from: u32,
        /// One past the last.
        to: u32,
    },
    /// The group is not known here.
    #[error("extent {extent} is in group {group}, which is not known here")]
    UnknownGroup {
        /// Which extent.
        extent: ExtentId,
        /// Which group.
        group: GroupId,
    },
    /// The row names a way of storing that this release does not know.
    #[error("extent {extent} is stored with codec {codec}, which this release does not know")]
    UnknownCodec {
        /// Which extent.
        extent: ExtentId,
        /// Its codec.
        codec: u32,
    },
    /// No slot holds the bytes that were written: rotten, of another length, of another content, or not there at all.
    #[error("extent {extent} is damaged at byte {at} of its stored bytes")]
    Damaged {
        /// Which extent.
        extent: ExtentId,
        /// Where its first bad byte lies at the latest, from the start of its stored bytes.
        at: u32,
        /// What the store said, if it was the store that saw it.
        source: Option<ReadError>,
    },
    /// No slot could be read because of its disk.
    #[error("extent {extent} cannot be read")]
    Io {
        /// Which extent.
        extent: ExtentId,
        /// Why.
        source: IoError,
    },
}

/// One session's way to its volume's extents.
pub struct Extents {
    volume: VolumeId,
    session: SessionId,
    placement: Arc<dyn Placement>,
    counters: Mutex<Counters>,
}

/// Why one round over the groups did not seal an extent.
struct Unsealed {
    error: SealError,
    /// Disks that failed a put.
    lost: Vec<DiskId>,
}

impl Extents {
    /// For a session of `volume` that has used no extent counter from `first_counter` on (1 for a new session).
    ///
    /// # Panics
    /// If `first_counter` is 0.
    pub fn new(
        volume: VolumeId,
        session: SessionId,
        first_counter: u64,
        placement: Arc<dyn Placement>,
    ) -> Extents {
        Extents { volume, session, placement, counters: Mutex::new(Counters::from(first_counter)) }
    }

    /// Makes `plaintext` an extent. On return it is durable on every present slot of one group, and a commit may name it.
    ///
    /// Where a slot fails another whole group takes the extent; if there is none, the slot's disk is given up first.
    /// The id is in flight until [`Extents::committed`] or [`Extents::abandoned`] is told of it. On an error, or if the
    /// future is dropped, it is given up: a fragment that was stored is garbage.
    pub async fn seal(&self, plaintext: &[u8]) -> Result<NewExtent, SealError> {
        let len =
            u32::try_from(plaintext.len()).ok().filter(|len| (1..=EXTENT_MAX).contains(&u64::from(*len)));
        let len = len.ok_or(SealError::Length(plaintext.len()))?;
        let id = self.next_id().ok_or(SealError::NoIds)?;
        let in_flight = InFlight { extents: self, counter: id.counter };
        let block_crcs = block_crcs(plaintext);
        let content_crc = content_crc(&block_crcs);
        let mut sealed = NewExtent {
            id,
            group: GroupId(0),
            layout: LayoutId(0),
            codec: CODEC_PLAIN,
            plain_len: len,
            stored_len: len,
            content_crc,
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let groups = self.placement.groups();
            let Err(Unsealed { error, lost }) =
                put_in_one_of(&groups, &mut sealed, &block_crcs, plaintext).await
            else {
                std::mem::forget(in_flight);
                return Ok(sealed);
            };
            if !lost.is_empty() {
                self.placement.lost(lost).await;
            }
            if tries == TRIES || Arc::ptr_eq(&groups, &self.placement.groups()) {
                return Err(error);
            }
        }
    }

    /// Reads `range` of an extent's plaintext.
    ///
    /// Every byte is what was sealed: the store compares block checksums, and a whole extent is compared with its row
    /// as well. A slot that fails is passed over while another one has the bytes. Dropping the future is safe.
    pub async fn read(&self, row: &ExtentRow, range: Range<u32>) -> Result<Vec<u8>, ReadExtentError> {
        let extent = row.id;
        if range.start > range.end || range.end > row.plain_len {
            return Err(ReadExtentError::OutOfRange { extent, from: range.start, to: range.end });
        }
        if row.codec != CODEC_PLAIN {
            return Err(ReadExtentError::UnknownCodec { extent, codec: row.codec });
        }
        if row.stored_len != row.plain_len {
            return Err(ReadExtentError::Damaged {
                extent,
                at: row.stored_len.min(row.plain_len),
                source: None,
            });
        }
        let groups = self.placement.groups();
        let group = groups.iter().find(|group| group.id == row.group);
        let group = group.ok_or(ReadExtentError::UnknownGroup { extent, group: row.group })?;
        let mut failed = Vec::new();
        for (index, slot) in in_order(group, extent) {
            match read_copy(group, index, slot, row, range.clone()).await {
                Ok(bytes) => {
                    for (index, slot, error) in failed {
                        self.passed_over(row, index, slot, &error);
                    }
                    return Ok(bytes);
                }
                Err(error) => failed.push((index, slot, error)),
            }
        }
        // That it is not there says least: the others may have had it.
        let is_missing = |error: &ReadExtentError| {
            matches!(error, ReadExtentError::Damaged { source: Some(ReadError::NotFound(_)), .. })
        };
        failed.sort_by_key(|(_, _, error)| is_missing(error));
        let told = failed.into_iter().next().map(|(_, _, error)| error);
        Err(told.unwrap_or(ReadExtentError::Io { extent, source: IoError::Gone }))
    }

    /// Another copy served. A disk that is gone as a whole is not told copy by copy.
    fn passed_over(&self, row: &ExtentRow, index: usize, slot: &Slot, error: &ReadExtentError) {
        if slot.store.as_ref().is_none_or(|store| store.has_failed()) {
            return;
        }
        tracing::warn!(extent = %row.id, disk = %slot.disk, %error, "a copy is bad, another one served");
        self.placement.bad_copy(BadCopy { row: *row, index, disk: slot.disk });
    }

    /// A row names the extent now.
    pub fn committed(&self, id: ExtentId) {
        self.settle(id);
    }

    /// No row names the extent and none ever will: its commit was not sent, or it was refused.
    pub fn abandoned(&self, id: ExtentId) {
        self.settle(id);
    }

    /// The mark below which every counter of the session is committed or given up: what `Session::settle` takes.
    pub fn settled(&self) -> u64 {
        self.counters().settled()
    }

    /// How many extents are sealed or being sealed and neither committed nor given up.
    pub fn in_flight(&self) -> usize {
        self.counters().in_flight()
    }

    /// How much plaintext fits on the disks in as many copies as are written now, header blocks not counted.
    pub fn space(&self) -> Space {
        placement::space(&self.placement.groups())
    }

    fn next_id(&self) -> Option<ExtentId> {
        let counter = self.counters().take()?;
        Some(ExtentId { volume: self.volume, session: self.session, counter })
    }

    fn settle(&self, id: ExtentId) {
        assert!(
            id.volume == self.volume && id.session == self.session,
            "extent {id} is not of session {}",
            self.session
        );
        self.counters().settle(id.counter);
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A counter that is given up unless its extent was sealed.
struct InFlight<'a> {
    extents: &'a Extents,
    counter: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.extents.counters().settle(self.counter);
    }
}

/// Puts a sealed extent into the first of the candidates that takes it, and notes there which.
async fn put_in_one_of(
    groups: &[Group],
    sealed: &mut NewExtent,
    block_crcs: &[u32],
    stored: &[u8],
) -> Result<(), Unsealed> {
    let (mut failed, mut lost) = (None, Vec::new());
    let candidates = placement::candidates(groups);
    let none = if candidates.is_empty() { SealError::NoGroup } else { SealError::NoSpace(sealed.stored_len) };
    for group in candidates {
        match put_on_present_slots(group, sealed, block_crcs, stored, &mut lost).await {
            Ok(()) => {
                sealed.group = group.id;
                return Ok(());
            }
            Err(PutError::NoSpace(_)) => {}
            Err(source) => failed = Some(SealError::Put { extent: sealed.id, group: group.id, source }),
        }
    }
    Err(Unsealed { error: failed.unwrap_or(none), lost })
}

/// Puts a copy on each slot at once and waits for all: a put that is in flight may still take effect, so none is left
/// behind unheard. Adds the disks that failed to `lost`.
async fn put_on_present_slots(
    group: &Group,
    sealed: &NewExtent,
    block_crcs: &[u32],
    stored: &[u8],
    lost: &mut Vec<DiskId>,
) -> Result<(), PutError> {
    let (mut puts, mut disks) = (Vec::new(), Vec::new());
    for (index, slot) in group.present() {
        let put = Put {
            id: group.fragment(sealed.id, sealed.layout, index),
            epoch: group.epoch,
            stored_len: sealed.stored_len,
            block_crcs: block_crcs.to_vec(),
            content_crc: sealed.content_crc,
        };
        let store = slot.store.as_ref().ok_or(IoError::Gone)?;
        puts.push(store.put(put, vec![IoBuf::from_bytes(stored)]));
        disks.push(slot.disk);
    }
    let mut failed = None;
    for (put, disk) in futures_util::future::join_all(puts).await.into_iter().zip(disks) {
        let Err(error) = put else { continue };
        if matches!(error, PutError::Io(_)) && !lost.contains(&disk) {
            lost.push(disk);
        }
        failed = Some(error);
    }
    failed.map_or(Ok(()), Err)
}

/// The slots that may have an extent: those that have everything first, another one for each extent so that the disks
/// share the work; then, as a last resort, those that are being filled.
fn in_order(group: &Group, extent: ExtentId) -> Vec<(usize, &Slot)> {
    let (mut held, filling): (Vec<_>, Vec<_>) =
        group.present().partition(|(_, slot)| slot.state == SlotState::In);
    if !held.is_empty() {
        let first = (extent.counter % held.len() as u64) as usize;
        held.rotate_left(first);
    }
    held.extend(filling);
    held
}

/// Reads a range of the copy in one slot.
async fn read_copy(
    group: &Group,
    index: usize,
    slot: &Slot,
    row: &ExtentRow,
    range: Range<u32>,
) -> Result<Vec<u8>, ReadExtentError> {
    let store = slot.store.as_ref();
    let store = store.ok_or(ReadExtentError::Io { extent: row.id, source: IoError::Gone })?;
    match store.read(group.fragment(row.id, row.layout, index), range.clone()).await {
        Ok(verified) => join(row, &range, &verified),
        Err(error) => Err(read_error(row.id, range.start, error)),
    }
}

/// The bytes of `range` out of the blocks that hold it, compared with the row as far as they tell.
fn join(row: &ExtentRow, range: &Range<u32>, verified: &Verified) -> Result<Vec<u8>, ReadExtentError> {
    let damaged = ReadExtentError::Damaged { extent: row.id, at: range.start, source: None };
    let wanted = (range.end - range.start) as usize;
    let blocks = verified.blocks.iter().map(|buf| buf.len()).sum::<usize>();
    if verified.range.len() != wanted || verified.range.end > blocks {
        return Err(damaged);
    }
    let mut bytes = Vec::with_capacity(wanted);
    let mut at = 0;
    for block in &verified.blocks {
        let from = verified.range.start.clamp(at, at + block.len());
        let to = verified.range.end.clamp(at, at + block.len());
        bytes.extend_from_slice(&block[from - at..to - at]);
        at += block.len();
    }
    let whole = range.start == 0 && range.end == row.stored_len;
    if whole && content_crc(&block_crcs(&bytes)) != row.content_crc {
        return Err(damaged);
    }
    Ok(bytes)
}

fn read_error(extent: ExtentId, from: u32, error: ReadError) -> ReadExtentError {
    match error {
        ReadError::Io(source) => ReadExtentError::Io { extent, source },
        ReadError::Damaged { block, .. } => {
            // Block 0 is the header, so it loses all of the fragment.
            let at = block.saturating_sub(1).saturating_mul(types::BLOCK as u32);
            ReadExtentError::Damaged { extent, at, source: Some(error) }
        }
        ReadError::NotFound(_) | ReadError::OutOfRange(_) => {
            ReadExtentError::Damaged { extent, at: from, source: Some(error) }
        }
    }
}

mod discard;
#[cfg(test)]
mod tests;
