//! After a restore from a backup: nothing that was given out since the backup is given out again.
//!
//! What happened between the backup and the restore is forgotten here, but not everywhere: fragments of that time lie on
//! the disks, and their stores know epochs of that time. So every number goes on above what anybody may have seen.

use alloc::vec::Vec;
use types::{Epoch, Errno, Grant, Ino, Nanos, SessionId, VolumeId};

use crate::cluster;
use crate::command::Reply;
use crate::keys::{self, kind};
use crate::overlay::Overlay;
use crate::row;
use crate::row::cluster::{Clock, Counters, Group, Restored};
use crate::row::session::Session;
use crate::row::volume::Volume;
use crate::rows::{Rows, RowsError};
use crate::sessions;
use crate::tx::Outcome;

/// Sessions and their epochs that are passed over: those that left no trace on a disk. One is a mount.
const SESSIONS: u64 = 1 << 20;

/// Inode numbers and grants that are passed over: the disks do not tell of them. At a million a second it is 12 days.
const NUMBERS: u64 = 1 << 40;

/// Epochs of groups that are passed over: a disk that is away may have seen more than those here.
const EPOCHS: u32 = 1 << 12;

/// Volumes that are passed over.
const VOLUMES: u32 = 1 << 8;

/// What the disks showed, with a margin, becomes the past. `ENOSPC`, and nothing changes, if a number would run out.
pub(crate) fn restored(
    over: &mut Overlay<'_>,
    epoch: Epoch,
    seen: &[(VolumeId, SessionId)],
    keep_until: Nanos,
) -> Outcome<Reply> {
    let mut counters: Counters = cluster::counters(over)?;
    let known = cluster::volumes(over)?;
    let mut first_sessions = Vec::with_capacity(known.len());
    for id in known {
        let last = seen.iter().filter(|(volume, _)| *volume == id).map(|(_, session)| *session).max();
        first_sessions.push((id, volume(over, id, last)?));
    }
    let newest = seen.iter().map(|(volume, _)| volume.0).max().unwrap_or(0);
    let next = counters.volume.0.max(newest.saturating_add(1)).checked_add(VOLUMES);
    counters.volume = VolumeId(next.ok_or(Errno::ENOSPC)?);
    over.put(keys::counters(), row::value(&counters));

    let mut floor = epoch.max(row(over)?.map_or(Epoch(0), |before| before.first_epoch));
    let groups = crate::groups::all(over)?;
    floor = groups.iter().map(|(_, group)| group.epoch).fold(floor, Epoch::max);
    let floor = Epoch(floor.0.checked_add(EPOCHS).ok_or(Errno::ENOSPC)?);
    for (id, group) in groups {
        over.put(keys::group(id), row::value(&Group { epoch: floor, ..group }));
    }
    over.put(keys::restored(), row::value(&Restored { keep_until, first_epoch: floor, first_sessions }));
    Ok(Reply::Done)
}

/// Raises a volume's numbers and ends its sessions: whoever held one speaks of another past. Answers the first session
/// from now on.
fn volume(over: &mut Overlay<'_>, id: VolumeId, last: Option<SessionId>) -> Outcome<SessionId> {
    let key = keys::volume(id);
    let mut volume: Volume = row::get(over, &key)?.ok_or(Errno::ENOENT)?;
    let after = last.map_or(0, |last| last.0.saturating_add(1));
    let session = volume.next_session.0.max(after).saturating_add(SESSIONS);
    let epoch = volume.next_epoch.0.checked_add(SESSIONS as u32).ok_or(Errno::ENOSPC)?;
    let ino = volume.next_ino.0.checked_add(NUMBERS).ok_or(Errno::ENOSPC)?;
    let grant = volume.next_grant.0.checked_add(NUMBERS).ok_or(Errno::ENOSPC)?;
    if session >= 1 << 48 {
        return Err(Errno::ENOSPC.into());
    }
    volume.next_session = SessionId(session);
    volume.next_epoch = Epoch(epoch);
    volume.next_ino = Ino(ino);
    volume.next_grant = Grant(grant);
    over.put(key, row::value(&volume));
    let prefix = keys::prefix(id, kind::SESSION);
    let mut open = Vec::new();
    row::scan(over, &prefix, &keys::after(&prefix), false, &mut |key, _: Session| {
        open.push(SessionId(keys::last_u64(key)));
        true
    })?;
    for session in open {
        sessions::end(over, id, session);
    }
    Ok(SessionId(session))
}

/// What the last restore left, if there was one.
pub(crate) fn row(rows: &dyn Rows) -> Result<Option<Restored>, RowsError> {
    row::get(rows, &keys::restored())
}

impl Restored {
    /// Whether fragments of this session are still kept although no row names them: another backup may. Reads the time
    /// of the last entry.
    pub(crate) fn keeps(
        &self,
        rows: &dyn Rows,
        volume: VolumeId,
        session: SessionId,
    ) -> Result<bool, RowsError> {
        let now = row::get::<Clock>(rows, &keys::clock())?.map(|clock| clock.last);
        let first = self.first_sessions.iter().find(|(id, _)| *id == volume).map(|(_, first)| *first);
        Ok(now.is_none_or(|now| now < self.keep_until) && first.is_none_or(|first| session < first))
    }
}
