//! Engines die at any await, and the next one goes on over the same arena, session and service.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arena::{Arena, FoundJournal};
use clock::Clock;
use futures_util::future::{Either, select};
use namespace::{
    Answer, Command, Envelope, FallocateMode, Query, Reply, SessionInfo, SetAttr, SlotRef, XattrMode,
};
use types::{Errno, Ino, Nanos};

use super::chooser::Chooser;
use super::{Hand, ROOT, Random, Slow, VOLUME, arena_of, content, create, reclaim_all, turns, visible};
use crate::exclusive::{Exclusive, ExclusiveOptions};
use crate::{CallError, MetaService, ResumeError, Session, SessionError};

/// Where the command slot lies in an arena, and its length (docs/FORMATS/arena.md).
const SLOT: (u64, usize) = (0x11_0000, 48);

/// What outlives an engine.
struct Left {
    service: Arc<Slow>,
    clock: Arc<Hand>,
    arena: OwnedFd,
    info: SessionInfo,
    cache_bytes: usize,
}

impl Left {
    /// A first engine, and what will be left of it.
    async fn begin(service: &Arc<Slow>, cache_bytes: usize) -> (Left, Exclusive) {
        let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
        let meta: Arc<dyn MetaService> = service.clone();
        let session = Session::open(meta, VOLUME, 1, 1).await.expect("a session");
        let (info, arena) = (session.info(), arena_of(session.info()));
        let (time, options): (Arc<dyn Clock>, _) = (clock.clone(), ExclusiveOptions { cache_bytes });
        let journal = Arc::clone(arena.journal());
        let mount = Exclusive::new(Arc::new(session), time, options, journal).await.expect("a mount");
        let arena = arena.as_fd().try_clone_to_owned().expect("another descriptor");
        (Left { service: service.clone(), clock, arena, info, cache_bytes }, mount)
    }

    fn found(&self) -> (Arena, FoundJournal) {
        let fd = self.arena.try_clone().expect("another descriptor");
        let (arena, recovery) = Arena::recover(fd).expect("an arena");
        (arena, recovery.journal)
    }

    async fn resume(&self) -> Result<Exclusive, ResumeError> {
        let (arena, found) = self.found();
        let meta: Arc<dyn MetaService> = self.service.clone();
        let (time, options): (Arc<dyn Clock>, _) =
            (self.clock.clone(), ExclusiveOptions { cache_bytes: self.cache_bytes });
        Exclusive::resume(meta, self.info, time, options, (Arc::clone(arena.journal()), found)).await
    }

    fn slot(&self) -> Vec<u8> {
        let mut bytes = vec![0; SLOT.1];
        let file = std::fs::File::from(self.arena.try_clone().expect("another descriptor"));
        file.read_exact_at(&mut bytes, SLOT.0).expect("the slot");
        bytes
    }

    fn poke_slot(&self, bytes: &[u8]) {
        let file = std::fs::File::from(self.arena.try_clone().expect("another descriptor"));
        file.write_all_at(bytes, SLOT.0).expect("the slot");
    }
}

/// What was at risk when engines died.
#[derive(Default, Debug)]
struct Risk {
    deaths: u64,
    unsettled: u64,
    in_flight: u64,
    ran_before: u64,
    died_resuming: u64,
}

