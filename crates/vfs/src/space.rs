//! Space: a byte is accepted only where it can be kept.
//!
//! What a write may take is charged when it is accepted, as if nothing of it were there yet, and given back when it
//! is in the rows. Near the limit that is too pessimistic: then everything is flushed, so that nothing is charged, and
//! the map is asked what the write really adds.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use namespace::{Answer, Attr, Query, QuotaInfo, VolumeInfo};
use types::{BLOCK, EXTENT_MAX, Errno, Ino};

use crate::errno;
use crate::layout::block_bytes;
use crate::op::{Outcome, StatFs};
use crate::vfs::Vfs;

/// A write may take twice its blocks of the disk: a block of data comes with a block of header.
const PHYSICAL: u64 = 2;

/// How often the volume is asked for its size because it changed meanwhile.
const LOOKS: u32 = 4;

/// What stays free on the disks for what was not foreseen: a part of them, at most 16 MiB.
const RESERVE_PART: u64 = 64;
const RESERVE_MAX: u64 = 16 << 20;

/// Space that was freed comes back when it was reclaimed: a write that needs it waits for so long.
const RECLAIM_WAITS: u32 = 20;
const RECLAIM_WAIT: Duration = Duration::from_millis(100);

/// A write waits for so many walks of compaction, which may find ever more while others write.
pub(crate) const WALKS_MAX: u64 = 8;

/// However much others delete and compaction finds, it waits no longer than a minute.
const WAITS_MAX: u32 = 600;

/// What the mount knows of its volume's space.
pub(crate) struct Space {
    known: Mutex<Known>,
    /// One write at a time looks closely.
    close_look: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The most bytes of the volume; 0 as long as nothing is known.
    limit: u64,
    /// What its files take, as far as this mount knows.
    used: u64,
    /// What accepted writes may take.
    charged: Charge,
    /// How often `used` changed.
    moves: u64,
    /// Something was deleted since the last look.
    shrank: bool,
}

/// What accepted writes may take, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Charge {
    /// Of the volume: blocks that were accepted several times count once.
    pub(crate) growth: u64,
    /// Of the disks. Each record counts for itself: two of the same block may be sealed by two commits, and what the
    /// later one replaces is freed only when it was reclaimed.
    pub(crate) disk: u64,
    /// The label of the file, whose quotas get the growth too.
    pub(crate) label: Ino,
}

impl Charge {
    /// For writing a range, of which `growth` bytes are new to the volume.
    pub(crate) fn of(range: &Range<u64>, growth: u64, label: Ino) -> Charge {
        Charge { growth, disk: block_bytes(range) * PHYSICAL, label }
    }

    /// For setting a range aside. Nothing is written: what it takes of the disks later has headers of whole extents.
    pub(crate) fn of_reserve(range: &Range<u64>, label: Ino) -> Charge {
        let bytes = block_bytes(range);
        let extents = bytes.div_ceil(EXTENT_MAX) + 1;
        Charge { growth: bytes, disk: bytes.saturating_add(extents * BLOCK), label }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.growth == 0 && self.disk == 0
    }

    fn add(&mut self, other: Charge) {
        self.growth += other.growth;
        self.disk += other.disk;
    }
}

/// Bytes of the disks that are lent until this is dropped.
pub(crate) struct Lent<'a> {
    space: &'a Space,
    charge: Charge,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.space.release(self.charge);
    }
}

impl Space {
    pub(crate) fn new() -> Space {
        Space { known: Mutex::default(), close_look: tokio::sync::Mutex::new(()) }
    }

    /// Charges what the volume and the disks have room for, for sure; `new` of the volume's part are not there yet.
    fn charge(&self, charge: Charge, new: u64, disks: impl FnOnce() -> store::Space) -> bool {
        let mut known = self.known();
        // Asked under the lock: what was given back before it has been taken from the disks, and shows.
        let disks = disks();
        let reserve = (disks.total / RESERVE_PART).min(RESERVE_MAX);
        let fits = known.used.saturating_add(known.charged.growth).saturating_add(new) <= known.limit;
        let room = known.charged.disk.saturating_add(charge.disk).saturating_add(reserve) <= disks.free;
        if fits && room {
            known.charged.add(charge);
        }
        fits && room
    }

