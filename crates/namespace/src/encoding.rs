//! Log entries, envelopes, commands and replies as bytes; drawn in docs/FORMATS/rows.md.

use alloc::vec::Vec;
use core::hash::Hasher;
use siphasher::sip::SipHasher24;

use crate::command::{
    Command, Commit, Content, Cred, Entry, Envelope, FallocateMode, NewExtent, NewKind, RenameMode, Reply,
    Segment, SetAttr, SetTime, SlotRef, XattrMode,
};
use crate::journal::Journaled;
use crate::query::{Attr, FileKind, QuotaState, SessionInfo};
use crate::wire::{DecodeError, Reader, Wire, wire_enum, wire_struct};

/// The version that this program writes.
const VERSION: u8 = 1;

/// The tag of [`Command::Journal`].
pub(crate) const JOURNAL: u8 = 45;

/// The tag of [`Reply::Journaled`].
pub(crate) const JOURNALED: u8 = 21;

/// Commands that one entry may hold.
pub const ENTRY_COMMANDS_MAX: usize = 512;

/// The bytes of an entry, as the log keeps them.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::from([VERSION]);
    entry.time.write(&mut out);
    entry.commands.write(&mut out);
    out
}

/// Reads what [`encode_entry`] wrote.
///
/// # Errors
/// Bytes that no program of this version writes. Lists are never larger than their bytes: forged counts cost nothing.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, DecodeError> {
    let (time, commands): (_, Vec<Envelope>) = versioned(bytes)?.whole()?;
    if commands.len() > ENTRY_COMMANDS_MAX {
        return Err(DecodeError::Bound("the number of commands"));
    }
    Ok(Entry { time, commands })
}

/// The bytes of one envelope, as a client keeps it until it is answered.
pub fn encode_envelope(envelope: &Envelope) -> Vec<u8> {
    versioned_bytes(envelope)
}

/// Reads what [`encode_envelope`] wrote.
///
/// # Errors
/// As [`decode_entry`].
pub fn decode_envelope(bytes: &[u8]) -> Result<Envelope, DecodeError> {
    versioned(bytes)?.whole()
}

/// The bytes of a journaled command, as a mount keeps it until it is at the service.
pub fn encode_journaled(command: &Journaled) -> Vec<u8> {
    versioned_bytes(command)
}

/// Reads what [`encode_journaled`] wrote.
///
/// # Errors
/// As [`decode_entry`].
pub fn decode_journaled(bytes: &[u8]) -> Result<Journaled, DecodeError> {
    versioned(bytes)?.whole()
}

/// The bytes of a reply, as a mount keeps it until whoever asked has it.
pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    versioned_bytes(reply)
}

/// Reads what [`encode_reply`] wrote.
///
/// # Errors
/// As [`decode_entry`].
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, DecodeError> {
    versioned(bytes)?.whole()
}

/// A hash of the command's bytes, which tells a repeat of a slot's last command from a misuse of the slot.
pub fn digest(command: &Command) -> u64 {
    let mut bytes = Vec::new();
    command.write(&mut bytes);
    let mut hasher = SipHasher24::new_with_key(b"holdfast command");
    hasher.write(&bytes);
    hasher.finish()
}

fn versioned_bytes(value: &impl Wire) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.push(VERSION);
    value.write(&mut out);
    out
}

fn versioned(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    match u8::read(&mut reader)? {
        VERSION => Ok(reader),
        version => Err(DecodeError::Version(version)),
    }
}

wire_struct!(Envelope { slot, command });
wire_struct!(SlotRef { volume, session, epoch, slot, seq });
wire_struct!(Cred { uid, gid });
wire_struct!(SetAttr { mode, uid, gid, size, atime, mtime });
wire_struct!(NewExtent { id, group, layout, codec, plain_len, stored_len, content_crc });
wire_struct!(Segment { start, len, extent, offset });
wire_struct!(Commit { ino, grant, applied, content, size, mtime, kill_priv });
wire_struct!(SessionInfo { volume, session, epoch, node });
wire_struct!(Attr {
    ino,
    kind,
    mode,
    nlink,
    uid,
    gid,
    rdev,
    size,
    allocated,
    atime,
    mtime,
    ctime,
    btime,
    change,
    grant,
    applied,
    project
});