/// One request after the other, and a death now and then. The kernel sends the request again that has no answer.
async fn many_lives(seed: u64, risk: &mut Risk) {
    let mut random = Random(seed ^ 0x5a5a);
    let reclaims = random.below(2) == 0;
    let service = Slow::new(seed, reclaims, 1 << 40);
    let (left, mut mount) = Left::begin(&service, random.pick(&[0, 3000, 1 << 20])).await;
    let session = left.info.session;
    let slot: SlotRef = namespace::any_slot(VOLUME, session);
    let mut reference = service.state().rows.clone();
    let mut chooser = Chooser::new(seed);
    // Replies that the kernel has not taken notice of, as far as the engine knows.
    let mut kept: BTreeMap<u64, Reply> = BTreeMap::new();
    for step in 1..=random.below(150) {
        let unique = step * 2;
        let now = left.clock.0.fetch_add(1000, Ordering::Relaxed) + 1000;
        let command = chooser.next(session);
        let (batch, expected) =
            namespace::predict(&reference, slot, Nanos(now), &command).expect("sound rows");
        let dies_in = match random.below(4) {
            0 => random.below(80),
            _ => u64::MAX,
        };
        let told = {
            let call = pin!(mount.call_of(unique, command.clone()));
            match select(call, pin!(turns(dies_in))).await {
                Either::Left((reply, _)) => Some(reply.expect("a reply")),
                Either::Right(_) => None,
            }
        };
        // It may also die between two requests.
        let reply = if dies_in == u64::MAX && random.below(30) != 0 {
            told.expect("nobody died")
        } else {
            drop(mount);
            risk.deaths += 1;
            let (_, found) = left.found();
            risk.unsettled += found.entries.iter().filter(|entry| entry.jseq > found.settled).count() as u64;
            risk.in_flight += u64::from(found.busy.is_some());
            mount = loop {
                let patience = random.pick(&[u64::MAX, 0, 5, 40]);
                match select(pin!(left.resume()), pin!(turns(patience))).await {
                    Either::Left((mount, _)) => {
                        break mount.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                    }
                    Either::Right(_) => risk.died_resuming += 1,
                }
            };
            assert_eq!(mount.pending(), 0, "all that was run is at the service");
            for (unique, reply) in &kept {
                assert_eq!(
                    mount.reply_to(*unique).as_ref(),
                    Ok(&Some(reply.clone())),
                    "seed {seed} step {step}"
                );
            }
            let ran = mount.reply_to(unique).expect("an arena");
            risk.ran_before += u64::from(told.is_none() && ran.is_some());
            let changes = !batch.is_empty();
            assert!(
                ran.is_some() || told.is_none() || !changes,
                "seed {seed} step {step}: an answer is lost"
            );
            mount.all_have_come(&[unique]);
            kept.clear();
            match (told, ran) {
                (Some(reply), _) | (None, Some(reply)) => reply,
                (None, None) => mount.call_of(unique, command.clone()).await.expect("a reply"),
            }
        };
        chooser.learn(&command, &reply);
        assert_eq!(visible(reply.clone()), visible(expected), "seed {seed} step {step}: {command:?}");
        reference.commit(&batch);
        match random.below(4) {
            0 if !batch.is_empty() => drop(kept.insert(unique, reply)),
            _ => mount.answered(unique),
        }
        turns(random.below(4)).await;
    }
    mount.sync().await.expect("a sync");
    let (mut there, mut foreseen) = (service.state().rows.clone(), reference);
    reclaim_all(&mut there);
    reclaim_all(&mut foreseen);
    assert_eq!(content(&there), content(&foreseen), "seed {seed}: not what was answered");
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_and_nothing_is_run_twice() {
    let mut risk = Risk::default();
    for seed in 0..80 {
        many_lives(seed, &mut risk).await;
    }
    let Risk { deaths, unsettled, in_flight, ran_before, died_resuming } = risk;
    assert!(deaths > 300 && unsettled > deaths && in_flight > 50, "{risk:?}");
    assert!(ran_before > 2 && died_resuming > 100, "{risk:?}");
}

/// Runs until the slot is busy, and tells what it holds.
async fn busy_slot(left: &Left) -> Vec<u8> {
    loop {
        let slot = left.slot();
        if slot[0] & 1 == 1 {
            return slot;
        }
        turns(1).await;
    }
}

#[tokio::test]
async fn a_death_between_the_mark_and_the_freeing_of_the_slot_sends_nothing_again() {
    let service = Slow::new(1, false, 1 << 40);
    let (left, mount) = Left::begin(&service, 1 << 20).await;
    assert!(matches!(mount.call_of(2, create("a")).await, Ok(Reply::Attr(_))));
    let busy = busy_slot(&left).await;
    mount.sync().await.expect("a sync");
    drop(mount);
    assert_ne!(left.slot(), busy);
    // The mark is stored, the slot is not freed: as it was for a moment.
    left.poke_slot(&busy);
    let sent = service.state().journaled.len();
    let mount = left.resume().await.expect("a mount");
    assert_eq!(service.state().journaled.len(), sent);
    assert!(matches!(mount.reply_to(2), Ok(Some(Reply::Attr(_)))));
    assert_eq!(mount.call_of(4, create("a")).await, Ok(Reply::Failed(Errno::EEXIST)));
    assert!(matches!(mount.call_of(6, create("b")).await, Ok(Reply::Attr(_))));
    mount.sync().await.expect("a sync");
}

/// It may have been applied: with other bytes under its sequence the session would be lost.
#[tokio::test]
async fn a_batch_that_may_have_arrived_is_never_taken_back() {
    let service = Slow::new(1, false, 1 << 40);
    let (left, mount) = Left::begin(&service, 1 << 20).await;
    assert!(matches!(mount.call_of(2, create("a")).await, Ok(Reply::Attr(_))));
    busy_slot(&left).await;
    drop(mount);
    assert!(left.found().1.busy.is_some(), "it is at the service, and nobody knows");
    service.full.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let (resume, patience) = (pin!(left.resume()), pin!(turns(300)));
        let waits = matches!(select(resume, patience).await, Either::Right(_));
        assert!(waits, "nothing tells whether it arrived");
    }
    assert!(service.state().refused > 2);
    service.full.store(false, Ordering::Relaxed);
    let mount = left.resume().await.expect("a mount");
    assert!(matches!(mount.call_of(4, create("b")).await, Ok(Reply::Attr(_))));
    mount.sync().await.expect("a sync");
    assert_eq!(service.state().journaled.iter().filter(|item| item.command == create("a")).count(), 2);
    let names = Query::ReadDir { volume: VOLUME, ino: Ino::ROOT, after: 2, max: 9, attrs: false };
    let there = namespace::query(&service.state().rows, &names).expect("sound rows");
    assert!(matches!(there, Answer::Entries(entries) if entries.len() == 2));
}

