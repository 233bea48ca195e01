//! The start of an engine: every start but the first is a take-over.

use crate::arena::{BACKGROUND, RequestSlot, SLOTS};
use crate::engine::{At, Phase, Task};
use crate::scope::{Mistake, Scope};
use crate::service::Command;
use crate::state::State;

/// Whether the start can go on.
pub(crate) fn can_go_on(state: &State, scope: &Scope, of: usize) -> bool {
    match state.engines[of].phase {
        Phase::Waits => of == 0 || scope.makes(Mistake::NoWait),
        // The rows at the service have the batch in flight, or not: only its reply tells.
        Phase::Sent => {
            !scope.is_exclusive()
                || state.arena.slots[BACKGROUND].busy.is_none()
                || scope.makes(Mistake::RowsBeforeBatch)
        }
        Phase::Fetched => true,
        Phase::Serves => false,
    }
}

/// The next step of an engine's start.
pub(crate) fn go_on(state: &mut State, scope: &Scope, of: usize) {
    let State { engines, arena, service, wire, kernel, .. } = state;
    let engine = &mut engines[of];
    engine.phase = match engine.phase {
        Phase::Waits => {
            for slot in 0..SLOTS {
                if arena.slots[slot].busy.is_none() {
                    continue;
                }
                if scope.makes(Mistake::NewSequence) {
                    arena.slots[slot].seq += 1;
                }
                wire.push(engine.message(arena, slot));
            }
            engine.in_flight = match &arena.slots[BACKGROUND].busy {
                Some((_, Command::Batch(entries))) => entries.last().expect("no batch is empty").jseq,
                Some((_, Command::Commit { dseq, .. })) => *dseq,
                _ => 0,
            };
            Phase::Sent
        }
        Phase::Sent => {
            engine.rows = service.rows.clone();
            let durable = engine.rows.applied;
            if scope.is_exclusive() {
                for entry in arena.unsettled() {
                    engine.rows.apply(&entry.command);
                }
                if scope.makes(Mistake::RecordsAgainstService) {
                    engine.rows.applied = durable;
                }
            }
            Phase::Fetched
        }
        Phase::Fetched | Phase::Serves => {
            if scope.resend {
                kernel.resend();
            } else {
                let left = arena.requests.iter();
                let again = |slot: &RequestSlot| Task { unique: slot.unique, at: At::Match };
                engine.tasks.extend(left.map(again));
            }
            Phase::Serves
        }
    };
}
