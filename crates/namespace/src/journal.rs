//! An exclusive mount runs its commands over rows of its own, answers, and sends what it did: the two sides of that.
//!
//! The mount calls [`predict`] and tells with each command what came of it ([`Expected`]). The service applies them
//! in the mount's order at the mount's times, so that it comes to the same rows. A difference is a bug on one of the
//! two sides: the service stops at it and says so, because everything behind it was answered on a false ground.

use alloc::boxed::Box;
use alloc::vec::Vec;
use types::{Errno, ExtentId, Grant, Ino, Nanos, SessionId, VolumeId};

use crate::apply::{mounted, with};
use crate::command::{Command, Reply, SlotRef};
use crate::encoding;
use crate::keys::{self, KeyReader, PREFIX, kind};
use crate::overlay::Overlay;
use crate::row;
use crate::row::cluster::Clock;
use crate::row::inode::Inode;
use crate::rows::{Batch, Rows, RowsError};
use crate::tx::Fail;
use crate::wire::{DecodeError, Reader, Wire, wire_enum};

/// Commands that one journal batch may hold.
pub const JOURNAL_COMMANDS_MAX: usize = 512;

/// A command that a mount has run, or wants to be run in its turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Journaled {
    /// The mount's time: that of everything the command changes. Later commands of a session have larger ones.
    pub time: Nanos,
    /// What the mount answered its caller.
    pub expected: Expected,
    /// A command of a mount, not a journal itself.
    pub command: Command,
}

/// What a mount has answered for a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// Nothing yet: the caller waits for the reply, which may be a refusal.
    Reply,
    /// It succeeded. Nobody can be refused any more, so limits of space do not apply: the mount looked at them.
    Success,
    /// It succeeded, and this is the new inode's number.
    Ino(Ino),
    /// It succeeded, and this is the new grant.
    Grant(Grant),
}

wire_enum!(Expected {
    0 => Reply,
    1 => Success,
    2 => Ino(ino),
    3 => Grant(grant),
});

impl Expected {
    /// What to expect of `command`, which was answered with `reply`.
    pub fn of(command: &Command, reply: &Reply) -> Expected {
        match (command, reply) {
            (Command::Create { .. }, Reply::Attr(attr)) => Expected::Ino(attr.ino),
            (_, Reply::Granted(grant)) => Expected::Grant(*grant),
            _ => Expected::Success,
        }
    }
}

/// The reply to one command of a journal, which is not a journal's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Single(pub Box<Reply>);

impl Wire for Single {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Single, DecodeError> {
        if from.peek() == Some(encoding::JOURNALED) {
            return Err(DecodeError::Tag { what: "a journaled reply", tag: encoding::JOURNALED });
        }
        Ok(Single(Box::new(Wire::read(from)?)))
    }
}

