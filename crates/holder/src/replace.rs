//! A newer engine in the place of one that serves.
//!
//! It is started beside the old one, and greets: so its program is there, runs, and speaks the protocol. Only then is
//! the old one killed, and only when that is dead is the new one welcomed. To the kernel and to what is kept it is a
//! death as any other, which is why nothing has to be flushed before. A new one that dies before it serves was no good:
//! the old program is started again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::engine::{Engine, Program};
use crate::holder::Holder;
use crate::kept::{Item, Name};
use crate::peer::Peer;
use crate::wire::Message;

/// How long a new engine may take to greet.
const PATIENCE: Duration = Duration::from_secs(10);

/// Started, and not welcomed yet.
pub(crate) struct Next {
    pub(crate) engine: Engine,
    pub(crate) voice: u64,
    pub(crate) until: Instant,
    /// It waits for the old one's death.
    greeted: bool,
    program: PathBuf,
    asker: u64,
}

/// Welcomed, and does not serve yet.
pub(crate) struct Trial {
    old: PathBuf,
    asker: u64,
}

impl Holder {
    /// Begins. `asker` is told later how it went.
    pub(crate) fn replace(&mut self, asker: u64, path: PathBuf) -> Result<(), String> {
        if self.next.is_some() || self.trial.is_some() || self.stopping {
            return Err("something else is under way".to_string());
        }
        if !self.engine.as_ref().is_some_and(|engine| engine.serves) {
            return Err("no engine serves whose place it could take".to_string());
        }
        let arguments = self.program.arguments.clone();
        let program = Program { path: path.clone(), arguments };
        let (engine, socket) = Engine::start(&program)
            .map_err(|error| format!("{} cannot be started: {error}", path.display()))?;
        tracing::info!(program = %path.display(), pid = ?engine.pid, "a newer engine is started");
        let voice = self.add(Peer::new(socket));
        let until = Instant::now() + PATIENCE;
        self.next = Some(Next { engine, voice, until, greeted: false, program: path, asker });
        Ok(())
    }

    /// Whether it is the new engine that greets. The old one has to go then.
    pub(crate) fn next_greets(&mut self, id: u64) -> bool {
        let Some(next) = self.next.as_mut().filter(|next| next.voice == id) else { return false };
        next.greeted = true;
        if let Some(engine) = &self.engine {
            engine.kill();
        }
        true
    }

    /// The new one is given up; the old one, if it lives, serves on.
    pub(crate) fn give_next_up(&mut self, why: &str) {
        let Some(next) = self.next.take() else { return };
        next.engine.kill();
        let end = next.engine.end();
        self.peers.remove(&next.voice);
        tracing::error!(program = %next.program.display(), end, "the newer engine is given up: {why}");
        let why = format!("{why} ({end})");
        self.tell(next.asker, Message::Refused { why });
    }

    /// The old one is dead: the new one takes its place, if it greeted.
    pub(crate) fn promote_next(&mut self) -> bool {
        let Some(next) = self.next.take_if(|next| next.greeted) else { return false };
        self.starts += 1;
        tracing::info!(start = self.starts, program = %next.program.display(), "the newer engine takes over");
        let descriptor = next.engine.death().clone();
        if let Err(error) = self.keep(Item { mount: 0, name: Name::engine(), descriptor }) {
            tracing::warn!(%error, "keepers are not told of the engine's process");
        }
        let old = std::mem::replace(&mut self.program.path, next.program);
        self.trial = Some(Trial { old, asker: next.asker });
        (self.engine, self.voice) = (Some(next.engine), Some(next.voice));
        self.tell(next.voice, Message::Welcome { start: self.starts });
        true
    }

    /// The engine serves, or is dead without having served.
    pub(crate) fn end_trial(&mut self, serves: bool) {
        let Some(trial) = self.trial.take() else { return };
        if serves {
            return self.tell(trial.asker, Message::Done);
        }
        tracing::error!(program = %trial.old.display(), "the newer engine did not come to serve: back to the old program");
        self.program.path = trial.old;
        // It served before, so it needs no pause.
        self.pause.reset();
        let why = "it died before it served; the old program is started again".to_string();
        self.tell(trial.asker, Message::Refused { why });
    }

    fn tell(&mut self, id: u64, message: Message) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.say(message);
        if peer.flush().is_err() {
            self.peers.remove(&id);
        }
    }
}
