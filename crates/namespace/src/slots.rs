//! Command slots: a command applies once, however often it is sent (RFC 8881 section 2.10.6).

use types::Nanos;

use crate::apply::run;
use crate::command::{Envelope, Reply};
use crate::encoding::digest;
use crate::keys;
use crate::overlay::Overlay;
use crate::row;
use crate::row::session::{Session, Slot};
use crate::rows::RowsError;

/// Runs the command, or answers what it was answered before.
pub(crate) fn once(over: &mut Overlay<'_>, now: Nanos, envelope: &Envelope) -> Result<Reply, RowsError> {
    let Some(slot) = envelope.slot else { return run(over, now, envelope) };
    if slot.session.0 >= 1 << 48 {
        return Ok(Reply::Fenced);
    }
    let session: Option<Session> = row::get(over, &keys::session(slot.volume, slot.session))?;
    if session.is_none_or(|session| session.epoch != slot.epoch) {
        return Ok(Reply::Fenced);
    }
    let key = keys::slot(slot.volume, slot.session, slot.slot);
    let last: Option<Slot> = row::get(over, &key)?;
    let last_seq = last.as_ref().map_or(0, |last| last.seq);
    let digest = digest(&envelope.command);
    match last {
        Some(last) if last.seq == slot.seq => {
            return Ok(if last.digest == digest { last.reply } else { Reply::SlotMisuse });
        }
        _ if slot.seq < last_seq => return Ok(Reply::ReplyGone),
        // Also the first of a slot, if it is not 1.
        _ if slot.seq - last_seq != 1 => return Ok(Reply::SlotMisuse),
        _ => {}
    }
    let reply = run(over, now, envelope)?;
    over.put(key, row::value(&Slot { seq: slot.seq, digest, reply: reply.clone() }));
    over.settle();
    Ok(reply)
}