impl Wire for Journaled {
    fn write(&self, out: &mut Vec<u8>) {
        self.time.write(out);
        self.expected.write(out);
        self.command.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Journaled, DecodeError> {
        let (time, expected) = (Wire::read(from)?, Wire::read(from)?);
        // Before it is read: journals in journals would end in the stack's end.
        if from.peek() == Some(encoding::JOURNAL) {
            return Err(DecodeError::Tag { what: "a journaled command", tag: encoding::JOURNAL });
        }
        Ok(Journaled { time, expected, command: Wire::read(from)? })
    }
}

/// Applies a batch in order. It stops at the first command that does not come to what the mount answered.
pub(crate) fn run(over: &mut Overlay<'_>, slot: SlotRef, commands: &[Journaled]) -> Result<Reply, RowsError> {
    let mut replies = Vec::new();
    for (at, item) in commands.iter().enumerate() {
        let answered = item.expected != Expected::Reply;
        let outcome = with(over, item.time, slot.volume, |tx| {
            tx.answered = answered;
            mounted(tx, slot, &item.command)
        });
        let reply = match outcome {
            Ok(reply) => reply,
            Err(Fail::Errno(errno)) => Reply::Failed(errno),
            Err(Fail::Fenced) => Reply::Fenced,
            Err(Fail::Rows(error)) => return Err(error),
        };
        let refused = matches!(reply, Reply::Failed(_) | Reply::Fenced);
        let differs = answered && (refused || Expected::of(&item.command, &reply) != item.expected);
        if refused || differs {
            over.roll_back();
        }
        over.settle();
        if differs {
            let differs = Some((at as u32, Single(Box::new(reply))));
            return Ok(Reply::Journaled { replies, differs });
        }
        if !answered {
            replies.push(Single(Box::new(reply)));
        }
    }
    Ok(Reply::Journaled { replies, differs: None })
}

/// What a command of the session would change, and its reply; nothing if it is refused.
///
/// # Errors
/// Rows that cannot be read. `rows` may also fail because it does not have what it was asked for.
pub fn predict(
    rows: &dyn Rows,
    slot: SlotRef,
    time: Nanos,
    command: &Command,
) -> Result<(Batch, Reply), RowsError> {
    let mut over = Overlay::once(rows);
    match with(&mut over, time, slot.volume, |tx| mounted(tx, slot, command)) {
        Ok(reply) => Ok((over.into_batch(), reply)),
        Err(Fail::Errno(errno)) => Ok((Batch::new(), Reply::Failed(errno))),
        Err(Fail::Fenced) => Ok((Batch::new(), Reply::Fenced)),
        Err(Fail::Rows(error)) => Err(error),
    }
}

/// What a row belongs to: a mount that keeps rows has to know which of them only its own commands change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    /// An inode: the row itself, names in it, its names, inline bytes, attributes, target, writer and pins.
    Inode(Ino),
    /// The map of an inode, which reclaim changes too.
    Map(Ino),
    /// An extent, which reclaim changes too.
    Extent(ExtentId),
    /// What is left to reclaim.
    Reclaim,
    /// The volume, its sessions, or the cluster.
    Shared,
}

/// What the row under a key belongs to.
pub fn home(key: &[u8]) -> Home {
    let Some((_, kind, mut rest)) = KeyReader::open(key) else { return Home::Shared };
    match kind {
        kind::INODE
        | kind::DENTRY
        | kind::PARENT
        | kind::INLINE
        | kind::XATTR
        | kind::SYMLINK
        | kind::WRITER
        | kind::PINNED => rest.u64().map_or(Home::Shared, |ino| Home::Inode(Ino(ino))),
        kind::MAP => rest.u64().map_or(Home::Shared, |ino| Home::Map(Ino(ino))),
        kind::EXTENT => rest.extent().map_or(Home::Shared, Home::Extent),
        kind::RECLAIM => Home::Reclaim,
        _ => Home::Shared,
    }
}

/// For a key of an inode's rows: the range of that inode's rows of the same kind.
pub fn siblings(key: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let prefix = key[..key.len().min(PREFIX + 8)].to_vec();
    let after = keys::after(&prefix);
    (prefix, after)
}

/// Whether `to` is no further than the end of [`siblings`] of `from`.
pub fn ends_among_siblings(from: &[u8], to: &[u8]) -> bool {
    let prefix = &from[..from.len().min(PREFIX + 8)];
    to.starts_with(prefix) || to <= prefix || to == keys::after(prefix)
}

/// The key of an inode's own row.
pub fn inode_key(volume: VolumeId, ino: Ino) -> Vec<u8> {
    keys::inode(volume, ino)
}

/// Whether the key is that of an inode's own row.
pub fn is_inode_row(key: &[u8]) -> bool {
    KeyReader::open(key).is_some_and(|(_, kind, _)| kind == kind::INODE)
}

/// Whether the inode of this row has no map rows at all. A row that cannot be read says no.
pub fn has_no_map(value: &[u8]) -> bool {
    row::body::<Inode>(value).is_ok_and(|row| !row.may_have_map())
}

/// The time up to which rows were changed.
pub(crate) fn applied_time(rows: &dyn Rows) -> Result<Nanos, RowsError> {
    Ok(row::get::<Clock>(rows, &keys::clock())?.map_or(Nanos(i64::MIN), |clock| clock.last))
}

/// The slot of a session, for [`predict`]: its sequence does not matter there.
pub fn any_slot(volume: VolumeId, session: SessionId) -> SlotRef {
    SlotRef { volume, session, epoch: types::Epoch(0), slot: 0, seq: 0 }
}

/// Whether a refusal can be owed to space that others gave back meanwhile.
pub fn is_for_space(reply: &Reply) -> bool {
    matches!(reply, Reply::Failed(Errno::ENOSPC | Errno::EDQUOT))
}
