//! What a message does, and to whom it is allowed.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::engine::Engine;
use crate::holder::{Adopting, Holder};
use crate::kept::Item;
use crate::peer::Peer;
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
            (Message::Hello { role }, None) => return self.greet(id, role).map(Some),
            (_, None) => return Err("nothing is done before a hello".to_string()),
            (Message::Take, _) if matches!(self.adopting, Adopting::No) => {
                self.give(id);
                return Ok(None);
            }
            (Message::Mount(mount), _) if gives => {
                self.kept.add_mount(mount).map_err(|e| e.to_string())?;
                self.count(1, 0);
            }
            (Message::Put { mount, name }, _) if gives || engine => {
                let descriptor = descriptor.ok_or("it came without its descriptor")?;
                let item = Item { mount, name, descriptor };
                self.kept.put(item.clone()).map_err(|e| e.to_string())?;
                self.count(0, 1);
                self.tell_followers(|peer| peer.say_put(item.clone()));
            }
            (Message::End { mounts, items }, _) if gives => self.adopt(id, mounts, items)?,
            (Message::Drop { mount }, _) if engine => {
                self.kept.drop_mount(mount).map_err(|e| e.to_string())?;
                self.tell_followers(|peer| peer.say(Message::Drop { mount }));
            }
            (Message::Ready, _) if engine => self.serves(),
            (Message::Bye { failed }, _) if engine => self.bye = Some(failed),
            _ => return Err("it is not for this one to say, or not now".to_string()),
        }
        Ok(Some(Message::Done))
    }

    fn greet(&mut self, id: u64, role: Role) -> Result<Message, String> {
        let mut start = self.starts;
        if role == Role::Engine && self.voice != Some(id) {
            match self.adopting {
                Adopting::Until(_) => self.adopting = Adopting::From { giver: id, mounts: 0, items: 0 },
                _ => return Err("this holder has an engine of its own".to_string()),
            }
            start += 1;
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.role = Some(role);
        }
        Ok(Message::Welcome { start })
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

    pub(crate) fn gives(&self, id: u64) -> bool {
        matches!(self.adopting, Adopting::From { giver, .. } if giver == id)
    }

    /// What a giver has given.
    fn count(&mut self, more_mounts: u32, more_items: u32) {
        if let Adopting::From { mounts, items, .. } = &mut self.adopting {
            *mounts += more_mounts;
            *items += more_items;
        }
    }

    fn adopt(&mut self, id: u64, mounts: u32, items: u32) -> Result<(), String> {
        if !matches!(self.adopting, Adopting::From { mounts: m, items: i, .. } if (m, i) == (mounts, items)) {
            return Err("more or less was given than it says".to_string());
        }
        let peer = self.peers.get(&id).ok_or("it is gone")?;
        let engine = Engine::adopt(peer.socket()).map_err(|e| format!("it cannot be watched: {e}"))?;
        self.starts += 1;
        tracing::info!(pid = engine.pid, mounts, "an engine that served without its holder is adopted");
        self.engine = Some(engine);
        self.voice = Some(id);
        self.adopting = Adopting::No;
        Ok(())
    }

    fn serves(&mut self) {
        self.pause.reset();
        let Some(engine) = &mut self.engine else { return };
        engine.serves = true;
        tracing::info!(start = self.starts, pid = engine.pid, after = ?engine.started.elapsed(), "the engine serves");
        if self.stopping {
            engine.ask_to_end();
        }
    }

    fn tell_followers(&mut self, tell: impl Fn(&mut Peer)) {
        for peer in self.peers.values_mut().filter(|peer| peer.follows) {
            tell(peer);
        }
        self.peers.retain(|_, peer| !peer.follows || peer.flush().is_ok());
    }
}
