//! Opening a disk after a crash, or after an orderly end: both are the same way.
//!
//! Checkpoint, then journal. What lies behind the highest mark of durability that was found may never have been
//! acknowledged, and its data may be missing: each such fragment is read, and what is not whole is taken back by a
//! record. Replay needs no care for what a shard of the checkpoint already has: each record says what is true of its
//! fragment from then on, so doing it again changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use clock::Clock;
use device::{BlockDev, Durability};
use journal::{Log, Lsn, Recovery, Room, Start};
use tokio::sync::{Semaphore, mpsc};
use types::{BLOCK, FragmentId, GroupId};

use crate::alloc::Allocator;
use crate::bad::BadBlocks;
use crate::checkpoint::{self, CheckpointRecord, Group};
use crate::checkpointer::{Beat, Checkpointer};
use crate::commit::Driver;
use crate::disk::{OpenOptions, RecoveryReport, journal_error, shape_of};
use crate::error::{Damage, OpenError};
use crate::fragments::ReadError;
use crate::headers::HeaderCache;
use crate::index::{Entry, Index, Run, SHARDS};
use crate::record::{Record, RecordError};
use crate::shared::{IN_FLIGHT_BLOCKS, Op, Shared};
use crate::store::Store;
use crate::superblock::{State, Superblock};

/// What replay learned.
#[derive(Default)]
struct Replayed {
    groups: BTreeMap<GroupId, Group>,
    /// Fragments put behind the mark, each with what it replaced since it was last absent, oldest first.
    tail: HashMap<FragmentId, Vec<Entry>>,
    /// Runs that are withheld, unless a fragment has them.
    bad: BTreeMap<u64, Run>,
    records: u64,
}

