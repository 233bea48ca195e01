//! A mount that has its volume alone: it runs commands itself and sends them later, in their order.
//!
//! A command that finds all its rows in the cache is run here, answered at once and journaled; the service comes to
//! the same result, at the same time, when it gets there. What reads rows that are not kept (maps, extents) takes its
//! place in the same order and is answered by the service; until then the inodes it is about are unknown here, and
//! whoever needs them waits.
//!
//! What is durable is always a prefix of that order. [`Exclusive::sync`] waits for it. What is not durable yet outlives the
//! engine: each command is in the journal of the mount's arena before it shows ([`Exclusive::resume`]).

mod about;
mod cache;
mod fetch;
mod kept;
mod queue;
mod ranges;
mod resume;
mod sender;
mod view;

use std::sync::Arc;

use arena::Journal;
use clock::Clock;
use helping::Helped;
use namespace::{
    Answer, Attr, Batch, Command, Expected, Journaled, Query, Reply, RowsError, SessionInfo, SlotRef,
};
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::task::JoinHandle;
use types::{ExtentId, Ino, Nanos};

use self::about::{content_of, fresh_extents, inode_of, inode_with_map, inodes_of, is_of_service};
use self::cache::{Cache, Seq};
use self::kept::Kept;
use self::queue::{Queue, Withdrawn, weight};
pub use self::resume::ResumeError;
use self::view::{Missing, View};
use crate::{CallError, Session, SessionError};

/// A place in the order of a mount's commands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place(Seq);

/// How a mount keeps rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExclusiveOptions {
    /// About how many bytes of memory rows may take. Rows that are not at the service yet are kept beyond it.
    pub cache_bytes: usize,
}

impl Default for ExclusiveOptions {
    /// 32 MiB.
    fn default() -> ExclusiveOptions {
        ExclusiveOptions { cache_bytes: 32 << 20 }
    }
}

/// See the module. Cheap to share behind an `Arc`.
pub struct Exclusive {
    session: Arc<Session>,
    queue: Arc<Queue>,
    kept: Kept,
    clock: Arc<dyn Clock>,
    /// Held while a command is run and put into the order, and while rows are fetched for it.
    state: Mutex<State>,
    sender: JoinHandle<()>,
}

struct State {
    cache: Cache,
    /// The time of the last command.
    last: Nanos,
    /// The last command of which it is not known what it changes.
    barrier: Seq,
}

/// What a look at the cache comes to.
enum Look<T> {
    Found(T),
    Missing(Missing),
}

impl Exclusive {
    /// A mount over a session that was just opened, and the journal of an arena that was just made. Starts a task of the
    /// current tokio runtime, which ends with this.
    ///
    /// # Errors
    /// If the service does not answer.
    pub async fn new(
        session: Arc<Session>,
        clock: Arc<dyn Clock>,
        options: ExclusiveOptions,
        journal: Arc<Journal>,
    ) -> Result<Exclusive, SessionError> {
        let last = applied_time(&session).await?;
        let (queue, kept) = (Queue::new(0, None), Kept::new(journal, Arc::clone(&clock)));
        Ok(Exclusive::with(session, queue, kept, clock, options, last))
    }

    fn with(
        session: Arc<Session>,
        queue: Arc<Queue>,
        kept: Kept,
        clock: Arc<dyn Clock>,
        options: ExclusiveOptions,
        last: Nanos,
    ) -> Exclusive {
        let sender = sender::run(Arc::clone(&session), Arc::clone(&queue), kept.clone(), Arc::clone(&clock));
        let sender = tokio::spawn(Helped::new(sender));
        let state = Mutex::new(State { cache: Cache::new(options.cache_bytes), last, barrier: 0 });
        Exclusive { session, queue, kept, clock, state, sender }
    }

    /// Which session it is.
    pub fn info(&self) -> SessionInfo {
        self.session.info()
    }

    /// Commands that were answered and are not at the service yet.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// Runs a command of the mount. `Reply::Failed` is a reply, and changes nothing.
    ///
    /// On return its effect is visible to every later call, and survives the engine. It is durable after the next [`Exclusive::sync`]; that of
    /// what only the service could run is on return, with that of all commands before it.
    /// Dropping the future leaves the command either undone or in the order.
    pub async fn call(&self, command: Command) -> Result<Reply, SessionError> {
        self.call_of(0, command).await
    }