#[tokio::test]
async fn what_was_refused_after_all_is_not_run_by_the_next_engine() {
    let service = Slow::new(1, false, 1 << 40);
    let (left, mount) = Left::begin(&service, 1 << 20).await;
    let Ok(Reply::Attr(file)) = mount.call_of(2, create("a")).await else { panic!("no file") };
    let (mode, len) = (FallocateMode::Allocate, 8192);
    let reserve = Command::Fallocate { ino: file.ino, mode, offset: 0, len, kill_priv: false };
    assert!(matches!(mount.call_of(4, reserve).await, Ok(Reply::Attr(_))));
    mount.sync().await.expect("a sync");
    service.full.store(true, Ordering::Relaxed);
    let cut = SetAttr { size: Some(100), ..SetAttr::default() };
    let cut = Command::SetAttr { ino: file.ino, set: cut, kill_priv: false, applied: None, cred: ROOT };
    let refused = mount.call_of(6, cut).await;
    assert!(
        matches!(refused, Err(SessionError::Call(CallError::ReadOnly(_)))),
        "only the service can run it"
    );
    assert!(matches!(mount.call_of(8, create("b")).await, Err(SessionError::Call(CallError::ReadOnly(_)))));
    drop(mount);
    let (_, found) = left.found();
    assert!(found.entries.iter().any(|entry| entry.is_withdrawn && entry.jseq > found.settled));
    assert_eq!(found.busy, None);
    service.full.store(false, Ordering::Relaxed);
    let mount = left.resume().await.expect("a mount");
    assert_eq!((mount.reply_to(6), mount.reply_to(8)), (Ok(None), Ok(None)));
    assert!(matches!(mount.reply_to(4), Ok(Some(Reply::Attr(_)))));
    let get = Query::GetAttr { volume: VOLUME, ino: file.ino };
    assert!(matches!(mount.read(get).await, Ok(Answer::Attr(attr)) if attr.size == 8192));
}

#[tokio::test]
async fn a_session_that_has_ended_is_not_resumed() {
    let service = Slow::new(1, false, 1 << 40);
    let (left, mount) = Left::begin(&service, 1 << 20).await;
    drop(mount);
    service
        .state()
        .apply(Envelope { slot: None, command: Command::RegisterNode { node: 1, incarnation: 2 } });
    assert_eq!(left.resume().await.err(), Some(ResumeError::Session(SessionError::Fenced)));
}

/// Whoever finds the journal full waits, and nobody gets an error for it.
#[tokio::test]
async fn a_full_journal_makes_wait() {
    let service = Slow::new(1, false, 1 << 40);
    let (left, mount) = Left::begin(&service, 1 << 20).await;
    let xattr = |n: u64| {
        let (name, value) = (b"user.large".to_vec(), vec![n as u8; 60_000]);
        let mode = XattrMode::Set;
        Command::SetXattr { ino: Ino::ROOT, name, value, mode, cred: ROOT }
    };
    let mut unique = 2;
    while let Either::Left((reply, _)) =
        select(pin!(mount.call_of(unique, xattr(unique))), pin!(turns(5000))).await
    {
        assert_eq!(reply, Ok(Reply::Done));
        unique += 2;
    }
    // All of it is at the service, and every request could come again.
    assert_eq!(mount.pending(), 0);
    assert_eq!(unique / 2 - 1, (4 << 20) / 60_100, "as many as fit");
    let waits = mount.call_of(unique, xattr(unique));
    let answers = async {
        turns(50).await;
        // Entries are of different size, and none wraps: one may be too little.
        mount.answered(2);
        mount.answered(4);
    };
    let (reply, ()) = futures_util::join!(waits, answers);
    assert_eq!(reply, Ok(Reply::Done));
    drop(mount);
    let mount = left.resume().await.expect("a mount");
    assert!(matches!((mount.reply_to(2), mount.reply_to(unique)), (Ok(None), Ok(Some(_)))));
}
