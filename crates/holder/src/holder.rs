//! The loop: who comes, who dies, what is said.
//!
//! One thread, and nothing in it waits but poll(2): a peer that does not listen is let go, an engine that does not end
//! is waited for beside everything else.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::begin::{HoldError, Options, PEERS_MAX, Start, listen, mount, system};
use crate::engine::{Engine, Pause, Program};
use crate::kept::{Item, Kept, Name};
use crate::oom;
use crate::peer::Peer;
use crate::replace::{Next, Trial};
use crate::socket::ReceiveError;

/// Messages of one peer before the others have their turn.
const TURN: usize = 64;

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The engine had served to the end: all is unmounted and stored.
    Done,
    /// The engine gave up, and why. What is still mounted answers errors.
    Failed(String),
    /// Another holder has taken its place.
    Succeeded,
    /// It was told twice to stop while no engine served. What is still mounted answers errors.
    GivenUp,
}

/// Mounts, keeps, and has it served until the engine says that it is done.
///
/// Each byte that can be read from `stop` asks the engine to end, with SIGTERM; one that does not serve is asked as soon
/// as it does; twice while none serves ends the holder. To be called in a process with one thread and few pages, that
/// has no file of the mounts open: it runs for as long as the mounts do, and starts processes while nobody serves.
pub fn hold(options: Options, stop: BorrowedFd<'_>) -> Result<Ended, HoldError> {
    let adj = oom::spare_this_process();
    tracing::debug!(oom_score_adj = adj, "the holder begins");
    let socket = options.socket.clone();
    let (listener, right) = listen(&socket)?;
    let mut holder = Holder::new(options);
    let ended = match &mut holder {
        Ok(holder) => holder.run(&listener, stop),
        Err(_) => Ok(Ended::Done),
    };
    // Before those who are connected see the end: a successor listens there then.
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::debug!(socket = %socket.display(), %error, "the socket's file stays");
    }
    drop(right);
    holder.and(ended)
}

/// An engine that another holder has started, and that tells this one what it has.
pub(crate) struct Giver {
    pub(crate) id: u64,
    pub(crate) mounts: u32,
    pub(crate) items: u32,
}

pub(crate) struct Holder {
    pub(crate) program: Program,
    pub(crate) kept: Kept,
    pub(crate) peers: BTreeMap<u64, Peer>,
    next_peer: u64,
    pub(crate) engine: Option<Engine>,
    /// Which peer the engine is.
    pub(crate) voice: Option<u64>,
    pub(crate) starts: u64,
    /// When the next engine is due, while there is none.
    due: Option<Instant>,
    pub(crate) pause: Pause,
    /// A newer engine, before it has the place of the one that serves.
    pub(crate) next: Option<Next>,
    /// The same, from then on until it serves.
    pub(crate) trial: Option<Trial>,
    /// Nothing is kept yet: until then an engine may come that gives all.
    pub(crate) empty_until: Option<Instant>,
    pub(crate) giver: Option<Giver>,
    /// The engine's last word.
    pub(crate) bye: Option<Option<String>>,
    pub(crate) stopping: bool,
    pub(crate) succeeded: bool,
    /// Whoever may say stop is still there.
    told: bool,
}

impl Holder {
    fn new(options: Options) -> Result<Holder, HoldError> {
        let mut kept = Kept::default();
        for (name, descriptor) in options.items {
            let item = Item { mount: 0, name, descriptor: Arc::new(descriptor) };
            kept.put(item).map_err(|error| HoldError::Start(error.to_string()))?;
        }
        let mut empty_until = None;
        match options.start {
            Start::Mount(plans) => mount(&plans, &mut kept)?,
            Start::Adopt(patience) => empty_until = Some(Instant::now() + patience),
            Start::Kept(taken) => {
                let mounts = taken.mounts.into_iter().try_for_each(|mount| kept.add_mount(mount));
                let all = mounts.and_then(|()| taken.items.into_iter().try_for_each(|item| kept.put(item)));
                all.map_err(|error| HoldError::Start(error.to_string()))?;
            }
        }
        let engine = kept.find(0, Name::engine()).map(Engine::watch);
        let due = (engine.is_none() && empty_until.is_none()).then(Instant::now);
        Ok(Holder {
            program: Program { path: options.program, arguments: options.arguments },
            kept,
            peers: BTreeMap::new(),
            next_peer: 1,
            engine,
            voice: None,
            starts: 0,
            due,
            pause: Pause::default(),
            next: None,
            trial: None,
            empty_until,
            giver: None,
            bye: None,
            stopping: false,
            succeeded: false,
            told: true,
        })
    }