    /// As [`Exclusive::call`], of the request `unique` whose one effect it is (0: of none): as long as the request may come
    /// again its reply is kept, unless it is a refusal. See [`Exclusive::answered`].
    pub async fn call_of(&self, unique: u64, command: Command) -> Result<Reply, SessionError> {
        // It is not asked, so there is a reply.
        let reply = self.run(unique, command, None).await?;
        Ok(reply.expect("nobody has refused"))
    }

    /// As [`Exclusive::call_of`], if `agree` says so of the reply, which it is shown before anything is done: `None` if it
    /// does not, or if only the service could run the command. A refusal of the command itself is not shown.
    ///
    /// `agree` is called at most once with each look at the rows, while no other command is run; after it has said yes,
    /// the command is in the order in any case. It must not call back.
    pub async fn call_if(
        &self,
        unique: u64,
        command: Command,
        agree: &mut (dyn FnMut(&Reply) -> bool + Send),
    ) -> Result<Option<Reply>, SessionError> {
        self.run(unique, command, Some(agree)).await
    }

    async fn run(
        &self,
        unique: u64,
        command: Command,
        mut agree: Option<&mut (dyn FnMut(&Reply) -> bool + Send)>,
    ) -> Result<Option<Reply>, SessionError> {
        // What is seldom waited for is on the heap: the future is as large as its largest branch, and one is made for
        // each operation.
        let (fresh, slot) = (fresh_extents(&command), self.slot());
        let (mut absent, bytes) = (Vec::new(), weight(&command));
        let mut has_drained = false;
        loop {
            if self.queue.is_full() {
                Box::pin(self.queue.wait_for_room()).await;
            }
            let mut state = self.lock().await;
            self.check()?;
            if self.queue.is_refused() {
                drop(state);
                Box::pin(self.queue.wait(self.queue.last())).await?;
                continue;
            }
            if state.barrier > self.queue.settled() {
                let barrier = state.barrier;
                drop(state);
                Box::pin(self.queue.wait(barrier)).await?;
                continue;
            }
            if self.kept.is_full_for(bytes) {
                drop(state);
                Box::pin(self.queue.wait_for_journal(|| !self.kept.is_full_for(bytes))).await;
                continue;
            }
            let time = Nanos(self.clock.now().0.max(state.last.0.saturating_add(1)));
            let is_hopeless =
                inode_with_map(&command).is_some_and(|ino| !state.knows(&self.queue, slot, ino));
            let found = match fresh.as_deref() {
                Some(fresh) if !is_hopeless => {
                    state.predict(&self.queue, slot, time, &command, (fresh, &absent))?
                }
                _ => Look::Missing(Missing::Foreign),
            };
            match found {
                Look::Found((_, reply)) if namespace::is_for_space(&reply) && !has_drained => {
                    // Reclaim may have given space back since the rows came here.
                    Box::pin(self.queue.wait(self.queue.last())).await?;
                    state.cache.forget_shared(self.queue.settled());
                    has_drained = true;
                }
                Look::Found((_, reply @ (Reply::Failed(_) | Reply::Fenced))) => {
                    state.cache.make_room(self.queue.settled());
                    return Ok(Some(reply));
                }
                Look::Found((batch, reply)) => {
                    if agree.as_mut().is_some_and(|agree| !agree(&reply)) {
                        return Ok(None);
                    }
                    let expected = Expected::of(&command, &reply);
                    let content_of = content_of(&command);
                    state.last = time;
                    let journaled = Journaled { time, expected, command };
                    let seq = self.kept.append(unique, &journaled, Some(&reply)).await;
                    self.queue.push(seq, unique, journaled, None);
                    state.cache.change(seq, batch);
                    if let Some(ino) = content_of {
                        state.cache.changed_content(ino, seq);
                    }
                    state.cache.make_room(self.queue.settled());
                    if state.cache.is_overfull() && Box::pin(self.queue.wait(seq)).await.is_ok() {
                        // A directory that grows all the time is never idle otherwise.
                        state.cache.make_room_now(self.queue.settled());
                    }
                    return Ok(Some(reply));
                }
                Look::Missing(Missing::Foreign) if agree.is_some() => return Ok(None),
                Look::Missing(Missing::Foreign) => {
                    let (waiter, reply) = oneshot::channel();
                    let inodes = inodes_of(&command);
                    state.last = time;
                    let journaled = Journaled { time, expected: Expected::Reply, command };
                    let seq = self.kept.append(unique, &journaled, None).await;
                    self.queue.push(seq, unique, journaled, Some(waiter));
                    match inodes {
                        Some(inodes) => inodes.into_iter().for_each(|ino| state.cache.block(ino, seq)),
                        None => {
                            state.cache.forget_settled(seq);
                            state.barrier = seq;
                        }
                    }
                    drop(state);
                    return self.reply(reply.await).map(Some);
                }
                Look::Missing(missing) => absent.extend(Box::pin(self.fetch(state, missing)).await?),
            }
        }
    }

