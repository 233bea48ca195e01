//! Everything that there is at one moment.

use crate::arena::Arena;
use crate::engine::Engine;
use crate::file::Answer;
use crate::kernel::{Kernel, UNIQUES, Unique, op_of};
use crate::scope::{APPS, Op, Scope};
use crate::service::{Message, Rows, Service};

/// A state of the model. `Debug` shows it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub(crate) kernel: Kernel,
    pub(crate) arena: Arena,
    pub(crate) service: Service,
    /// Messages on their way, in no order.
    pub(crate) wire: Vec<Message>,
    /// The living, the older first. Two only by a mistake.
    pub(crate) engines: Vec<Engine>,
    pub(crate) deaths: u8,
    pub(crate) witness: Witness,
}

/// What is written down to judge by. No engine looks here.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Witness {
    /// How often a request's effect entered the arena.
    pub(crate) accepted: [u8; UNIQUES],
    /// Changes that an application was told of.
    pub(crate) told: [bool; UNIQUES],
    /// What was told when an application's fsync was read.
    owed: [[bool; UNIQUES]; APPS],
    pub(crate) is_lost_by_fsync: bool,
}

impl State {
    pub(crate) fn new() -> State {
        State {
            kernel: Kernel::new(),
            arena: Arena::default(),
            service: Service::default(),
            wire: Vec::new(),
            engines: vec![Engine::new(0, Rows::default())],
            deaths: 0,
            witness: Witness::default(),
        }
    }

    /// A fresh or resent request comes to an engine.
    pub(crate) fn read_request(&mut self, scope: &Scope, app: usize) -> (Unique, bool) {
        let (unique, is_resent) = self.kernel.read(scope, app);
        if op_of(scope, unique) == Op::Fsync && !is_resent {
            self.witness.owed[app] = self.witness.told;
        }
        (unique, is_resent)
    }

    /// An engine writes a reply.
    pub(crate) fn reply(&mut self, scope: &Scope, unique: Unique, answer: Answer) {
        if !self.kernel.reply(unique, answer) {
            return;
        }
        let app = (unique as usize - 1) / crate::scope::CALLS_MAX;
        match op_of(scope, unique) {
            Op::Read => {}
            Op::Fsync => {
                let is_there = |(unique, owed): (usize, &bool)| !owed || self.service.applied[unique] > 0;
                let all = self.witness.owed[app].iter().enumerate().all(is_there);
                self.witness.is_lost_by_fsync |= !all;
            }
            _ => self.witness.told[unique as usize] = answer == Answer::Done,
        }
    }

    /// Tells states apart only where something can come of it.
    pub(crate) fn tidy(&mut self) {
        let State { wire, service, engines, .. } = self;
        wire.retain(|message| {
            let is_awaited = engines.iter().any(|engine| engine.number == message.engine);
            is_awaited || !service.knows(message)
        });
        wire.sort_unstable_by_key(|message| (message.slot, message.seq, message.engine));
        engines.iter_mut().for_each(|engine| engine.tasks.sort_by_key(|task| task.unique));
    }

    /// Whether every call was answered and every change has reached the service, with nothing left behind.
    pub(crate) fn is_done(&self, scope: &Scope) -> bool {
        self.kernel.is_done(scope)
            && self.arena.is_empty()
            && self.wire.is_empty()
            && self.engines.iter().all(Engine::is_idle)
    }

    /// Whether a change that an application was told of is neither at the service nor on a way there.
    pub(crate) fn has_lost(&self) -> bool {
        let is_kept = |unique: usize| self.service.applied[unique] > 0 || self.arena.holds(unique as Unique);
        self.witness.told.iter().enumerate().any(|(unique, told)| *told && !is_kept(unique))
    }

    /// Whether some request took effect twice.
    pub(crate) fn has_repeated(&self) -> bool {
        [&self.witness.accepted, &self.service.applied, &self.service.granted]
            .into_iter()
            .flatten()
            .any(|times| *times > 1)
    }
}