    fn run(&mut self, listener: &OwnedFd, stop: BorrowedFd<'_>) -> Result<Ended, HoldError> {
        loop {
            if self.due.is_some_and(|due| due <= Instant::now()) {
                self.start_engine();
            }
            let happened = self.wait(listener, stop)?;
            // What an engine has said is heard before its death: a descriptor that it put, its last word.
            for id in happened.peers {
                self.hear(id, TURN);
            }
            if self.succeeded {
                tracing::info!("another holder has taken this one's place");
                return Ok(Ended::Succeeded);
            }
            if let Some(next) = &self.next
                && (happened.next_death || next.until <= Instant::now())
            {
                self.give_next_up("it did not greet; the old one serves on");
            }
            if happened.death
                && let Some(ended) = self.bury()
            {
                return Ok(ended);
            }
            if happened.stop
                && let Some(ended) = self.stop(stop)
            {
                return Ok(ended);
            }
            if happened.comer {
                self.welcome(listener);
            }
            if self.giver.is_none() && self.empty_until.is_some_and(|end| end <= Instant::now()) {
                return Err(HoldError::NobodyCame);
            }
        }
    }

    fn wait(&self, listener: &OwnedFd, stop: BorrowedFd<'_>) -> Result<Happened, HoldError> {
        let stops = if self.told { PollFlags::IN } else { PollFlags::empty() };
        let mut watched = vec![PollFd::new(listener, PollFlags::IN), PollFd::new(&stop, stops)];
        for peer in self.peers.values() {
            let mut events = PollFlags::IN;
            events.set(PollFlags::OUT, peer.has_more_to_hear());
            watched.push(PollFd::from_borrowed_fd(peer.socket(), events));
        }
        if let Some(engine) = &self.engine {
            watched.push(PollFd::new(engine.death().as_ref(), PollFlags::IN));
        }
        let next_at = watched.len();
        if let Some(next) = &self.next {
            watched.push(PollFd::new(next.engine.death().as_ref(), PollFlags::IN));
        }
        let empty_until = self.empty_until.filter(|_| self.giver.is_none());
        let next_until = self.next.as_ref().map(|next| next.until);
        let until = [empty_until, self.due, next_until].into_iter().flatten().min();
        let timeout = until.map(|until| {
            // A little later rather than a little too early, which would be in a circle.
            let rest = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() }
        });
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(system("poll(2)")(error)),
        }
        let happened: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
        let peers = self.peers.keys().zip(&happened[2..]).filter(|(_, it)| **it).map(|(id, _)| *id).collect();
        let death = self.engine.is_some() && happened[next_at - 1];
        let next_death = happened.get(next_at) == Some(&true);
        Ok(Happened { comer: happened[0], stop: happened[1] && self.told, peers, death, next_death })
    }

    fn start_engine(&mut self) {
        self.due = None;
        self.starts += 1;
        let start = self.starts;
        match Engine::start(&self.program) {
            Ok((engine, socket)) => {
                let program = self.program.path.display();
                tracing::info!(start, %program, pid = ?engine.pid, "an engine is started");
                let descriptor = Arc::clone(engine.death());
                if let Err(error) = self.keep(Item { mount: 0, name: Name::engine(), descriptor }) {
                    tracing::warn!(%error, "keepers are not told of the engine's process");
                }
                self.engine = Some(engine);
                self.voice = Some(self.add(Peer::new(socket)));
            }
            Err(error) => {
                let pause = self.pause.next(false);
                let program = self.program.path.display();
                tracing::error!(start, %program, %error, ?pause, "the engine cannot be started; another try follows");
                self.due = Some(Instant::now() + pause);
            }
        }
    }

    pub(crate) fn add(&mut self, peer: Peer) -> u64 {
        let id = self.next_peer;
        self.next_peer += 1;
        self.peers.insert(id, peer);
        id
    }

    /// The engine is dead, with all its threads.
    fn bury(&mut self) -> Option<Ended> {
        if let Some(voice) = self.voice {
            // To its end: nobody adds to it any more.
            self.hear(voice, usize::MAX);
            self.peers.remove(&voice);
            self.voice = None;
        }
        let engine = self.engine.take()?;
        let (pid, served, lived) = (engine.pid, engine.serves, engine.started.elapsed());
        let end = engine.end();
        if let Some(last) = self.bye.take() {
            tracing::info!(?pid, end, "the engine has ended");
            self.give_next_up("the one that served has ended for good");
            return Some(last.map_or(Ended::Done, Ended::Failed));
        }
        if self.promote_next() {
            return None;
        }
        self.give_next_up("the one that served has died meanwhile");
        let failed_trial = self.trial.is_some();
        self.end_trial(false);
        let pause = self.pause.next(served || failed_trial);
        tracing::warn!(?pid, end, served, ?lived, ?pause, "the engine died; another one is started");
        // So that callers of its requests can be killed while nobody serves. The next engine asks once more.
        for (mount, device) in self.kept.devices() {
            if let Err(error) = mounts::ask_for_resend(device.as_fd()) {
                tracing::debug!(dir = %mount.place.dir.display(), %error, "no requests to take back");
            }
        }
        self.due = Some(Instant::now() + pause);
        None
    }

    fn stop(&mut self, stop: BorrowedFd<'_>) -> Option<Ended> {
        let mut signals = [0; 64];
        let count = match rustix::io::read(stop, &mut signals) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Err(_) => 0,
        };
        self.told = count > 0;
        for _ in 0..count {
            let first = !std::mem::replace(&mut self.stopping, true);
            match &self.engine {
                Some(engine) if engine.serves => engine.ask_to_end(),
                _ if first => {
                    tracing::info!("stopping as soon as an engine serves: it stores what was accepted");
                    self.due = self.due.map(|_| Instant::now());
                }
                _ => {
                    if let Some(engine) = &self.engine {
                        engine.ask_to_end();
                    }
                    tracing::error!("told to stop twice while no engine served; what it accepted is lost");
                    return Some(Ended::GivenUp);
                }
            }
        }
        None
    }

    fn welcome(&mut self, listener: &OwnedFd) {
        let Ok(socket) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) else { return };
        let mut peer = Peer::new(socket);
        if self.peers.len() >= PEERS_MAX {
            peer.refuse("too many are connected");
            let _ = peer.flush(); // it is let go in any case
            return;
        }
        self.add(peer);
    }

    fn hear(&mut self, id: u64, most: usize) {
        for _ in 0..most {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            if peer.ends {
                break;
            }
            match peer.hear() {
                Ok((message, descriptor)) => self.answer(id, message, descriptor.map(Arc::new)),
                Err(ReceiveError::System(Errno::AGAIN)) => break,
                Err(ReceiveError::Bad(bad)) => {
                    tracing::warn!(%bad, "a message is refused");
                    peer.refuse(bad);
                    peer.ends = true;
                }
                Err(ReceiveError::Closed | ReceiveError::System(_)) => return self.let_go(id),
            }
        }
        if self.peers.get_mut(&id).is_some_and(|peer| peer.flush().is_err()) {
            self.let_go(id);
        }
    }

    fn let_go(&mut self, id: u64) {
        self.peers.remove(&id);
        if self.gives(id) {
            tracing::warn!("an engine went before it had given all");
            self.giver = None;
            if self.empty_until.is_some() {
                self.kept.clear();
            }
        }
    }
}

/// What poll(2) saw.
struct Happened {
    comer: bool,
    stop: bool,
    peers: Vec<u64>,
    death: bool,
    next_death: bool,
}