    /// Answers a question, with the effect of every command that was answered before.
    pub async fn read(&self, query: Query) -> Result<Answer, SessionError> {
        let Some(ino) = inode_of(&query) else {
            if !is_of_service(&query) {
                match Box::pin(self.sync()).await {
                    // What is there can be read all the same.
                    Ok(()) | Err(SessionError::Call(CallError::ReadOnly(_))) => {}
                    Err(error) => return Err(error),
                }
            }
            self.check()?;
            return Box::pin(self.session.read(query)).await;
        };
        let mut absent = Vec::new();
        loop {
            let mut state = self.lock().await;
            self.check()?;
            if state.barrier > self.queue.settled() {
                let barrier = state.barrier;
                drop(state);
                Box::pin(self.queue.wait(barrier)).await?;
                continue;
            }
            match state.answer(&self.queue, self.info().volume, &query, &absent)? {
                Look::Found(answer) => {
                    // Only now: what was fetched for one question has to stay until it is answered.
                    state.cache.make_room(self.queue.settled());
                    return Ok(answer);
                }
                // Maps are read at the service, which has to know what was done to the file here. What it does itself
                // at this moment may be in the answer or not: who asks now cannot tell. Inline bytes that are not here
                // come from there too.
                Look::Missing(missing)
                    if missing == Missing::Foreign || matches!(query, Query::Map { .. }) =>
                {
                    let group = state.cache.group(ino, self.queue.settled());
                    let needed = group.map_or(0, |group| match query {
                        Query::Map { .. } => group.content,
                        _ => group.changed,
                    });
                    drop(state);
                    Box::pin(self.queue.wait(needed)).await?;
                    let answer = Box::pin(self.session.read(query)).await?;
                    return Ok(self.with_newer_attr(ino, answer).await);
                }
                Look::Missing(missing) => {
                    if let Query::ReadDir { attrs: true, .. } = query
                        && matches!(missing, Missing::Rows(of, ..) if of != ino)
                    {
                        Box::pin(self.fetch_named(&mut state, &query)).await?;
                    }
                    absent.extend(Box::pin(self.fetch(state, missing)).await?);
                }
            }
        }
    }

    /// Waits until every command that was answered before this was called is durable.
    ///
    /// # Errors
    /// If it is not. After `SessionError::Call(CallError::ReadOnly)` they are kept and may be durable later, after
    /// anything else they are lost.
    pub async fn sync(&self) -> Result<(), SessionError> {
        self.sync_to(self.mark()).await
    }

    /// As [`Exclusive::sync`], for what was answered up to this place.
    pub async fn sync_to(&self, place: Place) -> Result<(), SessionError> {
        match self.queue.wait(place.0).await {
            Ok(()) => self.check(),
            error => error,
        }
    }

    /// The end of the order as it is now.
    pub fn mark(&self) -> Place {
        Place(self.queue.last())
    }

    /// Whether everything up to this place is durable.
    pub fn is_durable(&self, place: Place) -> bool {
        self.queue.settled() >= place.0
    }

    /// Whether nothing can become durable any more.
    pub fn is_over(&self) -> bool {
        self.queue.over().is_some()
    }

    /// Resolves when everything up to this place is durable or never will be. Nothing is sent earlier for it.
    pub async fn passed(&self, place: Place) {
        self.queue.passed(place.0).await;
    }

