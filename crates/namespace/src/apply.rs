//! The entry's commands, one after the other.

use alloc::vec::Vec;
use types::{Errno, Nanos, SessionId};

use crate::command::{Command, Entry, Envelope, Reply, SlotRef};
use crate::overlay::Overlay;
use crate::row::cluster::Clock;
use crate::rows::{Batch, Rows, RowsError};
use crate::tx::{Fail, Outcome, Tx};
use crate::{
    attrs, cluster, commit, copy, fallocate, groups, journal, keys, names, projects, reclaim, remove, rename,
    restored, rewrite, row, sessions, slots, xattrs,
};

/// The changes that an entry makes to the rows, and the answer to each of its commands.
///
/// Commands see what earlier ones of the entry did. A refused command changes nothing but its slot. The batch holds
/// each key once, in key order, and nothing of [`RAFT_TABLE`](crate::RAFT_TABLE).
///
/// # Errors
/// Rows that cannot be read or are not what this program writes: the voter stops. A command is never the cause.
pub fn apply(rows: &dyn Rows, entry: &Entry) -> Result<(Batch, Vec<Reply>), RowsError> {
    let mut over = Overlay::new(rows);
    let last = row::get::<Clock>(rows, &keys::clock())?.map(|clock| clock.last);
    // At the end of time it stands still: 2262 is the range of the type.
    let now = last.map_or(entry.time, |last| entry.time.max(Nanos(last.0.saturating_add(1))));
    over.put(keys::clock(), row::value(&Clock { last: now }));
    over.settle();
    let mut replies = Vec::with_capacity(entry.commands.len());
    for envelope in &entry.commands {
        replies.push(slots::once(&mut over, now, envelope)?);
    }
    Ok((over.into_batch(), replies))
}

/// Runs a command; if it fails nothing of it stays.
pub(crate) fn run(over: &mut Overlay<'_>, now: Nanos, envelope: &Envelope) -> Result<Reply, RowsError> {
    if let (Command::Journal { commands }, Some(slot)) = (&envelope.command, envelope.slot) {
        return journal::run(over, slot, commands);
    }
    let outcome = dispatch(over, now, envelope);
    if outcome.is_err() {
        over.roll_back();
    }
    over.settle();
    match outcome {
        Ok(reply) => Ok(reply),
        Err(Fail::Errno(errno)) => Ok(Reply::Failed(errno)),
        Err(Fail::Fenced) => Ok(Reply::Fenced),
        Err(Fail::Rows(error)) => Err(error),
    }
}

fn dispatch(over: &mut Overlay<'_>, now: Nanos, envelope: &Envelope) -> Outcome<Reply> {
    match &envelope.command {
        Command::RegisterNode { node, incarnation } => cluster::register_node(over, *node, *incarnation),
        Command::AddDisk { disk, bytes } => groups::add_disk(over, disk, *bytes),
        Command::AddGroup { disks } => groups::add_group(over, disks),
        Command::DiskAbsent { disk } => groups::disk_absent(over, disk),
        Command::DiskBack { disk } => groups::disk_back(over, disk),
        Command::SlotFilled { group, disk, epoch } => groups::slot_filled(over, *group, disk, *epoch),
        Command::ReplaceSlot { group, old, new } => groups::replace_slot(over, *group, old, new),
        Command::RetireDisk { disk } => groups::retire_disk(over, disk),
        Command::CreateVolume { name, limit, hash_key, mode, cred } => {
            cluster::create_volume(over, now, name, *limit, *hash_key, *mode, *cred)
        }
        Command::DropExtents { ids } => reclaim::drop_extents(over, ids),
        Command::Restored { epoch, sessions, keep_until } => {
            restored::restored(over, *epoch, sessions, *keep_until)
        }
        Command::SetLimit { volume, limit } => with(over, now, *volume, |tx| {
            tx.volume.limit = *limit;
            Ok(Reply::Done)
        }),
        Command::OpenSession { volume, node, incarnation } => {
            with(over, now, *volume, |tx| sessions::open(tx, *node, *incarnation))
        }
        Command::CloseSession { volume, session } => {
            with(over, now, *volume, |tx| sessions::close(tx, *session))
        }
        Command::Settle { volume, session, settled } => {
            with(over, now, *volume, |tx| sessions::settle(tx, *session, *settled))
        }
        Command::Reclaim { volume, steps } => with(over, now, *volume, |tx| reclaim::reclaim(tx, *steps)),
        // The rest is a mount's, and a mount has slots.
        command => {
            let slot = envelope.slot.ok_or(Errno::EINVAL)?;
            with(over, now, slot.volume, |tx| mounted(tx, slot, command))
        }
    }
}

