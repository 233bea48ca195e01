//! Sessions over a service that keeps slots as the design says, and loses, delays and refuses on request.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures_util::future::{join_all, poll_immediate};
use namespace::{Answer, Command, Envelope, Query, Reply, SessionInfo};
use tokio::sync::Semaphore;
use types::{Epoch, Errno, Grant, Ino, SessionId, VolumeId};

use super::{REPEATS_MAX, Session};
use crate::{CallError, MetaFuture, MetaService, OpenSessionError, SessionError};

const INFO: SessionInfo =
    SessionInfo { volume: VolumeId(1), session: SessionId(5), epoch: Epoch(2), node: 7 };

/// What happens to one call.
enum Fault {
    /// Applied, and the reply is lost.
    LoseReply,
    /// Lost before it was applied.
    LoseCall,
    /// Refused without being logged.
    ReadOnly,
    /// The service stops after it was applied or before: nobody knows.
    Stop,
    /// Answered so, not applied.
    Answer(Box<Reply>),
}

#[derive(Default)]
struct State {
    slots: HashMap<u8, (u64, Command, Reply)>,
    faults: VecDeque<Fault>,
    /// What each applied command was, in order.
    applied: Vec<Command>,
    /// Slots of the calls in flight, and the most at once.
    in_flight: Vec<u8>,
    peak: usize,
}

/// Answers a command with the grant of its inode's number; one permit of `gate` per answer.
struct Fake {
    state: Arc<Mutex<State>>,
    gate: Arc<Semaphore>,
}

impl Fake {
    fn new(open: bool) -> Arc<Fake> {
        let gate = Arc::new(Semaphore::new(if open { Semaphore::MAX_PERMITS / 2 } else { 0 }));
        Arc::new(Fake { state: Arc::default(), gate })
    }

    async fn session(self: &Arc<Fake>) -> Session {
        let service = Arc::clone(self) as Arc<dyn MetaService>;
        Session::open(service, INFO.volume, INFO.node, 1).await.expect("a session")
    }

    fn fault(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().expect("state").faults.extend(faults);
    }

    fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().expect("state"))
    }
}

impl State {
    /// The slot table of metadata-and-client, section 2.
    fn once(&mut self, envelope: &Envelope) -> Reply {
        let Some(slot) = envelope.slot else {
            self.applied.push(envelope.command.clone());
            return match envelope.command {
                Command::OpenSession { .. } => Reply::Session(INFO),
                _ => Reply::Done,
            };
        };
        assert_eq!((slot.volume, slot.session, slot.epoch), (INFO.volume, INFO.session, INFO.epoch));
        let last = self.slots.get(&slot.slot).map_or(0, |(seq, ..)| *seq);
        match self.slots.get(&slot.slot) {
            _ if slot.seq == last + 1 => {}
            Some((_, command, reply)) if slot.seq == last && *command == envelope.command => {
                return reply.clone();
            }
            _ if slot.seq < last => return Reply::ReplyGone,
            _ => return Reply::SlotMisuse,
        }
        self.applied.push(envelope.command.clone());
        let reply = match envelope.command {
            Command::GrantWrite { ino } => Reply::Granted(Grant(ino.0)),
            _ => Reply::Done,
        };
        self.slots.insert(slot.slot, (slot.seq, envelope.command.clone(), reply.clone()));
        reply
    }
}

impl MetaService for Fake {
    fn call(&self, envelope: Envelope) -> MetaFuture<Reply> {
        let (state, gate) = (Arc::clone(&self.state), Arc::clone(&self.gate));
        let slot = envelope.slot.map(|slot| slot.slot);
        if let Some(slot) = slot {
            let mut state = state.lock().expect("state");
            assert!(!state.in_flight.contains(&slot), "slot {slot} carries two commands");
            state.in_flight.push(slot);
            state.peak = state.peak.max(state.in_flight.len());
        }
        Box::pin(async move {
            if slot.is_some() {
                gate.acquire().await.expect("open").forget();
            }
            let mut state = state.lock().expect("state");
            state.in_flight.retain(|busy| Some(*busy) != slot);
            let fault = slot.and_then(|_| state.faults.pop_front());
            match fault {
                None => Ok(state.once(&envelope)),
                Some(Fault::LoseReply) => {
                    state.once(&envelope);
                    Err(CallError::Lost("reply".into()))
                }
                Some(Fault::LoseCall) => Err(CallError::Lost("call".into())),
                Some(Fault::ReadOnly) => Err(CallError::ReadOnly("full".into())),
                Some(Fault::Stop) => Err(CallError::Stopped("stop".into())),
                Some(Fault::Answer(reply)) => Ok(*reply),
            }
        })
    }