    /// The session, for what needs no order: the mark of settled extents, and its end.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Makes everything durable and ends the session; later commands get an error.
    ///
    /// Durable on return. With an error the session may be open until a later incarnation of the node.
    pub async fn close(&self) -> Result<(), SessionError> {
        // Whoever is at it goes first, nobody comes after.
        let _nobody = self.lock().await;
        let synced = self.sync().await;
        self.queue.end(&SessionError::Closed);
        self.sender.abort();
        let closed = self.session.close().await;
        synced?;
        closed
    }

    /// A map with the attributes that the file has here, where only they are newer.
    async fn with_newer_attr(&self, ino: Ino, mut answer: Answer) -> Answer {
        if let Answer::Map { attr, .. } | Answer::Inline { attr, .. } = &mut answer {
            let volume = self.info().volume;
            let here = self.lock().await.answer(&self.queue, volume, &Query::GetAttr { volume, ino }, &[]);
            if let Ok(Look::Found(Answer::Attr(here))) = here
                && here.change >= attr.change
                && here.size == attr.size
            {
                // What reclaim gave back shows only there.
                *attr = Attr { allocated: attr.allocated, ..here };
            }
        }
        answer
    }

    /// The rows and the order, without what was taken out of it.
    async fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().await;
        for Withdrawn { seq, command } in self.queue.take_withdrawn() {
            for ino in inodes_of(&command).into_iter().flatten() {
                state.cache.withdraw(ino, seq);
            }
        }
        state
    }

    /// Why nothing can be run any more, or for now.
    fn check(&self) -> Result<(), SessionError> {
        match self.queue.over() {
            Some(over) => Err(over),
            None => Ok(()),
        }
    }

    fn reply(
        &self,
        told: Result<Result<Reply, SessionError>, oneshot::error::RecvError>,
    ) -> Result<Reply, SessionError> {
        // The queue tells every waiter, unless the sender was ended with it.
        told.unwrap_or_else(|_gone| Err(self.queue.over().unwrap_or(SessionError::Closed)))
    }

    fn slot(&self) -> SlotRef {
        let SessionInfo { volume, session, .. } = self.info();
        namespace::any_slot(volume, session)
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

impl State {
    /// Whether the row of an inode is here, or will be once its last command is answered.
    fn knows(&self, queue: &Queue, slot: SlotRef, ino: Ino) -> bool {
        let group = self.cache.group(ino, queue.settled());
        group.is_some_and(|group| group.knows(&namespace::inode_key(slot.volume, ino)))
    }

    fn predict(
        &self,
        queue: &Queue,
        slot: SlotRef,
        time: Nanos,
        command: &Command,
        (fresh, absent): (&[ExtentId], &[Vec<u8>]),
    ) -> Result<Look<(Batch, Reply)>, SessionError> {
        let view = View::new(&self.cache, slot.volume, queue.settled()).with(fresh, absent);
        let found = namespace::predict(&view, slot, time, command);
        look(view, found)
    }

    fn answer(
        &self,
        queue: &Queue,
        volume: types::VolumeId,
        query: &Query,
        absent: &[Vec<u8>],
    ) -> Result<Look<Answer>, SessionError> {
        let view = View::new(&self.cache, volume, queue.settled()).with(&[], absent);
        let found = namespace::query(&view, query);
        look(view, found)
    }
}

fn look<T>(view: View<'_>, found: Result<T, RowsError>) -> Result<Look<T>, SessionError> {
    match (found, view.into_missing()) {
        (Ok(found), _) => Ok(Look::Found(found)),
        (Err(_), Some(missing)) => Ok(Look::Missing(missing)),
        (Err(error), None) => Err(CallError::Stopped(format!("rows cannot be read: {error}")).into()),
    }
}

/// The time up to which the service has changed rows.
async fn applied_time(session: &Session) -> Result<Nanos, SessionError> {
    match session.read(Query::Time).await? {
        Answer::Time(last) => Ok(last),
        other => Err(wrong_answer(&other)),
    }
}

fn wrong_answer(answer: &Answer) -> SessionError {
    let what = std::mem::discriminant(answer);
    CallError::Stopped(format!("the service answered another question: {what:?}")).into()
}

#[cfg(test)]
mod tests;
