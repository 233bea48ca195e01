//! The bytes of a journal's entries and marks, and of the command slot: docs/FORMATS/arena.md draws them.

use checksum::{crc32c, crc32c_of};

use crate::layout::{u32_at, u64_at};
use crate::ring::{END, RING_END};

/// Bytes of an entry before its command.
pub(crate) const ENTRY_HEAD: u64 = 48;
/// The most bytes of an entry with its head: two of them fit behind one another wherever the ring's head is.
pub(crate) const ENTRY_MAX: u64 = 1 << 20;
/// Where, in an entry, length and checksum of the reply are.
pub(crate) const REPLY_AT: u64 = 40;

/// Nothing follows.
pub(crate) const END_MARK: [u8; END as usize] = [0; END as usize];
/// The ring goes on at its start.
pub(crate) const WRAPS: u32 = u32::from_le_bytes(*b"WRAP");
/// A command in the order.
pub(crate) const IN_ORDER: u32 = u32::from_le_bytes(*b"LIVE");
/// A command that was taken back: its place in the order does nothing.
pub(crate) const WITHDRAWN: u32 = u32::from_le_bytes(*b"GONE");

/// What is found of an entry.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    pub(crate) is_withdrawn: bool,
    pub(crate) unique: u64,
    pub(crate) size: u64,
    pub(crate) room: u32,
    pub(crate) command: &'a [u8],
}

/// What an entry takes of the ring.
pub(crate) fn size(command: usize, room: usize) -> u64 {
    ENTRY_HEAD + (command as u64).next_multiple_of(8) + (room as u64).next_multiple_of(8)
}

/// Where, behind the start of an entry, its reply lies.
pub(crate) fn reply_at(command: usize) -> u64 {
    ENTRY_HEAD + (command as u64).next_multiple_of(8)
}

/// Lays an entry into `out`, with the end mark behind it.
pub(crate) fn write(
    out: &mut Vec<u8>,
    (state, at, jseq, unique): (u32, u64, u64, u64),
    command: &[u8],
    reply: &[u8],
    room: usize,
) {
    out.clear();
    out.resize(ENTRY_HEAD as usize, 0);
    let mut put = |at: usize, field: &[u8]| out[at..at + field.len()].copy_from_slice(field);
    put(0, &state.to_le_bytes());
    put(8, &jseq.to_le_bytes());
    put(16, &unique.to_le_bytes());
    put(24, &at.to_le_bytes());
    put(32, &(command.len() as u32).to_le_bytes());
    put(36, &(room as u32).to_le_bytes());
    put(REPLY_AT as usize, &reply_head(reply));
    let crc = crc32c_of([&out[8..REPLY_AT as usize], command]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(command);
    out.resize(reply_at(command.len()) as usize, 0);
    out.extend_from_slice(reply);
    out.resize((size(command.len(), room) + END) as usize, 0);
}

/// Length and checksum of a reply; zeros for none.
pub(crate) fn reply_head(reply: &[u8]) -> [u8; 8] {
    let mut bytes = [0; 8];
    if !reply.is_empty() {
        bytes[..4].copy_from_slice(&(reply.len() as u32).to_le_bytes());
        bytes[4..].copy_from_slice(&crc32c(reply).to_le_bytes());
    }
    bytes
}

/// Reads the entry `jseq` that lies at `at`, which is at the start of `bytes`; `None` if it is not what was written.
/// Its state must be one of an entry.
pub(crate) fn read(bytes: &[u8], at: u64, jseq: u64) -> Option<Parsed<'_>> {
    if bytes.len() < (ENTRY_HEAD + END) as usize || u64_at(bytes, 8) != jseq || u64_at(bytes, 24) != at {
        return None;
    }
    let (len, room) = (u32_at(bytes, 32) as usize, u32_at(bytes, 36) as usize);
    let size = size(len, room);
    if size > ENTRY_MAX || size + END > bytes.len() as u64 || at + size + END > RING_END {
        return None;
    }
    let command = &bytes[ENTRY_HEAD as usize..][..len];
    if u32_at(bytes, 4) != crc32c_of([&bytes[8..REPLY_AT as usize], command]) {
        return None;
    }
    let answer = u32_at(bytes, REPLY_AT as usize) as usize;
    if answer > room {
        return None;
    }
    let reply = &bytes[reply_at(len) as usize..][..answer];
    if bytes[REPLY_AT as usize..][..8] != reply_head(reply) {
        return None;
    }
    let is_withdrawn = u32_at(bytes, 0) == WITHDRAWN;
    let (unique, room) = (u64_at(bytes, 16), room as u32);
    Some(Parsed { is_withdrawn, unique, size, room, command })
}

/// Bytes of a mark.
pub(crate) const MARK: usize = 24;

/// A mark: two numbers and their checksum, in one store.
pub(crate) fn mark(place: u64, jseq: u64) -> [u8; MARK] {
    let mut bytes = [0; MARK];
    bytes[..8].copy_from_slice(&place.to_le_bytes());
    bytes[8..16].copy_from_slice(&jseq.to_le_bytes());
    let crc = crc32c(&bytes[..16]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The numbers of a mark, or `None` if it is none.
pub(crate) fn read_mark(bytes: &[u8]) -> Option<(u64, u64)> {
    let (place, jseq) = (u64_at(bytes, 0), u64_at(bytes, 8));
    (bytes[..MARK] == mark(place, jseq)).then_some((place, jseq))
}

/// Bytes of a command slot that holds a range.
pub(crate) const SLOT: usize = 48;
/// A range of the journal.
const KIND_RANGE: u32 = 1;

/// The word of a slot.
pub(crate) fn slot_word(seq: u64, is_busy: bool) -> u64 {
    seq << 1 | u64::from(is_busy)
}

/// A busy slot: the entries `first` to `last` under the sequence `seq`.
pub(crate) fn slot(seq: u64, first: u64, last: u64) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &slot_word(seq, true).to_le_bytes());
    put(12, &KIND_RANGE.to_le_bytes());
    put(24, &16_u32.to_le_bytes());
    put(32, &first.to_le_bytes());
    put(40, &last.to_le_bytes());
    let crc = crc32c_of([&bytes[..8], &bytes[12..]]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The sequence of a slot, and the range that it is busy with. `None` if it is not what was written.
pub(crate) fn read_slot(bytes: &[u8; SLOT]) -> Option<(u64, Option<(u64, u64)>)> {
    let word = u64_at(bytes, 0);
    let seq = word >> 1;
    if word & 1 == 0 {
        return Some((seq, None));
    }
    let (first, last) = (u64_at(bytes, 32), u64_at(bytes, 40));
    (*bytes == slot(seq, first, last)).then_some((seq, Some((first, last))))
}