    fn read(&self, _query: Query) -> MetaFuture<Answer> {
        Box::pin(std::future::ready(Ok(Answer::Groups(Vec::new()))))
    }
}

fn grant(ino: u64) -> Command {
    Command::GrantWrite { ino: Ino(ino) }
}

fn granted(ino: u64) -> Result<Reply, SessionError> {
    Ok(Reply::Granted(Grant(ino)))
}

/// Lets tasks of this thread run until nothing changes any more.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_thing_at_a_time_uses_one_slot() {
    let fake = Fake::new(true);
    let session = fake.session().await;
    for ino in 0..20 {
        assert_eq!(session.call(grant(ino)).await, granted(ino));
    }
    assert_eq!(
        fake.with(|state| state.slots.iter().map(|(slot, s)| (*slot, s.0)).collect::<Vec<_>>()),
        [(0, 20)]
    );
}

#[tokio::test]
async fn at_most_256_are_in_flight_and_each_gets_its_own_reply() {
    let fake = Fake::new(false);
    let session = fake.session().await;
    let calls = join_all((0..1000).map(|ino| session.call(grant(ino))));
    let release = async {
        settle().await;
        assert_eq!(fake.with(|state| state.in_flight.len()), 256);
        fake.gate.add_permits(1000);
    };
    let (replies, ()) = tokio::join!(calls, release);
    for (ino, reply) in replies.into_iter().enumerate() {
        assert_eq!(reply, granted(ino as u64));
    }
    assert_eq!(fake.with(|state| (state.peak, state.applied.len())), (256, 1001));
}

#[tokio::test]
async fn a_dropped_call_keeps_its_slot_until_the_reply() {
    let fake = Fake::new(false);
    let session = fake.session().await;
    // Sent, then dropped; the fake would see its slot carry two commands.
    assert_eq!(poll_immediate(session.call(grant(1))).await, None);
    let second = session.call(grant(2));
    let both = async {
        settle().await;
        assert_eq!(fake.with(|state| state.in_flight.clone()), [0, 1]);
        fake.gate.add_permits(2);
    };
    assert_eq!(tokio::join!(second, both).0, granted(2));
    settle().await;
    assert_eq!(fake.with(|state| state.applied[1..].to_vec()), [grant(1), grant(2)]);
    fake.gate.add_permits(1);
    assert_eq!(session.call(grant(3)).await, granted(3));
    assert_eq!(fake.with(|state| state.slots[&0].0), 2, "the slot is in use again, with its next sequence");
}

#[tokio::test]
async fn a_call_that_waits_for_its_turn_can_be_dropped() {
    let fake = Fake::new(false);
    let session = fake.session().await;
    let mut calls = Box::pin(join_all((0..256).map(|ino| session.call(grant(ino)))));
    assert!(matches!(futures_util::poll!(calls.as_mut()), Poll::Pending));
    assert_eq!(poll_immediate(session.call(grant(999))).await, None);
    fake.gate.add_permits(300);
    calls.await;
    settle().await;
    assert_eq!(fake.with(|state| state.applied.len()), 257, "the session and 256 commands");
}

#[tokio::test]
async fn a_lost_reply_is_asked_for_again_and_nothing_happens_twice() {
    let fake = Fake::new(true);
    let session = fake.session().await;
    fake.fault([Fault::LoseCall, Fault::LoseReply, Fault::LoseReply, Fault::LoseCall]);
    assert_eq!(session.call(grant(1)).await, granted(1));
    assert_eq!(session.call(grant(2)).await, granted(2));
    assert_eq!(fake.with(|state| state.applied[1..].to_vec()), [grant(1), grant(2)]);
}

#[tokio::test]
async fn repeats_end() {
    let fake = Fake::new(true);
    let session = fake.session().await;
    fake.fault((0..=REPEATS_MAX).map(|_| Fault::LoseReply));
    let lost = Err(SessionError::Call(CallError::Lost("reply".into())));
    assert_eq!(session.call(grant(1)).await, lost);
    assert_eq!(session.call(grant(2)).await, lost, "nobody knows any more what the slots have reached");
    assert_eq!(fake.with(|state| state.applied.len()), 2);
}