pub(crate) fn with<'r>(
    over: &mut Overlay<'r>,
    now: Nanos,
    volume: types::VolumeId,
    work: impl FnOnce(&mut Tx<'_, 'r>) -> Outcome<Reply>,
) -> Outcome<Reply> {
    let mut tx = Tx::begin(over, now, volume)?;
    let reply = work(&mut tx)?;
    tx.finish();
    Ok(reply)
}

/// A command of a mount.
pub(crate) fn mounted(tx: &mut Tx<'_, '_>, slot: SlotRef, command: &Command) -> Outcome<Reply> {
    let holder = |pinned: bool| -> Option<SessionId> { pinned.then_some(slot.session) };
    match command {
        Command::Create { parent, name, kind, mode, umask, cred } => {
            names::create(tx, *parent, name, kind, names::NewMode { asked: *mode, umask: *umask }, *cred)
        }
        Command::Link { ino, parent, name } => names::link(tx, *ino, *parent, name),
        Command::Unlink { parent, name, pinned, cred } => {
            remove::unlink(tx, *parent, name, holder(*pinned), *cred)
        }
        Command::Rmdir { parent, name, pinned, cred } => {
            remove::rmdir(tx, *parent, name, holder(*pinned), *cred)
        }
        Command::Rename { parent, name, new_parent, new_name, mode, pinned, cred } => {
            let names = rename::Names { parent: *parent, name, new_parent: *new_parent, new_name };
            rename::rename(tx, names, *mode, holder(*pinned), *cred)
        }
        Command::Unpin { ino } => sessions::unpin(tx, *ino, slot.session),
        Command::SetAttr { ino, set, kill_priv, applied, cred: _ } => {
            attrs::set_attr(tx, *ino, set, *kill_priv, *applied)
        }
        Command::SetXattr { ino, name, value, mode, cred } => {
            xattrs::set(tx, *ino, name, value, *mode, *cred)
        }
        Command::RemoveXattr { ino, name, cred: _ } => xattrs::remove(tx, *ino, name),
        Command::GrantWrite { ino } => sessions::grant_write(tx, *ino, slot.session),
        Command::Commit(commit) => commit::commit(tx, slot.session, commit),
        Command::Fallocate { ino, mode, offset, len, kill_priv } => {
            fallocate::fallocate(tx, *ino, *mode, *offset, *len, *kill_priv)
        }
        Command::Touch { ino, at } => attrs::touch(tx, *ino, *at),
        Command::CopyRange { from, from_offset, to, to_offset, len, kill_priv } => {
            let from = copy::Place { ino: *from, offset: *from_offset };
            let to = copy::Place { ino: *to, offset: *to_offset };
            copy::copy(tx, from, to, *len, *kill_priv)
        }
        Command::SetQuota { dir, bytes, inodes } => projects::set(tx, *dir, *bytes, *inodes),
        Command::RemoveQuota { dir } => projects::remove(tx, *dir),
        Command::CountQuota { steps } => projects::step(tx, *steps),
        Command::Rewrite { ino, from, extents, to } => {
            rewrite::rewrite(tx, slot.session, *ino, from, extents, to)
        }
        // Answered by `dispatch`; named so that a new command cannot be forgotten here.
        Command::RegisterNode { .. }
        | Command::AddDisk { .. }
        | Command::AddGroup { .. }
        | Command::DiskAbsent { .. }
        | Command::DiskBack { .. }
        | Command::SlotFilled { .. }
        | Command::ReplaceSlot { .. }
        | Command::RetireDisk { .. }
        | Command::CreateVolume { .. }
        | Command::SetLimit { .. }
        | Command::OpenSession { .. }
        | Command::CloseSession { .. }
        | Command::Settle { .. }
        | Command::Reclaim { .. }
        | Command::DropExtents { .. }
        | Command::Restored { .. }
        | Command::Journal { .. } => Err(Errno::EINVAL.into()),
    }
}
