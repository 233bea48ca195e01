//! Commands that were run here, or wait to be, on their way to the service: one order, sent in batches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use namespace::{Command, Content, Expected, JOURNAL_COMMANDS_MAX, Journaled, NewKind, Reply};
use tokio::sync::{Notify, oneshot, watch};

use super::cache::Seq;
use crate::{CallError, SessionError};

/// Commands that may wait to be sent or answered; who brings more waits.
const WAITING_MAX: usize = 8192;

/// Bytes of such commands.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// Bytes of a batch beyond which no command is added: a log entry holds 256 KiB.
const BATCH_BYTES: usize = 192 << 10;

/// Commands of a batch whose replies are wanted: their replies are in the batch's, which the slot keeps.
const BATCH_REPLIES: usize = 32;

/// Who waits for what the service replies.
pub(super) type Waiter = oneshot::Sender<Result<Reply, SessionError>>;

/// How far the service has come.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Progress {
    /// The last command that is durable at the service, with all before it.
    pub(super) settled: Seq,
    /// Why nothing more will be, once that is so.
    pub(super) over: Option<SessionError>,
    /// Why the service refuses changes at the moment.
    pub(super) refusing: Option<CallError>,
    /// How often it did.
    refusals: u64,
}

struct Item {
    journaled: Journaled,
    /// The request that asked for it; 0: none.
    unique: u64,
    bytes: usize,
    waiter: Option<Waiter>,
}

/// Taken to be sent, in order; they stay in the queue until they are settled.
pub(super) struct Taken {
    pub(super) commands: Vec<Journaled>,
    /// Those whose replies are wanted: place, and the request that is answered with it; 0: none.
    pub(super) wanting: Vec<(Seq, u64)>,
    /// They may be at the service already: they are sent until there is a reply, and never otherwise.
    pub(super) may_be_there: bool,
    /// The first of them.
    pub(super) first: Seq,
    /// The last of them.
    pub(super) last: Seq,
}

/// A command that was taken out of the order, because the service refused changes and its caller could be told.
pub(super) struct Withdrawn {
    pub(super) seq: Seq,
    pub(super) command: Command,
}

struct State {
    items: VecDeque<Item>,
    /// Those of which nobody has asked yet.
    withdrawn: Vec<Withdrawn>,
    /// The place of the first of `items`.
    first: Seq,
    bytes: usize,
    /// Somebody waits for this one, so it is to be sent at once.
    wanted: Seq,
    /// The last command of a batch that an earlier engine may have sent.
    sent: Option<Seq>,
}

/// See the module.
pub(super) struct Queue {
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
    /// There is something to send, or somebody waits.
    pub(super) work: Notify,
    /// A request was answered, so that its entry can go.
    pub(super) room: Notify,
}

impl Queue {
    /// A queue behind `settled`. `sent`: the last command, of those that are pushed next, of a batch that an earlier
    /// engine may have sent.
    pub(super) fn new(settled: Seq, sent: Option<Seq>) -> Arc<Queue> {
        let (items, withdrawn) = (VecDeque::new(), Vec::new());
        let state = State { items, withdrawn, first: settled + 1, bytes: 0, wanted: 0, sent };
        Arc::new(Queue {
            state: Mutex::new(state),
            progress: watch::Sender::new(Progress { settled, ..Progress::default() }),
            work: Notify::new(),
            room: Notify::new(),
        })
    }

    /// Puts a command behind all others, at the place `seq`, which is the next.
    pub(super) fn push(&self, seq: Seq, unique: u64, journaled: Journaled, waiter: Option<Waiter>) {
        let bytes = weight(&journaled.command);
        let mut state = self.state();
        assert_eq!(seq, state.first + state.items.len() as u64, "the journal has another order");
        if waiter.is_some() {
            state.wanted = seq;
        }
        let was_empty = state.items.is_empty();
        let tell = was_empty || waiter.is_some() || state.items.len() + 1 == JOURNAL_COMMANDS_MAX;
        state.bytes += bytes;
        state.items.push_back(Item { journaled, unique, bytes, waiter });
        drop(state);
        if tell {
            self.work.notify_one();
        }
    }

