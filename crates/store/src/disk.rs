//! A disk's life: formatted once, opened, grown.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use device::{BlockDev, Durability, IoBuf, IoClass, IoError};
use journal::{Log, Shape};
use types::{BLOCK, ByteOffset, ByteSize, FragmentId};

use crate::checkpointer::no_checkpoint;
use crate::commit::Driver;
use crate::error::{Damage, FormatError, GrowError, OpenError};
use crate::layout::{ClusterId, DiskId, ENDS, FormatOptions, Layout};
use crate::roots;
use crate::store::Store;
use crate::superblock::{State, Superblock, VERSION, segment_is_sound};

/// How to open a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenOptions {
    /// Refuse a disk of any other cluster.
    pub cluster: Option<ClusterId>,
    /// Refuse any other disk.
    pub disk: Option<DiskId>,
    /// Change nothing on the disk, and refuse puts and deletes: for `fsck` and `dump`.
    pub read_only: bool,
    /// How much of the data region is kept free, in thousandths: without it runs of blocks get scarce.
    pub reserve_per_mille: u16,
    /// How much of the data region is searched for a run at a time, in bytes.
    pub allocation_shard_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            cluster: None,
            disk: None,
            read_only: false,
            reserve_per_mille: 50,
            allocation_shard_bytes: 1 << 30,
        }
    }
}

/// What an open found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// How often the disk was opened, this time included.
    pub incarnation: u64,
    /// All of the journal below this lsn is durable.
    pub flushed: u64,
    /// Whether it had been closed in order.
    pub was_closed: bool,
    /// How many fragments it has.
    pub fragments: u64,
    /// How many of them came from the checkpoint.
    pub from_checkpoint: u64,
    /// How many journal records were replayed.
    pub replayed: u64,
    /// How many fragments were read because they may not have been acknowledged.
    pub verified: u64,
    /// Those of them that were not whole, and were taken back.
    pub undone: Vec<FragmentId>,
    /// Whole journal batches that lay behind a torn one and were dropped with it.
    pub batches_dropped: usize,
    /// Copies of the superblock that were not as they should be; they are now, unless opened for reading only.
    pub copies_healed: u32,
    /// How long it took.
    pub took: Duration,
}

/// Formats a disk: everything that was on it is lost. Durable on return. Cut short, it leaves a disk that opens as
/// [`OpenError::Blank`] or [`OpenError::HalfFormatted`].
pub async fn format(dev: &dyn BlockDev, options: &FormatOptions) -> Result<(), FormatError> {
    if !segment_is_sound(options.segment_bytes) {
        return Err(FormatError::SegmentSize(options.segment_bytes));
    }
    let bytes = dev.geometry().bytes;
    let layout = Layout::of(bytes, options)?;
    // What was there before must not be found by an open between here and the end, and by nobody else ever.
    for at in [0, bytes / BLOCK * BLOCK - ENDS] {
        let zeros = vec![IoBuf::zeroed(ENDS as usize)];
        dev.write(ByteOffset(at), zeros, Durability::Buffered, IoClass::Log).await?;
    }
    dev.flush().await?;
    let shape = shape_of(&layout, options.disk, options.segment_bytes);
    Log::format(dev, &shape).await.map_err(|error| match error {
        journal::OpenError::Disk { source, .. } => source,
        other => unreachable!("the layout was made for a journal: {other}"),
    })?;
    let superblock = Superblock {
        version: VERSION,
        incompat: 0,
        ro_compat: 0,
        cluster: options.cluster,
        disk: options.disk,
        sequence: 1,
        incarnation: 0,
        state: State::Closed,
        disk_bytes: bytes,
        layout,
        checkpoint: no_checkpoint(shape.first()),
        journal_flushed: shape.first().0,
        segment_bytes: options.segment_bytes,
    };
    Ok(roots::write(dev, &superblock).await?)
}

