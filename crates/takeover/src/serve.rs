//! The way of a request through an engine, one store, message or system call at a time.

use crate::arena::Arena;
use crate::engine::{At, Engine, Task};
use crate::file::Answer;
use crate::kernel::op_of;
use crate::scope::{Mistake, Op, Scope};
use crate::service::{Command, Message, Reply, Rows};
use crate::state::State;

/// Whether the next step of a task can be taken.
pub(crate) fn can_step(state: &State, scope: &Scope, of: usize, task: usize) -> bool {
    let (engine, arena) = (&state.engines[of], &state.arena);
    let task = &engine.tasks[task];
    match task.at {
        At::Begin => begin(state, scope, of, task).is_some(),
        At::Wait(slot) => engine.replies[slot].is_some(),
        At::Map(upto) => arena.first_unmapped(engine.rows.applied).is_none_or(|record| record.dseq > upto),
        At::Settle(upto) => arena.settled >= upto,
        _ => true,
    }
}

/// What a request that was just looked at comes to.
enum Begun {
    /// No store is needed to know the next step.
    Next(At),
    /// A write's data.
    Record(u8),
    /// A command that this mount runs itself.
    Entry(Command),
    /// A command that the service runs, and the slot for it.
    Slot(usize, Command),
}

/// Looks whether a resent request was run already: where to go on.
fn matched(arena: &Arena, scope: &Scope, task: &Task) -> At {
    let unique = task.unique;
    if let Some(answer) = arena.kept_answer(unique) {
        return At::Tell(answer);
    }
    let is_accepted = arena.has_record_of(unique) && !scope.makes(Mistake::RecordsNotMatched);
    if is_accepted || arena.has_entry_of(unique) {
        return ran(scope, Answer::Done);
    }
    arena.slot_of(unique).map_or(At::Begin, At::Wait)
}

/// What a request needs. `None`: it has to wait.
fn begin(state: &State, scope: &Scope, of: usize, task: &Task) -> Option<Begun> {
    let (engine, arena) = (&state.engines[of], &state.arena);
    let unique = task.unique;
    let command = match op_of(scope, unique) {
        Op::Read => return Some(Begun::Next(At::Tell(seen(state, scope, of)))),
        Op::Fsync => return Some(Begun::Next(At::Map(arena.last_dseq))),
        Op::Write(_) | Op::Append if scope.is_exclusive() || engine.rows.grant > 0 => {
            return Some(Begun::Record(written(state, scope, of, task)));
        }
        // One asks for the grant; the others wait.
        Op::Write(_) | Op::Append if is_asked_for(arena) => return None,
        Op::Write(_) | Op::Append => Command::Grant,
        // What was written before has to be mapped before: the journal alone says in which order.
        Op::Truncate => arena.first_unmapped(engine.rows.applied).is_none().then_some(Command::Truncate)?,
        Op::Create => Command::Create,
        Op::Unlink => Command::Unlink,
        Op::Exchange => Command::Exchange,
    };
    if !scope.is_exclusive() {
        return Some(Begun::Slot(arena.free_slot()?, command));
    }
    match engine.rows.clone().apply(&command) {
        Reply::Answer(Answer::Done) => Some(Begun::Entry(command)),
        // It changes nothing, so the journal does not have it.
        Reply::Answer(answer) => Some(Begun::Next(ran(scope, answer))),
        reply => unreachable!("no such reply to a name: {reply:?}"),
    }
}

/// Takes the next step of a task.
pub(crate) fn step(state: &mut State, scope: &Scope, of: usize, index: usize) {
    let task = state.engines[of].tasks[index].clone();
    let next = match task.at {
        At::Copy => {
            state.arena.take_request_slot(task.unique);
            Some(At::Begin)
        }
        At::Match => Some(matched(&state.arena, scope, &task)),
        At::Begin => {
            let begun = begin(state, scope, of, &task).expect("only what can be done is done");
            Some(first_store(state, scope, of, &task, begun))
        }
        At::Slot(slot) => {
            if let Some(Begun::Slot(_, command)) = begin(state, scope, of, &task) {
                state.arena.take_slot(slot, task.unique, command);
            }
            Some(At::Wait(slot))
        }
        At::Wait(slot) => match state.engines[of].replies[slot].expect("it is here") {
            Reply::Answer(answer) => Some(ran(scope, answer)),
            // The second step of a write.
            Reply::Grant(_) => {
                let value = written(state, scope, of, &task);
                Some(accept(state, scope, of, &task, value))
            }
            Reply::Refused => unreachable!("only commits are refused"),
        },
        At::Map(_) if scope.is_exclusive() => Some(At::Settle(state.arena.last_jseq)),
        At::Map(_) | At::Settle(_) => Some(At::Tell(Answer::Done)),
        At::Keep(answer) => {
            if let Some(slot) = state.arena.request_slot(task.unique) {
                slot.answer = Some(answer);
            }
            Some(At::Tell(answer))
        }
        At::Tell(answer) => {
            state.reply(scope, task.unique, answer);
            (!scope.resend).then_some(At::Clear)
        }
        At::Late => {
            let begun = begin(state, scope, of, &task);
            store_late(state, of, &task, begun);
            (!scope.resend).then_some(At::Clear)
        }
        At::Clear => {
            state.arena.requests.retain(|slot| slot.unique != task.unique);
            None
        }
    };
    let tasks = &mut state.engines[of].tasks;
    match next {
        Some(at) => tasks[index].at = at,
        None => {
            tasks.remove(index);
        }
    }
}