#[tokio::test]
async fn a_refusal_before_the_log_spends_no_sequence() {
    let fake = Fake::new(true);
    let session = fake.session().await;
    fake.fault([Fault::ReadOnly]);
    let refused = Err(SessionError::Call(CallError::ReadOnly("full".into())));
    assert_eq!(session.call(grant(1)).await, refused);
    assert_eq!(session.call(grant(2)).await, granted(2));
    assert_eq!(fake.with(|state| state.slots[&0].0), 1);
    // After a lost reply it may have been logged all the same.
    fake.fault([Fault::LoseReply, Fault::ReadOnly]);
    assert_eq!(session.call(grant(3)).await, Err(SessionError::Call(CallError::Lost("reply".into()))));
}

#[tokio::test]
async fn the_end_of_a_session_turns_everybody_away() {
    let cases = [
        (Fault::Answer(Box::new(Reply::Fenced)), SessionError::Fenced),
        (Fault::Answer(Box::new(Reply::SlotMisuse)), SessionError::SlotMisuse),
        (Fault::Answer(Box::new(Reply::ReplyGone)), SessionError::SlotMisuse),
        (Fault::Stop, SessionError::Call(CallError::Stopped("stop".into()))),
    ];
    for (fault, end) in cases {
        let fake = Fake::new(false);
        let session = fake.session().await;
        let first = session.call(grant(0));
        // More than there are slots, so that some wait.
        let others = join_all((1..400).map(|ino| session.call(grant(ino))));
        fake.fault([fault]);
        let release = async {
            settle().await;
            fake.gate.add_permits(1000);
        };
        let (first, others, ()) = tokio::join!(first, others, release);
        assert_eq!(first, Err(end.clone()));
        let turned_away = others.iter().filter(|reply| **reply == Err(end.clone())).count();
        assert_eq!(turned_away, 400 - 256, "those without a slot");
        assert_eq!(session.call(grant(9)).await, Err(end.clone()));
        assert_eq!(session.read(Query::Groups).await, Err(end.clone()));
        assert_eq!(session.settle(1).await, Err(end.clone()));
        assert_eq!(session.close().await, Err(end));
    }
}

#[tokio::test]
async fn close_waits_for_what_is_in_flight() {
    let fake = Fake::new(false);
    let session = fake.session().await;
    let mut call = Box::pin(session.call(grant(1)));
    assert!(matches!(futures_util::poll!(call.as_mut()), Poll::Pending));
    let mut close = Box::pin(session.close());
    assert!(matches!(futures_util::poll!(close.as_mut()), Poll::Pending));
    fake.gate.add_permits(1);
    assert_eq!(call.await, granted(1));
    assert_eq!(close.await, Ok(()));
    let closed = Command::CloseSession { volume: INFO.volume, session: INFO.session };
    assert_eq!(fake.with(|state| state.applied.last().cloned()), Some(closed));
    assert_eq!(session.call(grant(2)).await, Err(SessionError::Closed));
}

#[tokio::test]
async fn refusals_of_a_session_are_told_apart() {
    struct Refuses(Reply);
    impl MetaService for Refuses {
        fn call(&self, _envelope: Envelope) -> MetaFuture<Reply> {
            Box::pin(std::future::ready(Ok(self.0.clone())))
        }
        fn read(&self, _query: Query) -> MetaFuture<Answer> {
            Box::pin(std::future::ready(Ok(Answer::Failed(Errno::EIO))))
        }
    }
    let cases = [
        (Reply::Failed(Errno::EBUSY), OpenSessionError::Busy),
        (Reply::Failed(Errno::ENOENT), OpenSessionError::NoVolume(VolumeId(1))),
        (Reply::Failed(Errno::ESTALE), OpenSessionError::OldIncarnation),
        (Reply::Failed(Errno::ENOSPC), OpenSessionError::Refused(Errno::ENOSPC)),
        (Reply::Done, OpenSessionError::Protocol),
    ];
    for (reply, error) in cases {
        let opened = Session::open(Arc::new(Refuses(reply)), VolumeId(1), 7, 1).await;
        assert_eq!(opened.err(), Some(error));
    }
}
