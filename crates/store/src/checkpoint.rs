//! The index on disk: a run of chunks, each with its own checksum, in the idle one of two areas.
//!
//! Shards are copied one by one while puts go on. Each says up to which lsn the journal is in it, so a replay that
//! starts at the first shard's lsn passes over what later ones already have.

use checksum::crc32c_of;
use device::{BlockDev, Durability, IoBuf, IoClass, IoError};
use types::{BLOCK, ByteOffset, Epoch, FragmentId, GroupId};

use crate::bytes::{array_at, put, u16_at, u32_at, u64_at};
use crate::index::{ENTRY_BYTES, Entry, Run, decode_entry, encode_entry};
use crate::layout::{DiskId, Region};
use crate::record::{decode_run, encode_run};
use crate::superblock::CheckpointRef;

/// The first bytes of a chunk.
const MAGIC: &[u8; 4] = b"HFCK";
/// The most bytes of a chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes before a chunk's first record.
const CHUNK_HEADER: usize = 64;
/// Bytes before a record's body.
const RECORD_HEADER: usize = 8;
/// Bytes of a shard's record before its entries.
const SHARD_HEADER: usize = 16;
/// Record types.
const SHARD: u16 = 1;
const GROUP: u16 = 2;
const BAD: u16 = 3;
/// Bytes of a group's record, and of one of withheld blocks.
const GROUP_BYTES: usize = RECORD_HEADER + 16;

/// What a store knows of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    /// Puts below it are refused.
    pub epoch: Epoch,
    /// The state of this disk's slot, as the node agent numbers it.
    pub state: u32,
}

/// Entries of one shard as of one lsn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardPart {
    /// Which shard, 0 to 255.
    pub shard: u32,
    /// Journal records below it are in the entries.
    pub lsn: u64,
    /// The entries, in the order of their ids.
    pub entries: Vec<(FragmentId, Entry)>,
}

/// A record of a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CheckpointRecord {
    /// A part of a shard.
    Shard(ShardPart),
    /// A group's epoch.
    Group(GroupId, Group),
    /// Blocks that are withheld.
    Bad(Run),
}

/// Why a checkpoint cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A chunk is not what was written.
    #[error("the checkpoint is damaged at byte {at} of the disk")]
    Damaged {
        /// Where.
        at: u64,
    },
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// How many bytes of entries and groups fit an area, whatever the order in which they come.
pub(crate) fn capacity(area_bytes: u64) -> u64 {
    let chunks = area_bytes.div_ceil(CHUNK_BYTES as u64);
    // A chunk has its header, the head of a shard that goes on in it, and at its end less than a head and an entry.
    let lost = chunks * (CHUNK_HEADER + 2 * (RECORD_HEADER + SHARD_HEADER) + ENTRY_BYTES) as u64;
    let shards = (crate::index::SHARDS * (RECORD_HEADER + SHARD_HEADER)) as u64;
    area_bytes.saturating_sub(lost + shards + BLOCK)
}

/// What an index of so many fragments takes, and so many groups and withheld runs, of [`capacity`].
pub(crate) fn bytes_needed(fragments: u64, groups: u64) -> u64 {
    fragments * ENTRY_BYTES as u64 + groups * GROUP_BYTES as u64
}

/// How many bytes a chunk that was read whole before says it has, without its padding.
pub(crate) fn chunk_len(head: &[u8]) -> u32 {
    u32_at(head, 40)
}

/// Writes a checkpoint into an area. Nothing names it before [`Writer::finish`].
pub(crate) struct Writer<'a> {
    dev: &'a dyn BlockDev,
    disk: DiskId,
    area: Region,
    sequence: u64,
    at: u64,
    chunk: Vec<u8>,
    records: u32,
    crcs: Vec<u8>,
    entries: u64,
}