wire_enum!(NewKind {
    1 => File,
    2 => Directory,
    3 => Symlink(target),
    4 => Fifo,
    5 => Socket,
    6 => CharDevice(number),
    7 => BlockDevice(number),
});

wire_enum!(FileKind {
    1 => File,
    2 => Directory,
    3 => Symlink,
    4 => Fifo,
    5 => Socket,
    6 => CharDevice,
    7 => BlockDevice,
});

wire_enum!(QuotaState {
    0 => Counting,
    1 => Set,
    2 => Removing,
    3 => Removed,
});

wire_enum!(RenameMode {
    0 => Replace,
    1 => NoReplace,
    2 => Exchange,
    3 => Whiteout,
    4 => NoReplaceWhiteout,
});

wire_enum!(SetTime {
    0 => Now,
    1 => To(time),
});

wire_enum!(XattrMode {
    0 => Set,
    1 => Create,
    2 => Replace,
});

wire_enum!(FallocateMode {
    0 => Allocate,
    1 => AllocateKeepSize,
    2 => PunchHole,
    3 => Zero,
    4 => ZeroKeepSize,
});

wire_enum!(Content {
    0 => Inline(bytes),
    1 => Segments { extents, segments },
});

wire_enum!(Command {
    1 => RegisterNode { node, incarnation },
    2 => AddDisk { disk, bytes },
    3 => CreateVolume { name, limit, hash_key, mode, cred },
    4 => SetLimit { volume, limit },
    5 => OpenSession { volume, node, incarnation },
    6 => CloseSession { volume, session },
    7 => Settle { volume, session, settled },
    8 => Reclaim { volume, steps },
    9 => DropExtents { ids },
    10 => Restored { epoch, sessions, keep_until },
    16 => AddGroup { disks },
    17 => DiskAbsent { disk },
    18 => DiskBack { disk },
    19 => SlotFilled { group, disk, epoch },
    20 => ReplaceSlot { group, old, new },
    21 => RetireDisk { disk },
    32 => Create { parent, name, kind, mode, umask, cred },
    33 => Link { ino, parent, name },
    34 => Unlink { parent, name, pinned, cred },
    35 => Rmdir { parent, name, pinned, cred },
    36 => Rename { parent, name, new_parent, new_name, mode, pinned, cred },
    37 => Unpin { ino },
    38 => SetAttr { ino, set, kill_priv, applied, cred },
    39 => SetXattr { ino, name, value, mode, cred },
    40 => RemoveXattr { ino, name, cred },
    41 => GrantWrite { ino },
    42 => Commit(commit),
    43 => Fallocate { ino, mode, offset, len, kill_priv },
    44 => Touch { ino, at },
    45 => Journal { commands },
    50 => CopyRange { from, from_offset, to, to_offset, len, kill_priv },
    70 => SetQuota { dir, bytes, inodes },
    71 => RemoveQuota { dir },
    72 => CountQuota { steps },
    60 => Rewrite { ino, from, extents, to },
});

wire_enum!(Reply {
    0 => Done,
    1 => Failed(errno),
    2 => Attr(attr),
    3 => Removed(attr),
    4 => Renamed { moved, other },
    5 => Volume(id),
    6 => Group(id),
    7 => Session(info),
    8 => Granted(grant),
    9 => Left(rows),
    10 => SlotMisuse,
    11 => ReplyGone,
    12 => Fenced,
    20 => Copied { attr, bytes },
    21 => Journaled { replies, differs },
});

#[cfg(test)]
mod tests;
