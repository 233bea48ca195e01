//! What can happen next, and what must hold.

use stateright::{Model, Property};

use crate::arena::REQUESTS;
use crate::engine::{At, Chore, Engine, Phase, Task, chores, do_chore};
use crate::recovery;
use crate::scope::{APPS, Mistake, Scope};
use crate::serve;
use crate::service::{Reply, Rows};
use crate::state::State;

/// The model of one scope.
#[derive(Clone, Debug)]
pub struct Takeover(pub Scope);

/// What happens between two states. Engines are counted from the oldest that lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// An engine reads the request of an application.
    Read(usize, usize),
    /// An engine goes on with a request.
    Step(usize, usize),
    /// An engine does something by itself.
    Do(usize, Chore),
    /// An engine goes on with its start.
    Start(usize),
    /// A message reaches the service, and its reply the engine if it lives.
    Deliver(usize),
    /// The oldest engine dies; the holder starts another one if none is left. Its messages go on, or are lost: it had
    /// stored their slots, but not sent them.
    Die {
        /// Whether they go on.
        is_sent: bool,
    },
    /// The holder starts an engine beside the one that lives.
    StartBeside,
}

impl Model for Takeover {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let scope = &self.0;
        for (of, engine) in state.engines.iter().enumerate() {
            let reads = match engine.phase {
                Phase::Serves => true,
                Phase::Fetched => scope.makes(Mistake::ResendAfterRead),
                Phase::Waits | Phase::Sent => false,
            };
            if reads && state.arena.requests.len() < REQUESTS {
                let readable = (0..APPS).filter(|app| state.kernel.can_read(scope, *app));
                actions.extend(readable.map(|app| Action::Read(of, app)));
            }
            let ready = (0..engine.tasks.len()).filter(|task| serve::can_step(state, scope, of, *task));
            actions.extend(ready.map(|task| Action::Step(of, task)));
            actions.extend(chores(state, scope, of).into_iter().map(|chore| Action::Do(of, chore)));
            if recovery::can_go_on(state, scope, of) {
                actions.push(Action::Start(of));
            }
        }
        actions.extend((0..state.wire.len()).map(Action::Deliver));
        let can_die = state.deaths < scope.deaths && !state.is_done(scope);
        if can_die {
            actions.push(Action::Die { is_sent: true });
            if state.wire.iter().any(|message| message.engine == state.engines[0].number) {
                actions.push(Action::Die { is_sent: false });
            }
        }
        if can_die && state.engines.len() == 1 && scope.makes(Mistake::NoWait) {
            actions.push(Action::StartBeside);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let (scope, mut state) = (&self.0, last.clone());
        match action {
            Action::Read(of, app) => {
                let (unique, is_resent) = state.read_request(scope, app);
                let at = match is_resent {
                    true => At::Match,
                    false if scope.makes(Mistake::CopyAfterRead) => At::Copy,
                    false => At::Begin,
                };
                if !scope.resend && at != At::Copy {
                    // read(2) lays the request where its slot is.
                    state.arena.take_request_slot(unique);
                }
                state.engines[of].tasks.push(Task { unique, at });
            }
            Action::Step(of, task) => serve::step(&mut state, scope, of, task),
            Action::Do(of, chore) => do_chore(&mut state, scope, of, chore),
            Action::Start(of) => recovery::go_on(&mut state, scope, of),
            Action::Deliver(index) => {
                let message = state.wire.remove(index);
                let reply = state.service.receive(&message);
                let sender = state.engines.iter_mut().find(|engine| engine.number == message.engine);
                if let (Some(engine), Some(reply)) = (sender, reply) {
                    engine.replies[message.slot] = Some(reply);
                    if let Reply::Grant(grant) = reply {
                        engine.rows.grant = grant;
                    }
                }
            }
            Action::Die { is_sent } => {
                let dead = state.engines.remove(0);
                state.wire.retain(|message| is_sent || message.engine != dead.number);
                state.deaths += 1;
                if state.engines.is_empty() {
                    state.engines.push(Engine::new(dead.number + 1, Rows::default()));
                }
            }
            Action::StartBeside => {
                let number = state.engines[0].number + 1;
                state.engines.push(Engine::new(number, Rows::default()));
            }
        }
        state.tidy();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Takeover>> {
        let mut properties = vec![
            Property::always(ONE_ENGINE, |_, state: &State| {
                state.engines.iter().filter(|engine| engine.phase != Phase::Waits).count() <= 1
            }),
            Property::always(ONCE, |_, state: &State| !state.has_repeated()),
            Property::always(LINEARIZABLE, |_, state: &State| state.kernel.history.is_explained()),
            Property::always(FSYNC, |_, state: &State| !state.witness.is_lost_by_fsync),
            Property::always(KEPT, |_, state: &State| !state.has_lost()),
            Property::always(ACCEPTED, |_, state: &State| !state.service.has_refused),
            // A done state is left only towards done states, so the last one of each path decides.
            Property::eventually(ANSWERED, |model: &Takeover, state: &State| state.is_done(&model.0)),
        ];
        if self.0.mistake.is_none() && self.0.deaths > 0 {
            properties.push(Property::sometimes(MATCHED, |_, state: &State| {
                let has_run = |task: &Task| {
                    let (arena, unique) = (&state.arena, task.unique);
                    arena.has_record_of(unique)
                        || arena.has_entry_of(unique)
                        || arena.slot_of(unique).is_some()
                };
                let mut tasks = state.engines.iter().flat_map(|engine| &engine.tasks);
                tasks.any(|task| task.at == At::Match && has_run(task))
            }));
            properties.push(Property::sometimes(LATE, |_, state: &State| {
                state.wire.iter().any(|message| state.engines.iter().all(|it| it.number > message.engine))
            }));
        }
        properties
    }
}

/// No two engines act at once.
pub(crate) const ONE_ENGINE: &str = "one engine acts";
/// No request takes effect twice, in the arena or at the service.
pub(crate) const ONCE: &str = "each request takes effect once";
/// Some order of the calls explains all that applications were told.
pub(crate) const LINEARIZABLE: &str = "what applications see is linearizable";
/// A write that was told before an fsync began is at the service when it returns.
pub(crate) const FSYNC: &str = "what fsync answered for is at the service";
/// A change that was told is at the service, or in the arena on its way there.
pub(crate) const KEPT: &str = "nothing that was answered is lost";
/// The service meets no sequence out of order, no commit without its grant, no other result than was told.
pub(crate) const ACCEPTED: &str = "the service refuses nothing";
/// Every call is answered, every change reaches the service, and the arena is empty again.
pub(crate) const ANSWERED: &str = "every request is answered and nothing is left";
/// A resent request finds that it was run.
pub(crate) const MATCHED: &str = "a resent request was run already";
/// A message of a dead engine is on its way.
pub(crate) const LATE: &str = "a dead engine's message is on its way";
