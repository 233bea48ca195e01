//! Checkpoints of an open disk: taken beside the commits when the journal is half full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use device::IoError;
use journal::{Log, Lsn};
use tokio::sync::Notify;

use crate::checkpoint;
use crate::shared::Shared;
use crate::superblock::{CheckpointRef, State, Superblock};

/// What the two loops of a driver tell each other.
pub(crate) struct Beat {
    /// All records below it are in the index, and durable.
    pub(crate) applied: AtomicU64,
    /// A checkpoint is wanted.
    pub(crate) wanted: Notify,
    /// Journal segments were given back, or never will be.
    pub(crate) freed: Notify,
    /// Blocks were handed out, or never will be again.
    pub(crate) claimed: Notify,
    pub(crate) stop: AtomicBool,
}

impl Beat {
    pub(crate) fn new(applied: Lsn) -> Beat {
        Beat {
            applied: AtomicU64::new(applied.0),
            wanted: Notify::new(),
            freed: Notify::new(),
            claimed: Notify::new(),
            stop: AtomicBool::new(false),
        }
    }
}

/// Whether the journal is half full, and a checkpoint would give something back.
pub(crate) fn checkpoint_is_due(log: &Log) -> bool {
    let usage = log.usage();
    usage.used >= (usage.capacity / 2).max(2 * u64::from(log.shape().segment_bytes))
}

/// Takes checkpoints; the only one who updates the superblock of an open disk.
pub(crate) struct Checkpointer<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) log: &'a Log,
    pub(crate) beat: &'a Beat,
    pub(crate) superblock: Superblock,
}

impl Checkpointer<'_> {
    /// Takes one whenever it is wanted, until told to stop.
    pub(crate) async fn run(&mut self) -> Result<(), IoError> {
        loop {
            self.beat.wanted.notified().await;
            if self.beat.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            let taken = if checkpoint_is_due(self.log) { self.take(State::Open).await } else { Ok(()) };
            if let Err(error) = &taken {
                self.shared.poison(error);
            }
            self.beat.freed.notify_one();
            taken?;
        }
    }

    /// Copies the index shard by shard into the idle area while puts go on, then lets the superblock name it, and only
    /// then gives journal segments back.
    pub(crate) async fn take(&mut self, state: State) -> Result<(), IoError> {
        let shared = self.shared;
        let old = self.superblock;
        let slot = if old.checkpoint.len == 0 { 0 } else { 1 - old.checkpoint.slot };
        let area = shared.layout.checkpoints[slot as usize];
        let sequence = old.sequence + 1;
        let mut writer = checkpoint::Writer::new(&*shared.dev, shared.disk, area, sequence);
        let journal_from = self.beat.applied.load(Ordering::Acquire);
        for shard in 0..crate::index::SHARDS {
            // Together, with no wait between them: the copy has just what is applied.
            let lsn = self.beat.applied.load(Ordering::Acquire);
            let entries = shared.index.copy_shard(shard);
            writer.shard(shard as u32, lsn, &entries).await?;
        }
        let groups: Vec<_> = shared.groups().iter().map(|(id, group)| (*id, *group)).collect();
        for (id, group) in groups {
            writer.group(id, group).await?;
        }
        for run in shared.bad.runs() {
            writer.bad(run).await?;
        }
        let checkpoint = writer.finish(slot, journal_from).await?;
        shared.dev.flush().await?;
        self.name(Superblock { checkpoint, sequence, state, ..old }).await?;
        self.log.free_before(Lsn(journal_from));
        shared.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the superblock. What the old one named may be reused when this returns.
    pub(crate) async fn name(&mut self, superblock: Superblock) -> Result<(), IoError> {
        let superblock = Superblock { journal_flushed: self.log.flushed_mark().0, ..superblock };
        crate::roots::write(&*self.shared.dev, &superblock).await?;
        self.superblock = superblock;
        Ok(())
    }
}

/// No checkpoint: the index starts empty, and the journal at its first place.
pub(crate) fn no_checkpoint(journal_from: Lsn) -> CheckpointRef {
    CheckpointRef { journal_from: journal_from.0, ..CheckpointRef::default() }
}