/// Opens a disk. The store serves reads at once, puts and deletes while the driver runs.
///
/// What a crash left half done is put right before this returns: everything acknowledged before is there.
pub async fn open(
    dev: Arc<dyn BlockDev>,
    clock: Arc<dyn Clock>,
    options: OpenOptions,
) -> Result<(Store, Driver, RecoveryReport), OpenError> {
    let started = clock.elapsed();
    let copies = roots::read_copies(&*dev).await;
    let superblock = match roots::pick(&copies, dev.geometry().bytes) {
        Err(OpenError::Blank) if !roots::ends_are_blank(&*dev).await? => return Err(OpenError::NotHoldfast),
        picked => picked?,
    };
    check_identity(&superblock, &options)?;
    let stray = roots::stray(&copies, &superblock);
    let clock_after = Arc::clone(&clock);
    let (store, driver, mut report) =
        crate::recovery::recover(dev, clock, superblock, options, &stray).await?;
    report.copies_healed = stray.len() as u32;
    report.took = clock_after.elapsed().saturating_sub(started);
    Ok((store, driver, report))
}

/// Makes a disk as large as `bytes`, which its device must have; it must not be open. Only the data region grows.
///
/// Cut short, the disk has its old size or its new one, and everything that was on it.
pub async fn grow(dev: &dyn BlockDev, bytes: u64) -> Result<(), GrowError> {
    let bytes = bytes / BLOCK * BLOCK;
    let have = dev.geometry().bytes;
    if bytes > have {
        return Err(GrowError::DeviceTooSmall { have: ByteSize(have), asked: ByteSize(bytes) });
    }
    let old = roots::pick(&roots::read_copies(dev).await, have)?;
    check_writable(&old)?;
    if bytes < old.disk_bytes {
        return Err(GrowError::Shrink { have: ByteSize(old.disk_bytes), asked: ByteSize(bytes) });
    }
    if bytes == old.disk_bytes {
        return Ok(());
    }
    let layout = old.layout.grown(bytes);
    let new = Superblock { disk_bytes: bytes, layout, sequence: old.sequence + 1, ..old };
    // The new ends first: while they are written, both copies at the start and both old ends agree on the old size.
    roots::write_pair(dev, &new, [2, 3]).await?;
    Ok(roots::write_pair(dev, &new, [0, 1]).await?)
}

fn check_identity(superblock: &Superblock, options: &OpenOptions) -> Result<(), OpenError> {
    if let Some(expected) = options.cluster.filter(|cluster| *cluster != superblock.cluster) {
        return Err(OpenError::OtherCluster { found: superblock.cluster, expected });
    }
    if let Some(expected) = options.disk.filter(|disk| *disk != superblock.disk) {
        return Err(OpenError::OtherDisk { found: superblock.disk, expected });
    }
    Ok(())
}

/// Refuses to change a disk with features that only readers may ignore.
fn check_writable(superblock: &Superblock) -> Result<(), OpenError> {
    match superblock.unknown_ro_compat() {
        0 => Ok(()),
        features => Err(OpenError::NewerFormat { version: superblock.version, features }),
    }
}

/// Where the journal lies and how it is cut.
pub(crate) fn shape_of(layout: &Layout, disk: DiskId, segment_bytes: u32) -> Shape {
    Shape { at: ByteOffset(layout.journal.at), bytes: layout.journal.len, uuid: disk.0, segment_bytes }
}

/// What the journal's error means for the disk.
pub(crate) fn journal_error(error: journal::OpenError) -> OpenError {
    match error {
        journal::OpenError::Damaged { at, lsn, .. } | journal::OpenError::Malformed { at, lsn } => {
            OpenError::Damaged(Damage::Journal { at: at.0, lsn: lsn.0 })
        }
        journal::OpenError::Disk { source, .. } => OpenError::Io(source),
        journal::OpenError::Shape(_) | journal::OpenError::Exhausted => {
            OpenError::Damaged(Damage::JournalExhausted)
        }
    }
}

impl From<crate::checkpoint::CheckpointError> for OpenError {
    fn from(error: crate::checkpoint::CheckpointError) -> OpenError {
        match error {
            crate::checkpoint::CheckpointError::Damaged { at } => {
                OpenError::Damaged(Damage::Checkpoint { at })
            }
            crate::checkpoint::CheckpointError::Io(error) => OpenError::Io(error),
        }
    }
}

/// Writes refused because the disk is open for reading only.
pub(crate) fn read_only_error() -> IoError {
    IoError::Failed { op: "write", at: 0, len: 0, errno: types::Errno::EROFS }
}
