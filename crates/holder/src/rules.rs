//! What a message does, and to whom it is allowed.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::engine::Engine;
use crate::holder::{Giver, Holder};
use crate::kept::{Item, KeepError, Name};
use crate::wire::{Message, Role};

impl Holder {
    /// Does what a peer says, and has it told.
    pub(crate) fn answer(&mut self, id: u64, message: Message, descriptor: Option<Arc<OwnedFd>>) {
        let answer = self.judge(id, message, descriptor);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match answer {
            Ok(Some(message)) => peer.say(message),
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(why, "a message is refused");
                peer.refuse(why);
            }
        }
    }

    fn judge(
        &mut self,
        id: u64,
        message: Message,
        descriptor: Option<Arc<OwnedFd>>,
    ) -> Result<Option<Message>, String> {
        let role = self.peers.get(&id).and_then(|peer| peer.role);
        let gives = self.gives(id);
        let engine = self.voice == Some(id);
        match (message, role) {
            (Message::Hello { role }, None) => return self.greet(id, role),
            (_, None) => return Err("nothing is done before a hello".to_string()),
            (Message::Take, Some(role)) if self.empty_until.is_none() && (engine || role == Role::Keeper) => {
                self.give(id);
                return Ok(None);
            }
            (Message::Mount(mount), _) if gives => {
                self.kept.add_mount(mount).map_err(|e| e.to_string())?;
                self.count(1, 0);
            }
            (Message::Put { mount, name }, _) if gives || engine => {
                let descriptor = descriptor.ok_or("it came without its descriptor")?;
                if engine && name == Name::engine() {
                    return Err("the engine's process is the holder's to put".to_string());
                }
                match self.keep(Item { mount, name, descriptor }) {
                    // It gives what this holder has from elsewhere.
                    Err(KeepError::DeviceStays) if gives => {}
                    kept => kept.map_err(|e| e.to_string())?,
                }
                self.count(0, 1);
            }
            (Message::End { mounts, items }, _) if gives => self.adopt(id, mounts, items)?,
            (Message::Drop { mount }, _) if engine => {
                self.kept.drop_mount(mount).map_err(|e| e.to_string())?;
                for peer in self.peers.values_mut().filter(|peer| peer.follows) {
                    peer.say(Message::Drop { mount });
                }
                self.flush_followers();
            }
            (Message::Succeed, _) if self.follows(id) && !self.stopping && self.next.is_none() => {
                self.succeeded = true;
                for (_, peer) in self.peers.iter_mut().filter(|(other, peer)| **other != id && peer.follows) {
                    peer.say(Message::Succeed);
                }
                self.flush_followers();
            }
            (Message::Replace { program }, Some(Role::Keeper)) if !self.follows(id) => {
                self.replace(id, program)?;
                return Ok(None);
            }
            (Message::Ready, _) if engine => self.serves(),
            (Message::Bye { failed }, _) if engine => self.bye = Some(failed),
            _ => return Err("it is not for this one to say, or not now".to_string()),
        }
        Ok(Some(Message::Done))
    }

    fn follows(&self, id: u64) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.follows)
    }

    fn greet(&mut self, id: u64, role: Role) -> Result<Option<Message>, String> {
        let mut start = self.starts;
        let waits = role == Role::Engine && self.next_greets(id);
        if role == Role::Engine && self.voice != Some(id) && !waits {
            let orphan = self.engine.as_ref().is_some_and(Engine::is_anothers) && self.voice.is_none();
            if self.giver.is_some() || !(orphan || self.empty_until.is_some()) {
                return Err("this holder has an engine of its own".to_string());
            }
            self.giver = Some(Giver { id, mounts: 0, items: 0 });
            start += 1;
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.role = Some(role);
        }
        // A newer engine is welcomed when the old one is dead.
        Ok((!waits).then_some(Message::Welcome { start }))
    }

    fn give(&mut self, id: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (mut mounts, mut items) = (0, 0);
        for mount in self.kept.mounts() {
            peer.say(Message::Mount(mount.clone()));
            mounts += 1;
        }
        for item in self.kept.items() {
            peer.say_put(item);
            items += 1;
        }
        peer.say(Message::End { mounts, items });
        peer.follows = peer.role == Some(Role::Keeper);
    }

    /// Keeps a descriptor, and tells those who follow.
    pub(crate) fn keep(&mut self, item: Item) -> Result<(), KeepError> {
        self.kept.put(item.clone())?;
        for peer in self.peers.values_mut().filter(|peer| peer.follows) {
            peer.say_put(item.clone());
        }
        self.flush_followers();
        Ok(())
    }

    pub(crate) fn gives(&self, id: u64) -> bool {
        self.giver.as_ref().is_some_and(|giver| giver.id == id)
    }

    /// What a giver has given.
    fn count(&mut self, mounts: u32, items: u32) {
        if let Some(giver) = &mut self.giver {
            giver.mounts += mounts;
            giver.items += items;
        }
    }

    fn adopt(&mut self, id: u64, mounts: u32, items: u32) -> Result<(), String> {
        if self.giver.as_ref().is_none_or(|giver| (giver.mounts, giver.items) != (mounts, items)) {
            return Err("more or less was given than it says".to_string());
        }
        if self.empty_until.is_some() {
            let death = self.kept.find(0, Name::engine());
            self.engine =
                Some(Engine::watch(death.ok_or("it cannot be watched: it gave no descriptor of itself")?));
        }
        (self.empty_until, self.giver, self.voice) = (None, None, Some(id));
        self.starts += 1;
        let pid = self.engine.as_ref().and_then(|engine| engine.pid);
        tracing::info!(?pid, mounts, "an engine that served without its holder is adopted");
        if let Some(engine) = self.engine.as_ref().filter(|_| self.stopping) {
            engine.ask_to_end();
        }
        Ok(())
    }

    fn serves(&mut self) {
        self.pause.reset();
        let Some(engine) = &mut self.engine else { return };
        engine.serves = true;
        tracing::info!(start = self.starts, pid = ?engine.pid, after = ?engine.started.elapsed(), "the engine serves");
        if self.stopping {
            engine.ask_to_end();
        }
        self.end_trial(true);
    }

    /// One that does not listen is let go.
    fn flush_followers(&mut self) {
        self.peers.retain(|_, peer| !peer.follows || peer.flush().is_ok());
    }
}