    /// The place of the last command so far.
    pub(super) fn last(&self) -> Seq {
        let state = self.state();
        state.first + state.items.len() as u64 - 1
    }

    /// How many commands wait, and whether that is too many.
    pub(super) fn is_full(&self) -> bool {
        let state = self.state();
        state.items.len() >= WAITING_MAX || state.bytes >= WAITING_BYTES_MAX
    }

    /// How many commands wait.
    pub(super) fn len(&self) -> usize {
        self.state().items.len()
    }

    pub(super) fn settled(&self) -> Seq {
        self.progress.borrow().settled
    }

    pub(super) fn over(&self) -> Option<SessionError> {
        self.progress.borrow().over.clone()
    }

    /// Whether the service refused the last batch.
    pub(super) fn is_refused(&self) -> bool {
        self.progress.borrow().refusing.is_some()
    }

    /// Waits until the command at `seq`, and all before it, are durable at the service.
    ///
    /// # Errors
    /// If they will not be, or not soon: the service refuses changes.
    pub(super) async fn wait(&self, seq: Seq) -> Result<(), SessionError> {
        if self.settled() >= seq {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        let refusals = progress.borrow().refusals;
        // A service that refuses is asked once more for whoever waits.
        self.want(seq);
        let now = progress
            .wait_for(|now| now.settled >= seq || now.over.is_some() || now.refusals > refusals)
            .await
            .expect("the queue has the sender")
            .clone();
        match now {
            Progress { settled, .. } if settled >= seq => Ok(()),
            Progress { over: Some(over), .. } => Err(over),
            Progress { refusing, .. } => {
                Err(refusing.unwrap_or_else(|| CallError::ReadOnly(String::from("it was"))).into())
            }
        }
    }

    /// Waits until the command at `seq`, and all before it, are durable at the service, or never will be. Does not hurry.
    pub(super) async fn passed(&self, seq: Seq) {
        let mut progress = self.progress.subscribe();
        // The queue has the sender, so there is an answer.
        let _ = progress.wait_for(|now| now.settled >= seq || now.over.is_some()).await;
    }

    /// Waits until there is room for one more, or a reason that there will not be any.
    pub(super) async fn wait_for_room(&self) {
        while self.is_full() {
            let first = self.state().first;
            if self.wait(first).await.is_err() {
                return;
            }
        }
    }

    /// Waits until something happens that may make room in the journal: `has_room` looks.
    pub(super) async fn wait_for_journal(&self, has_room: impl Fn() -> bool) {
        let answered = self.room.notified();
        if has_room() {
            return;
        }
        let (first, is_empty) = {
            let state = self.state();
            (state.first, state.items.is_empty())
        };
        match is_empty {
            // All of it is settled, so requests are waited for that are about to be answered.
            true => answered.await,
            // An error is met again by who waits.
            false => drop(self.wait(first).await),
        }
    }

    /// Somebody waits for the command at `seq`.
    pub(super) fn want(&self, seq: Seq) {
        let mut state = self.state();
        state.wanted = state.wanted.max(seq);
        drop(state);
        self.work.notify_one();
    }

    /// Whether there is something to send, and whether somebody waits for it or a batch is full.
    pub(super) fn due(&self) -> (bool, bool) {
        let state = self.state();
        let full = state.items.len() >= JOURNAL_COMMANDS_MAX || state.bytes >= BATCH_BYTES;
        (!state.items.is_empty(), full || state.wanted >= state.first)
    }

    /// The next batch.
    pub(super) fn take(&self) -> Taken {
        let state = self.state();
        let (mut commands, mut wanting, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (seq, item) in (state.first..).zip(&state.items) {
            let wants = item.journaled.expected == Expected::Reply;
            let full = bytes + item.bytes > BATCH_BYTES || wanting.len() + usize::from(wants) > BATCH_REPLIES;
            let ends = match state.sent {
                // The same bytes as then, whatever they were chosen by.
                Some(sent) => seq > sent,
                None => full || commands.len() == JOURNAL_COMMANDS_MAX,
            };
            if !commands.is_empty() && ends {
                break;
            }
            bytes += item.bytes;
            if wants {
                wanting.push((seq, item.unique));
            }
            commands.push(item.journaled.clone());
        }
        let (first, last) = (state.first, state.first + commands.len() as u64 - 1);
        Taken { commands, wanting, may_be_there: state.sent.is_some(), first, last }
    }

    /// A batch is durable, and these are the replies that were wanted.
    pub(super) fn settle(&self, last: Seq, replies: Vec<Reply>) {
        let mut replies = replies.into_iter();
        let mut told = Vec::new();
        let mut state = self.state();
        state.sent = None;
        while state.first <= last
            && let Some(item) = state.items.pop_front()
        {
            state.first += 1;
            state.bytes -= item.bytes;
            let reply = match item.journaled.expected {
                Expected::Reply => replies.next(),
                _ => None,
            };
            told.extend(item.waiter.zip(reply));
        }
        drop(state);
        self.progress.send_modify(|progress| {
            progress.settled = last;
            progress.refusing = None;
        });
        for (waiter, reply) in told {
            // Whoever waited may have gone away.
            let _ = waiter.send(Ok(reply));
        }
    }

    /// The service refuses changes for now: what was answered waits here until it takes them, what was not is refused, if
    /// `withdraw` can take it out of the journal.
    pub(super) fn refuse(&self, why: &CallError, withdraw: impl Fn(Seq) -> bool) {
        let mut refused = Vec::new();
        let mut state = self.state();
        let State { items, withdrawn, first, .. } = &mut *state;
        for (seq, item) in (*first..).zip(items) {
            let Some(waiter) = item.waiter.take_if(|_| withdraw(seq)) else { continue };
            // Its place in the order stays, and it does nothing there.
            let time = item.journaled.time;
            let nothing = Journaled { time, expected: Expected::Reply, command: nothing() };
            let command = std::mem::replace(&mut item.journaled, nothing).command;
            item.unique = 0;
            withdrawn.push(Withdrawn { seq, command });
            refused.push(waiter);
        }
        drop(state);
        self.progress.send_modify(|progress| {
            progress.refusing = Some(why.clone());
            progress.refusals += 1;
        });
        for waiter in refused {
            let _ = waiter.send(Err(why.clone().into()));
        }
    }

    /// Commands that were taken out of the order since this was asked last.
    pub(super) fn take_withdrawn(&self) -> Vec<Withdrawn> {
        std::mem::take(&mut self.state().withdrawn)
    }

    /// Nothing more will be settled.
    pub(super) fn end(&self, why: &SessionError) {
        let waiters: Vec<Waiter> =
            self.state().items.iter_mut().filter_map(|item| item.waiter.take()).collect();
        self.progress.send_modify(|progress| {
            progress.over.get_or_insert_with(|| why.clone());
        });
        for waiter in waiters {
            let _ = waiter.send(Err(why.clone()));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command that changes nothing.
pub(super) fn nothing() -> Command {
    Command::Unpin { ino: types::Ino(0) }
}

/// About how many bytes a command has, and not less than its encoding in a journal.
pub(super) fn weight(command: &Command) -> usize {
    const FIXED: usize = 128;
    const SEGMENT: usize = 80;
    FIXED
        + match command {
            Command::Create { name, kind: NewKind::Symlink(target), .. } => name.len() + target.len(),
            Command::Create { name, .. }
            | Command::Link { name, .. }
            | Command::Unlink { name, .. }
            | Command::Rmdir { name, .. }
            | Command::RemoveXattr { name, .. } => name.len(),
            Command::Rename { name, new_name, .. } => name.len() + new_name.len(),
            Command::SetXattr { name, value, .. } => name.len() + value.len(),
            Command::Rewrite { from, extents, to, .. } => (from.len() + extents.len() + to.len()) * SEGMENT,
            Command::Commit(commit) => match &commit.content {
                Content::Inline(bytes) => bytes.len(),
                Content::Segments { extents, segments } => (extents.len() + segments.len()) * SEGMENT,
            },
            _ => 0,
        }
}
