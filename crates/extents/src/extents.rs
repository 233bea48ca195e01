//! One session's extents: sealed, named, read.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use checksum::{block_crcs, content_crc};
use device::{IoBuf, IoError};
use namespace::{ExtentRow, NewExtent};
use store::{FragmentStore, Put, PutError, ReadError, Space, Verified};
use types::{EXTENT_MAX, Epoch, ExtentId, FragmentId, FragmentKind, GroupId, LayoutId, SessionId, VolumeId};

use crate::counters::Counters;

/// The codec of extents whose stored bytes are their plaintext.
const CODEC_PLAIN: u32 = 0;

/// A placement group and the stores of its slots, in the order of their index.
#[derive(Clone)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its epoch, as this process knows it.
    pub epoch: Epoch,
    /// A whole copy goes to each; at least one, at most 256.
    pub slots: Vec<Arc<dyn FragmentStore>>,
}

/// Why plaintext was not sealed. Whatever arrived at a store is garbage, and no row may name it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    /// An extent holds 1 byte to 1 MiB.
    #[error("an extent of {0} bytes cannot be")]
    Length(usize),
    /// No group has room for it.
    #[error("no group has space for an extent of {0} bytes")]
    NoSpace(u32),
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
    groups: Vec<Group>,
    counters: Mutex<Counters>,
}

impl Extents {
    /// For a session of `volume` that has used no extent counter from `first_counter` on (1 for a new session), over
    /// the groups that this process can reach.
    ///
    /// # Panics
    /// If `first_counter` is 0, or a group has no slot or more than 256.
    pub fn new(volume: VolumeId, session: SessionId, first_counter: u64, groups: Vec<Group>) -> Extents {
        assert!(
            groups.iter().all(|group| (1..=256).contains(&group.slots.len())),
            "a group has 1 to 256 slots"
        );
        Extents { volume, session, groups, counters: Mutex::new(Counters::from(first_counter)) }
    }

    /// Makes `plaintext` an extent. On return it is durable on every slot of one group, and a commit may name it.
    ///
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
        let mut failed = None;
        for group in self.by_free_space() {
            let sealed = NewExtent {
                id,
                group: group.id,
                layout: LayoutId(0),
                codec: CODEC_PLAIN,
                plain_len: len,
                stored_len: len,
                content_crc,
            };
            match put_on_every_slot(group, &sealed, &block_crcs, plaintext).await {
                Ok(()) => {
                    std::mem::forget(in_flight);
                    return Ok(sealed);
                }
                Err(PutError::NoSpace(_)) => {}
                Err(source) => failed = Some(SealError::Put { extent: id, group: group.id, source }),
            }
        }
        Err(failed.unwrap_or(SealError::NoSpace(len)))
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
        let group = self.groups.iter().find(|group| group.id == row.group);
        let group = group.ok_or(ReadExtentError::UnknownGroup { extent, group: row.group })?;
        let mut failed = None;
        for (index, store) in group.slots.iter().enumerate() {
            let id = fragment_id(row.group, extent, row.layout, index);
            let read = match store.read(id, range.clone()).await {
                Ok(verified) => join(row, &range, &verified),
                Err(error) => Err(read_error(extent, range.start, error)),
            };
            match read {
                Ok(bytes) => return Ok(bytes),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("a group has at least one slot"))
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

    /// The space of all groups together, each as large as its smallest slot.
    pub fn space(&self) -> Space {
        self.groups.iter().map(group_space).fold(Space::default(), |sum, space| Space {
            total: sum.total + space.total,
            free: sum.free + space.free,
        })
    }

    fn next_id(&self) -> Option<ExtentId> {
        let counter = self.counters().take()?;
        Some(ExtentId { volume: self.volume, session: self.session, counter })
    }

    /// The groups, the one with the most free bytes first.
    fn by_free_space(&self) -> Vec<&Group> {
        let mut groups: Vec<(u64, &Group)> = self.groups.iter().map(|g| (group_space(g).free, g)).collect();
        groups.sort_by_key(|(free, group)| (std::cmp::Reverse(*free), group.id));
        groups.into_iter().map(|(_, group)| group).collect()
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

fn fragment_id(group: GroupId, extent: ExtentId, layout: LayoutId, index: usize) -> FragmentId {
    let index = u8::try_from(index).expect("a group has at most 256 slots");
    FragmentId { group, extent, layout, index, kind: FragmentKind::Data }
}

fn group_space(group: &Group) -> Space {
    let spaces = || group.slots.iter().map(|slot| slot.space());
    Space {
        total: spaces().map(|space| space.total).min().unwrap_or(0),
        free: spaces().map(|space| space.free).min().unwrap_or(0),
    }
}

/// Puts a copy on each slot at once and waits for all: a put that is in flight may still take effect, so none is left
/// behind unheard.
async fn put_on_every_slot(
    group: &Group,
    sealed: &NewExtent,
    block_crcs: &[u32],
    stored: &[u8],
) -> Result<(), PutError> {
    let mut puts = Vec::with_capacity(group.slots.len());
    for (index, store) in group.slots.iter().enumerate() {
        let put = Put {
            id: fragment_id(group.id, sealed.id, sealed.layout, index),
            epoch: group.epoch,
            stored_len: sealed.stored_len,
            block_crcs: block_crcs.to_vec(),
            content_crc: sealed.content_crc,
        };
        puts.push(store.put(put, vec![IoBuf::from_bytes(stored)]));
    }
    let mut failed = None;
    for put in futures_util::future::join_all(puts).await {
        if let Err(error) = put {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
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
