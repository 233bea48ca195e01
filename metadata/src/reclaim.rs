//! Deleted files and spent sessions go in steps, behind everybody's back.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meta_raft::{LsmRows, Partition};
use namespace::{Answer, Command, Envelope, Query, Reply};
use types::VolumeId;

use crate::service::ask;
use crate::space::ReadOnly;

/// Rows that one command may reclaim.
const STEPS: u32 = 1000;

/// How often to look whether a volume has something to reclaim.
const LOOK: Duration = Duration::from_millis(200);

/// Between two commands while there is more: others have their turn, and a million rows take less than a minute.
const BETWEEN: Duration = Duration::from_millis(20);

/// Volumes in which something was deleted since they were last reclaimed.
#[derive(Clone, Default)]
pub(crate) struct Deleted(Arc<Mutex<BTreeSet<VolumeId>>>);

impl Deleted {
    /// Notes what a command may leave to reclaim.
    pub(crate) fn note(&self, envelope: &Envelope) {
        let volume = match (&envelope.command, envelope.slot) {
            (Command::CloseSession { volume, .. } | Command::Settle { volume, .. }, _) => *volume,
            (Command::Journal { commands }, Some(slot))
                if commands.iter().any(|item| may_delete(&item.command)) =>
            {
                slot.volume
            }
            (command, Some(slot)) if may_delete(command) => slot.volume,
            _ => return,
        };
        self.add(volume);
    }

    fn add(&self, volume: VolumeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(volume);
    }

    fn take(&self) -> BTreeSet<VolumeId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether something may be left to reclaim after a mount's command.
fn may_delete(command: &Command) -> bool {
    matches!(
        command,
        Command::Unlink { .. }
            | Command::Rmdir { .. }
            | Command::Rename { .. }
            | Command::Unpin { .. }
            | Command::SetAttr { .. }
            | Command::Commit(_)
            | Command::Fallocate { .. }
    )
}

/// Reclaims until the partition stops. It begins with every volume: what was deleted before the start is not known.
pub(crate) async fn reclaim(partition: Partition<LsmRows>, deleted: Deleted, read_only: ReadOnly) {
    if let Ok(Answer::Volumes(volumes)) = ask(&partition, &Query::Volumes) {
        volumes.iter().for_each(|volume| deleted.add(volume.id));
    }
    let mut pause = LOOK;
    while partition.stopped().is_none() {
        meta_raft::sleep(pause).await;
        pause = LOOK;
        if read_only.get().is_some() {
            continue;
        }
        for volume in deleted.take() {
            let command = Command::Reclaim { volume, steps: STEPS };
            let envelope = Envelope { slot: None, command };
            let bytes = namespace::encode_envelope(&envelope).len();
            match partition.call(envelope, bytes).await {
                // The next round goes on, so that several volumes take turns.
                Ok(Reply::Left(left)) if left > 0 => {
                    deleted.add(volume);
                    pause = BETWEEN;
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}
