//! Mounts begin and end; what they write and what they hold open.

use types::{Dseq, Epoch, Errno, Grant, Ino, SessionId, VolumeId};

use crate::command::Reply;
use crate::keys;
use crate::overlay::Overlay;
use crate::query::FileKind;
use crate::row;
use crate::row::cluster::Node;
use crate::row::reclaim::{DeadSession, SessionPhase};
use crate::row::session::{Pinned, Session, Writer};
use crate::tx::{Fail, Outcome, Tx};

/// Opens an exclusive session.
pub(crate) fn open(tx: &mut Tx<'_, '_>, node: u64, incarnation: u64) -> Outcome<Reply> {
    let registered: Option<Node> = tx.get(&keys::node(node))?;
    if registered.is_none_or(|registered| registered.incarnation != incarnation) {
        return Err(Errno::ESTALE.into());
    }
    let prefix = keys::prefix(tx.id, keys::kind::SESSION);
    if tx.first::<Session>(&prefix, &keys::after(&prefix))?.is_some() {
        return Err(Errno::EBUSY.into());
    }
    let id = tx.volume.next_session;
    let epoch = tx.volume.next_epoch;
    // 2^48 mounts, or 2^32 fencing numbers.
    if id.0 + 1 >= 1 << 48 || epoch.0 == u32::MAX {
        return Err(Errno::ENOSPC.into());
    }
    tx.volume.next_session = SessionId(id.0 + 1);
    tx.volume.next_epoch = Epoch(epoch.0 + 1);
    let session = Session { epoch, node, incarnation, settled: 0 };
    let key = keys::session(tx.id, id);
    tx.put(key, &session);
    Ok(Reply::Session(session.info(tx.id, id)))
}

/// The session is no more; its rows are left to reclaim.
pub(crate) fn end(over: &mut Overlay<'_>, volume: VolumeId, session: SessionId) {
    over.delete(keys::session(volume, session));
    let rest = DeadSession { phase: SessionPhase::Slots, cursor: 0 };
    over.put(keys::reclaim(volume, keys::class::SESSION, session.0), row::value(&rest));
}

/// A mount ends; ending it twice is no error.
pub(crate) fn close(tx: &mut Tx<'_, '_>, session: SessionId) -> Outcome<Reply> {
    if session.0 < 1 << 48 && tx.get::<Session>(&keys::session(tx.id, session))?.is_some() {
        end(tx.over, tx.id, session);
    }
    Ok(Reply::Done)
}

/// The session's settled mark moves up.
pub(crate) fn settle(tx: &mut Tx<'_, '_>, session: SessionId, settled: u64) -> Outcome<Reply> {
    let key = keys::session(tx.id, session);
    let mut row: Session = tx.get(&key)?.ok_or(Fail::Fenced)?;
    if settled > row.settled {
        row.settled = settled;
        tx.put(key, &row);
    }
    Ok(Reply::Done)
}

/// A new write grant: whoever held an older one can commit no more.
pub(crate) fn grant_write(tx: &mut Tx<'_, '_>, ino: Ino, session: SessionId) -> Outcome<Reply> {
    match tx.inode(ino)?.kind {
        FileKind::File => {}
        FileKind::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    let grant = tx.volume.next_grant;
    tx.volume.next_grant = Grant(grant.0 + 1);
    let inode = tx.edit(ino)?;
    inode.grant = grant;
    inode.applied = Dseq(0);
    let key = keys::of_inode(tx.id, keys::kind::WRITER, ino);
    tx.put(key, &Writer { session, grant });
    Ok(Reply::Granted(grant))
}

/// The session closed the nameless inode; doing so twice, or for one with names, is no error.
pub(crate) fn unpin(tx: &mut Tx<'_, '_>, ino: Ino, session: SessionId) -> Outcome<Reply> {
    let key = keys::of_inode(tx.id, keys::kind::PINNED, ino);
    let Some(mut pinned) = tx.get::<Pinned>(&key)? else { return Ok(Reply::Done) };
    pinned.sessions.retain(|holder| *holder != session);
    if pinned.sessions.is_empty() {
        tx.over.delete(key);
        tx.condemn(ino);
    } else {
        tx.put(key, &pinned);
    }
    Ok(Reply::Done)
}