pub(crate) async fn recover(
    dev: Arc<dyn BlockDev>,
    clock: Arc<dyn Clock>,
    found: Superblock,
    options: OpenOptions,
    stray: &[u32],
) -> Result<(Store, Driver, RecoveryReport), OpenError> {
    let read_only = options.read_only || found.unknown_ro_compat() != 0;
    let index = Index::new();
    let mut replayed = Replayed::default();
    let from_checkpoint = load_checkpoint(&*dev, &found, &index, &mut replayed).await?;

    let shape = shape_of(&found.layout, found.disk, found.segment_bytes);
    let start = Start::At { start: Lsn(found.checkpoint.journal_from), flushed: Lsn(found.journal_flushed) };
    let (log, mut journal) = if read_only {
        (None, Recovery::read(Arc::clone(&dev), shape, start).await.map_err(journal_error)?)
    } else {
        let (log, journal) = Log::open(Arc::clone(&dev), shape, start).await.map_err(journal_error)?;
        (Some(log), journal)
    };
    replay(&mut journal, &index, &mut replayed).await?;

    let (queue, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(assemble(dev, clock, &found, options, index, &mut replayed, queue, read_only));
    let mut report = RecoveryReport {
        incarnation: found.incarnation,
        flushed: journal.flushed().0,
        was_closed: found.state == State::Closed,
        from_checkpoint,
        replayed: replayed.records,
        verified: replayed.tail.len() as u64,
        batches_dropped: journal.dropped(),
        ..RecoveryReport::default()
    };
    let undo = verify_tail(&shared, replayed.tail, &mut report.undone).await?;
    build_bitmap(&shared)?;
    report.fragments = shared.index.len();

    let mut superblock = found;
    if let Some(log) = &log {
        crate::roots::heal(&*shared.dev, &found, stray).await?;
        superblock = settle(&shared, log, found, undo).await?;
        report.incarnation = superblock.incarnation;
        report.flushed = superblock.journal_flushed;
    }
    let store = Store { shared: Arc::clone(&shared), opened: superblock };
    Ok((store, Driver::new(shared, receiver, log, superblock), report))
}

async fn load_checkpoint(
    dev: &dyn BlockDev,
    superblock: &Superblock,
    index: &Index,
    replayed: &mut Replayed,
) -> Result<u64, OpenError> {
    let named = &superblock.checkpoint;
    let area = superblock.layout.checkpoints[named.slot as usize];
    if named.len > 0 {
        checkpoint::read(dev, superblock.disk, area, named, |record| match record {
            CheckpointRecord::Shard(part) => {
                for (id, entry) in part.entries {
                    // No block is taken yet, so none is freed.
                    let _ = index.insert(&id, entry);
                }
            }
            CheckpointRecord::Group(id, group) => {
                replayed.groups.insert(id, group);
            }
            CheckpointRecord::Bad(run) => {
                replayed.bad.insert(run.block, run);
            }
        })
        .await?;
    }
    Ok(index.len())
}

async fn replay(journal: &mut Recovery, index: &Index, replayed: &mut Replayed) -> Result<(), OpenError> {
    let mark = journal.flushed();
    while let Some(batch) = journal.next().await.map_err(journal_error)? {
        for record in batch.records() {
            let decoded = if record.flags == 0 {
                Record::decode(record.kind, record.body)
            } else {
                Err(RecordError::Malformed(record.kind))
            };
            let record = decoded.map_err(|error| match error {
                RecordError::UnknownType(_) => OpenError::NewerJournal(error),
                RecordError::Malformed(_) => OpenError::Damaged(Damage::Record(error)),
            })?;
            apply(record, batch.end > mark, index, replayed)?;
            replayed.records += 1;
        }
    }
    Ok(())
}

fn apply(record: Record, in_tail: bool, index: &Index, replayed: &mut Replayed) -> Result<(), OpenError> {
    match record {
        Record::Put { id, entry } => {
            if in_tail {
                let before = replayed.tail.entry(id).or_default();
                before.extend(index.get(&id).filter(|old| *old != entry));
            }
            let _ = index.insert(&id, entry);
        }
        Record::Delete { id } => {
            replayed.tail.remove(&id);
            let _ = index.remove(&id);
        }
        Record::GroupEpoch { group, epoch, state } => {
            let known = replayed.groups.entry(group).or_insert(Group { epoch, state });
            if epoch >= known.epoch {
                *known = Group { epoch, state };
            }
        }
        // Drawn for what later releases do; this one would not honour them.
        Record::BadBlocks { run } => {
            replayed.bad.insert(run.block, run);
        }
        Record::Tombstone { .. } | Record::FillCursor { .. } => {
            return Err(OpenError::NewerJournal(RecordError::UnknownType(record.encode().0)));
        }
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn assemble(
    dev: Arc<dyn BlockDev>,
    clock: Arc<dyn Clock>,
    superblock: &Superblock,
    options: OpenOptions,
    index: Index,
    replayed: &mut Replayed,
    queue: mpsc::UnboundedSender<Op>,
    read_only: bool,
) -> Shared {
    let blocks = superblock.layout.data.len / BLOCK;
    let reserve = blocks * u64::from(options.reserve_per_mille.min(1000)) / 1000;
    let batch_bytes = superblock.segment_bytes.min(1 << 20) as usize;
    Shared {
        dev,
        clock,
        disk: superblock.disk,
        layout: superblock.layout,
        index,
        alloc: Allocator::new(blocks, options.allocation_shard_bytes / BLOCK, reserve),
        bad: BadBlocks::of(std::mem::take(&mut replayed.bad).into_values()),
        headers: HeaderCache::default(),
        in_flight: Mutex::default(),
        groups: Mutex::new(std::mem::take(&mut replayed.groups)),
        admission: Arc::new(Semaphore::new(IN_FLIGHT_BLOCKS)),
        queue,
        // A delete is 40 bytes, and 24 more where blocks are withheld.
        delete_ids_max: ((batch_bytes - 64) / 64).min(1024),
        read_only,
        poisoned: AtomicBool::new(false),
        checkpoints: AtomicU64::new(0),
        closed: AtomicBool::new(false),
    }
}

/// Reads every fragment that may not have been acknowledged; answers the records that take back what is not whole.
async fn verify_tail(
    shared: &Shared,
    tail: HashMap<FragmentId, Vec<Entry>>,
    undone: &mut Vec<FragmentId>,
) -> Result<Vec<Record>, OpenError> {
    let mut tail: Vec<_> = tail.into_iter().collect();
    tail.sort_by_key(|(id, _)| *id);
    let mut undo = Vec::new();
    for (id, mut before) in tail {
        let Some(put) = shared.index.get(&id) else { continue };
        if is_whole(shared, id, put).await? {
            continue;
        }
        undone.push(id);
        // The last earlier place that is whole: its blocks were not free before this put was acknowledged.
        let mut earlier = None;
        while let Some(entry) = before.pop() {
            if is_whole(shared, id, entry).await? {
                earlier = Some(entry);
                break;
            }
        }
        undo.push(match earlier {
            Some(entry) => {
                let _ = shared.index.insert(&id, entry);
                Record::Put { id, entry }
            }
            None => {
                let _ = shared.index.remove(&id);
                Record::Delete { id }
            }
        });
    }
    Ok(undo)
}

async fn is_whole(shared: &Shared, id: FragmentId, entry: Entry) -> Result<bool, OpenError> {
    match shared.verify_fragment(id, entry).await {
        Ok(_) => Ok(true),
        // A disk that does not answer does not say that it is not there.
        Err(ReadError::Io(error)) => Err(OpenError::Io(error)),
        Err(_) => Ok(false),
    }
}

/// The allocator knows just what the index has, and what is withheld: nothing can leak.
fn build_bitmap(shared: &Shared) -> Result<(), OpenError> {
    for shard in 0..SHARDS {
        for (id, entry) in shared.index.copy_shard(shard) {
            if !shared.mark(entry.run()) {
                return Err(OpenError::Damaged(Damage::Overlap(id)));
            }
        }
    }
    for run in shared.bad.runs() {
        // A cut took back that its fragment left, or the fragment was undone: the index is what counts.
        if !shared.mark(run) {
            shared.bad.forgive(run);
        }
    }
    Ok(())
}

/// Makes what was found, and what was taken back, the durable state: only then may anything be acknowledged. The
/// journal has flushed what was found when it was opened.
async fn settle(
    shared: &Arc<Shared>,
    log: &Log,
    found: Superblock,
    undo: Vec<Record>,
) -> Result<Superblock, OpenError> {
    let next = Superblock {
        incarnation: found.incarnation + 1,
        sequence: found.sequence + 1,
        state: State::Open,
        ..found
    };
    let fits = undo.is_empty() || append_undo(shared, log, undo).await?;
    log.flushed(log.end());
    let beat = Beat::new(log.end());
    let mut roots = Checkpointer { shared, log, beat: &beat, superblock: found };
    if fits {
        roots.name(next).await?;
    } else {
        // The journal has no room: a checkpoint says the same.
        roots.superblock = Superblock { sequence: found.sequence, ..next };
        roots.take(State::Open).await?;
    }
    Ok(roots.superblock)
}

/// Writes the undo records as one batch, durably; `false` if they do not fit.
async fn append_undo(shared: &Shared, log: &Log, undo: Vec<Record>) -> Result<bool, OpenError> {
    let mut batch = log.batch();
    for record in undo {
        let (kind, body) = record.encode();
        if batch.push(kind, 0, &body).is_err() {
            return Ok(false);
        }
    }
    let Ok(append) = log.append(batch, Durability::Buffered, Room::Reserve) else { return Ok(false) };
    append.written.await?;
    shared.dev.flush().await?;
    Ok(true)
}