/// The store with which a request begins to take effect.
fn first_store(state: &mut State, scope: &Scope, of: usize, task: &Task, begun: Begun) -> At {
    match begun {
        Begun::Next(at) => at,
        Begun::Record(value) => accept(state, scope, of, task, value),
        Begun::Entry(_) if scope.makes(Mistake::JournalAfterReply) => {
            state.reply(scope, task.unique, Answer::Done);
            At::Late
        }
        Begun::Entry(command) => {
            append(state, of, task, command);
            ran(scope, Answer::Done)
        }
        Begun::Slot(slot, command) if scope.makes(Mistake::SlotAfterSend) => {
            let (engine, seq) = (state.engines[of].number, state.arena.slots[slot].seq + 1);
            state.wire.push(Message { engine, slot, seq, unique: task.unique, command });
            At::Slot(slot)
        }
        Begun::Slot(slot, command) => {
            state.arena.take_slot(slot, task.unique, command);
            let message = state.engines[of].message(&state.arena, slot);
            state.wire.push(message);
            At::Wait(slot)
        }
    }
}

/// Accepts a write: one store, which is its effect.
fn accept(state: &mut State, scope: &Scope, of: usize, task: &Task, value: u8) -> At {
    if scope.makes(Mistake::RecordAfterReply) {
        state.reply(scope, task.unique, Answer::Done);
        return At::Late;
    }
    let grant = state.engines[of].rows.grant;
    state.arena.accept(task.unique, grant, value);
    state.witness.accepted[task.unique as usize] += 1;
    ran(scope, Answer::Done)
}

fn append(state: &mut State, of: usize, task: &Task, command: Command) {
    state.engines[of].rows.apply(&command);
    state.arena.append(task.unique, command);
    state.witness.accepted[task.unique as usize] += 1;
}

/// What should have been stored before the reply.
fn store_late(state: &mut State, of: usize, task: &Task, begun: Option<Begun>) {
    match begun {
        Some(Begun::Record(value)) => {
            let grant = state.engines[of].rows.grant;
            state.arena.accept(task.unique, grant, value);
        }
        Some(Begun::Entry(command)) => append(state, of, task, command),
        _ => {}
    }
}

/// The step after the effect: without RESEND the answer is stored before it is told.
fn ran(scope: &Scope, answer: Answer) -> At {
    if scope.resend || scope.makes(Mistake::NoAnswerInSlot) { At::Tell(answer) } else { At::Keep(answer) }
}

fn is_asked_for(arena: &Arena) -> bool {
    arena.slots.iter().any(|slot| matches!(slot.busy, Some((_, Command::Grant))))
}

fn seen(state: &State, scope: &Scope, of: usize) -> Answer {
    let rows = rows(state, scope, of);
    let mut file = rows.file;
    file.value = state.arena.over(file.value, rows.applied);
    file.seen()
}

/// The value after a write.
fn written(state: &State, scope: &Scope, of: usize, task: &Task) -> u8 {
    let rows = rows(state, scope, of);
    match op_of(scope, task.unique) {
        Op::Write(value) => value,
        _ => state.arena.over(rows.file.value, rows.applied) + 1,
    }
}

/// What lies below the records: the mount's own rows, or the service's.
fn rows<'a>(state: &'a State, scope: &Scope, of: usize) -> &'a Rows {
    let engine: &Engine = &state.engines[of];
    if scope.is_exclusive() { &engine.rows } else { &state.service.rows }
}