impl<'a> Writer<'a> {
    /// A checkpoint that the superblock of `sequence` will name.
    pub(crate) fn new(dev: &'a dyn BlockDev, disk: DiskId, area: Region, sequence: u64) -> Writer<'a> {
        let chunk = vec![0; CHUNK_HEADER];
        Writer { dev, disk, area, sequence, at: 0, chunk, records: 0, crcs: Vec::new(), entries: 0 }
    }

    /// Adds a whole shard.
    pub(crate) async fn shard(
        &mut self,
        shard: u32,
        lsn: u64,
        entries: &[(FragmentId, Entry)],
    ) -> Result<(), IoError> {
        self.entries += entries.len() as u64;
        let mut rest = entries;
        // An empty shard has a record too: its lsn counts.
        loop {
            let room = CHUNK_BYTES.saturating_sub(self.chunk.len() + RECORD_HEADER + SHARD_HEADER);
            let fit = (room / ENTRY_BYTES).min(rest.len());
            if fit == 0 && (!rest.is_empty() || self.chunk.len() + RECORD_HEADER + SHARD_HEADER > CHUNK_BYTES)
            {
                self.write_chunk().await?;
                continue;
            }
            let (now, later) = rest.split_at(fit);
            self.record_header(SHARD, SHARD_HEADER + now.len() * ENTRY_BYTES);
            self.chunk.extend(shard.to_le_bytes());
            self.chunk.extend((now.len() as u32).to_le_bytes());
            self.chunk.extend(lsn.to_le_bytes());
            for (id, entry) in now {
                self.chunk.extend(encode_entry(id, entry));
            }
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Adds a group.
    pub(crate) async fn group(&mut self, id: GroupId, group: Group) -> Result<(), IoError> {
        if self.chunk.len() + GROUP_BYTES > CHUNK_BYTES {
            self.write_chunk().await?;
        }
        self.record_header(GROUP, GROUP_BYTES - RECORD_HEADER);
        for number in [id.0, group.epoch.0, group.state, 0] {
            self.chunk.extend(number.to_le_bytes());
        }
        Ok(())
    }

    /// Adds blocks that are withheld.
    pub(crate) async fn bad(&mut self, run: Run) -> Result<(), IoError> {
        if self.chunk.len() + GROUP_BYTES > CHUNK_BYTES {
            self.write_chunk().await?;
        }
        self.record_header(BAD, GROUP_BYTES - RECORD_HEADER);
        self.chunk.extend(encode_run(&run));
        Ok(())
    }

    fn record_header(&mut self, kind: u16, len: usize) {
        self.records += 1;
        self.chunk.extend(kind.to_le_bytes());
        self.chunk.extend(0_u16.to_le_bytes());
        self.chunk.extend((len as u32).to_le_bytes());
    }

    async fn write_chunk(&mut self) -> Result<(), IoError> {
        let len = self.chunk.len();
        let mut block = IoBuf::from_bytes(&self.chunk);
        put(&mut block, 0, MAGIC);
        put(&mut block, 8, &self.disk.0);
        put(&mut block, 24, &self.sequence.to_le_bytes());
        put(&mut block, 32, &self.at.to_le_bytes());
        put(&mut block, 40, &(len as u32).to_le_bytes());
        put(&mut block, 44, &self.records.to_le_bytes());
        let crc = crc32c_of([&block[8..len]]);
        put(&mut block, 4, &crc.to_le_bytes());
        self.crcs.extend(crc.to_le_bytes());
        let at = self.area.at + self.at;
        self.at += block.len() as u64;
        assert!(self.at <= self.area.len, "puts are refused before the index outgrows its checkpoint");
        self.chunk.clear();
        self.chunk.resize(CHUNK_HEADER, 0);
        self.records = 0;
        self.dev.write(ByteOffset(at), vec![block], Durability::Buffered, IoClass::Background).await?;
        Ok(())
    }

    /// Writes the rest and answers what a superblock says of the whole. Not durable before a flush.
    pub(crate) async fn finish(mut self, slot: u32, journal_from: u64) -> Result<CheckpointRef, IoError> {
        self.write_chunk().await?;
        let crc = crc32c_of([&self.crcs[..]]);
        Ok(CheckpointRef { slot, crc, len: self.at, journal_from, entries: self.entries })
    }
}

/// Reads the checkpoint that `named` names, record by record.
pub(crate) async fn read(
    dev: &dyn BlockDev,
    disk: DiskId,
    area: Region,
    named: &CheckpointRef,
    mut each: impl FnMut(CheckpointRecord),
) -> Result<(), CheckpointError> {
    let (mut at, mut entries) = (0, 0);
    let mut crcs = Vec::new();
    let mut sequence = None;
    while at < named.len {
        let damaged = CheckpointError::Damaged { at: area.at + at };
        let want = (CHUNK_BYTES as u64).min(named.len - at);
        let block = dev.read(ByteOffset(area.at + at), IoBuf::zeroed(want as usize), IoClass::Read).await?;
        let Some((chunk, crc)) = decode_chunk(&block, disk, at) else { return Err(damaged) };
        if *sequence.get_or_insert(chunk.sequence) != chunk.sequence {
            return Err(damaged);
        }
        crcs.extend(crc.to_le_bytes());
        at += (chunk.len as u64).div_ceil(BLOCK) * BLOCK;
        for record in chunk.records {
            if let CheckpointRecord::Shard(part) = &record {
                entries += part.entries.len() as u64;
            }
            each(record);
        }
    }
    if crc32c_of([&crcs[..]]) != named.crc || entries != named.entries || at != named.len {
        return Err(CheckpointError::Damaged { at: area.at });
    }
    Ok(())
}

struct Chunk {
    sequence: u64,
    len: usize,
    records: Vec<CheckpointRecord>,
}

fn decode_chunk(block: &[u8], disk: DiskId, at: u64) -> Option<(Chunk, u32)> {
    if block.len() < CHUNK_HEADER || block[..4] != MAGIC[..] {
        return None;
    }
    let len = u32_at(block, 40) as usize;
    if !(CHUNK_HEADER..=block.len()).contains(&len) {
        return None;
    }
    let crc = u32_at(block, 4);
    if crc32c_of([&block[8..len]]) != crc && !planted::is(planted::Bug::NoCrc) {
        return None;
    }
    if array_at(block, 8) != disk.0 || u64_at(block, 32) != at || block[48..64] != [0; 16] {
        return None;
    }
    let mut records = Vec::new();
    let mut rest = &block[CHUNK_HEADER..len];
    for _ in 0..u32_at(block, 44) {
        let (record, behind) = decode_record(rest)?;
        records.push(record);
        rest = behind;
    }
    rest.is_empty().then_some((Chunk { sequence: u64_at(block, 24), len, records }, crc))
}

fn decode_record(bytes: &[u8]) -> Option<(CheckpointRecord, &[u8])> {
    let (header, rest) = bytes.split_at_checked(RECORD_HEADER)?;
    let (body, rest) = rest.split_at_checked(u32_at(header, 4) as usize)?;
    if u16_at(header, 2) != 0 {
        return None;
    }
    let record = match u16_at(header, 0) {
        SHARD => {
            let (head, entries) = body.split_at_checked(SHARD_HEADER)?;
            let (shard, count) = (u32_at(head, 0), u32_at(head, 4) as usize);
            let (entries, tail) = entries.as_chunks::<ENTRY_BYTES>();
            if shard as usize >= crate::index::SHARDS || entries.len() != count || !tail.is_empty() {
                return None;
            }
            let entries = entries.iter().map(decode_entry).collect::<Option<Vec<_>>>()?;
            CheckpointRecord::Shard(ShardPart { shard, lsn: u64_at(head, 8), entries })
        }
        GROUP if body.len() == GROUP_BYTES - RECORD_HEADER && u32_at(body, 12) == 0 => {
            let group = Group { epoch: Epoch(u32_at(body, 4)), state: u32_at(body, 8) };
            CheckpointRecord::Group(GroupId(u32_at(body, 0)), group)
        }
        BAD if body.len() == GROUP_BYTES - RECORD_HEADER => CheckpointRecord::Bad(decode_run(body)?),
        _ => return None,
    };
    Some((record, rest))
}

#[cfg(test)]
mod tests;