    /// Lends bytes of the disks that nobody was promised, what is kept for the unforeseen among them.
    pub(crate) fn lend(&self, disk: u64, disks: impl FnOnce() -> store::Space) -> Option<Lent<'_>> {
        let mut known = self.known();
        let fits = known.charged.disk.saturating_add(disk) <= disks().free;
        if fits {
            known.charged.disk += disk;
        }
        drop(known);
        // Not `then_some`: what was refused must not be given back.
        fits.then(|| Lent { space: self, charge: Charge { disk, ..Charge::default() } })
    }

    /// Whether the volume's limit leaves room for `growth` more.
    fn fits(&self, growth: u64) -> bool {
        let known = self.known();
        known.used.saturating_add(known.charged.growth).saturating_add(growth) <= known.limit
    }

    /// Gives back what was charged.
    fn release(&self, charge: Charge) {
        let mut known = self.known();
        let charged = &mut known.charged;
        assert!(
            charged.growth >= charge.growth && charged.disk >= charge.disk,
            "more space was given back than charged"
        );
        charged.growth -= charge.growth;
        charged.disk -= charge.disk;
    }

    /// A file took `before` bytes of the volume and takes `after` now.
    fn moved(&self, before: u64, after: u64) {
        let mut known = self.known();
        known.used = (known.used + after).saturating_sub(before);
        known.moves += 1;
        known.shrank |= after < before;
    }

    /// Something went whose space will come back.
    pub(crate) fn shrank(&self) {
        self.known().shrank = true;
    }

    /// What accepted writes may take.
    pub(crate) fn charged(&self) -> Charge {
        self.known().charged
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vfs {
    /// Charges this, if it fits for sure although all of it may be new.
    pub(crate) fn charge(&self, charge: Charge) -> bool {
        self.charge_new(charge, charge.growth)
    }

    /// Charges this if the `new` bytes of its growth that are not there yet fit.
    pub(crate) fn charge_new(&self, charge: Charge, new: u64) -> bool {
        if !self.quotas.charge(charge.label, charge.growth, new) {
            return false;
        }
        let fits = self.space.charge(charge, new, || self.extents.space());
        if !fits {
            self.quotas.release(charge.label, charge.growth);
        }
        fits
    }

    /// Gives back what was charged.
    pub(crate) fn give_back(&self, charge: Charge) {
        self.quotas.release(charge.label, charge.growth);
        self.space.release(charge);
    }

    /// Adds a charge to that of the same file, under whose label it counts from now on.
    pub(crate) fn add_charge(&self, to: &mut Charge, charge: Charge) {
        if to.is_nothing() {
            *to = charge;
            return;
        }
        if to.label != charge.label {
            self.quotas.recharge(to.label, charge.label, to.growth);
            to.label = charge.label;
        }
        to.add(charge);
    }

    /// A file, which has these attributes now, took `before` bytes of the volume.
    pub(crate) fn moved(&self, before: u64, attr: &Attr) {
        self.quotas.moved(attr.project, before, attr.allocated);
        self.space.moved(before, attr.allocated);
    }

    /// Charges for the blocks of a range what did not fit for sure, or finds that it does not fit: `EDQUOT` if a quota
    /// has no room for it, else `ENOSPC`.
    ///
    /// The caller holds no lock of a node.
    pub(crate) async fn make_room(
        &self,
        ino: Ino,
        range: &Range<u64>,
        mut charge: Charge,
    ) -> Result<Charge, Errno> {
        let _one_at_a_time = self.space.close_look.lock().await;
        self.look_for(ino, &mut charge).await?;
        if self.charge(charge) {
            return Ok(charge);
        }
        let mut hurry = None;
        let (walks, mut waits) = (self.compaction.walks(), 0);
        for _ in 0..WAITS_MAX {
            let flushed = self.flush_everything().await;
            let shrank = std::mem::take(&mut self.space.known().shrank);
            self.look_for(ino, &mut charge).await?;
            let growth = charge.growth.saturating_sub(self.allocated_in(ino, range).await?);
            if self.charge_new(charge, growth) {
                return Ok(charge);
            }
            if shrank {
                waits = RECLAIM_WAITS;
            }
            // Compaction brings back no byte of the volume, only of the disks.
            let may_come = self.space.fits(growth) && self.may_find_room();
            if waits == 0 && !may_come || self.compaction.walks() > walks + WALKS_MAX {
                // If flushing failed for another reason that is the one to tell.
                let full = match self.quotas.has_room(charge.label, growth) {
                    true => Errno::ENOSPC,
                    false => Errno::EDQUOT,
                };
                return Err(flushed.err().map_or(full, |failed| failed.errno));
            }
            if may_come {
                hurry.get_or_insert_with(|| self.wait_for_room());
            }
            waits = waits.saturating_sub(1);
            self.clock.sleep(RECLAIM_WAIT).await;
        }
        Err(Errno::ENOSPC)
    }

    /// Asks for everything that limits a charge of this inode, whose label may be another by now.
    async fn look_for(&self, ino: Ino, charge: &mut Charge) -> Result<(), Errno> {
        self.look_at_space().await?;
        if charge.label != Ino(0) || self.quotas.is_counting() {
            let quotas = self.look_at_quotas(ino).await?;
            charge.label = quotas.first().map_or(Ino(0), |quota| quota.dir);
        }
        Ok(())
    }

    /// How many bytes of whole blocks in a range the file has already.
    async fn allocated_in(&self, ino: Ino, range: &Range<u64>) -> Result<u64, Errno> {
        const SEGMENTS: u32 = 256;
        let end = range.end.next_multiple_of(BLOCK);
        let (mut at, mut bytes) = (range.start / BLOCK * BLOCK, 0);
        loop {
            let query = Query::Map { volume: self.volume(), ino, start: at, end, max: SEGMENTS };
            let segments = match self.ask(query).await? {
                Answer::Inline { bytes: inline, .. } => {
                    return Ok(if range.start < BLOCK && !inline.is_empty() { BLOCK } else { 0 });
                }
                Answer::Map { prefix, segments, .. } => {
                    if at < BLOCK && !prefix.is_empty() {
                        bytes += BLOCK;
                    }
                    segments
                }
                other => return Err(errno::of_wrong_answer(&other)),
            };
            for segment in &segments {
                let inside = segment.start.max(at)..(segment.start + segment.len).min(end);
                bytes += block_bytes(&inside);
                at = inside.end.next_multiple_of(BLOCK);
            }
            if segments.len() < SEGMENTS as usize || at >= end {
                return Ok(bytes);
            }
        }
    }

    pub(crate) async fn look_at_space(&self) -> Result<VolumeInfo, Errno> {
        let mut looks = 0;
        loop {
            let moves = self.space.known().moves;
            let volume = match self.ask(Query::Volume { volume: self.volume() }).await? {
                Answer::Volume(volume) => volume,
                other => return Err(errno::of_wrong_answer(&other)),
            };
            let mut known = self.space.known();
            looks += 1;
            if known.moves != moves && looks < LOOKS {
                continue;
            }
            // A flush that ended since the question was asked has given its charge back, and its bytes may not be in the
            // answer.
            known.used = if known.moves == moves { volume.used } else { known.used.max(volume.used) };
            known.limit = volume.limit;
            return Ok(volume);
        }
    }

    /// statfs(2) of an inode: the volume, or the innermost quota around it. What is said to be free can be written, in
    /// large pieces; what is said to be there in all is that and what is used.
    pub(crate) async fn statfs(&self, ino: Ino) -> Result<Outcome, Errno> {
        let mut looks = 0;
        let (quotas, volume) = loop {
            let moves = self.space.known().moves;
            // First: the answer comes with the effect of every command before, so that the volume's has it too.
            let quotas = match self.look_at_quotas(ino).await {
                Ok(quotas) => quotas,
                // It was removed while somebody has it open: only the volume is left around it.
                Err(Errno::ESTALE) => Vec::new(),
                Err(error) => return Err(error),
            };
            let volume = self.look_at_space().await?;
            self.land();
            looks += 1;
            // What is on its way would count twice, in the rows and as charged, and what landed since then not at all.
            let is_of_one_moment = self.first_landing().is_none() && self.space.known().moves == moves;
            if is_of_one_moment || looks == LOOKS || self.settle().await.is_err() {
                break (quotas, volume);
            }
        };
        let charged = self.space.charged();
        let used = volume.used + charged.growth;
        let mut free = volume.limit.saturating_sub(used).min(self.room_on_disks(charged.growth));
        let mut names_free = volume.limit_inodes.saturating_sub(volume.inodes);
        let used_of = |quota: &QuotaInfo| quota.used_bytes + self.quotas.charged(quota.dir);
        for quota in &quotas {
            free = free.min(quota.limit_bytes.saturating_sub(used_of(quota)));
            names_free = names_free.min(quota.limit_inodes.saturating_sub(quota.inodes));
        }
        let limits_bytes = |quota: &&QuotaInfo| quota.limit_bytes < u64::MAX;
        let limits_names = |quota: &&QuotaInfo| quota.limit_inodes < u64::MAX;
        let used = quotas.iter().find(limits_bytes).map_or(used, used_of);
        let names = quotas.iter().find(limits_names).map_or(volume.inodes, |quota| quota.inodes);
        let (used, free) = (used.div_ceil(BLOCK), free / BLOCK);
        // An inode takes no block of its own: where nobody limits them, names end only where space does.
        let files_free = if names_free > u64::MAX / 2 { free } else { names_free };
        Ok(Outcome::StatFs(StatFs { blocks: used + free, free, files: names + files_free, files_free }))
    }

    /// Bytes of files that the disks have room for, in extents of full size, beside `accepted` that are not stored yet.
    /// That these may take more of the disks for a while does not count: a write that needs the room flushes them.
    fn room_on_disks(&self, accepted: u64) -> u64 {
        let disks = self.extents.space();
        let reserve = (disks.total / RESERVE_PART).min(RESERVE_MAX);
        let free = disks.free.saturating_sub(reserve).saturating_sub(accepted);
        free / (EXTENT_MAX + BLOCK) * EXTENT_MAX + (free % (EXTENT_MAX + BLOCK)).saturating_sub(BLOCK)
    }
}
