//! Random work over a service that takes its time, compared with the state machine run directly.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arena::{Arena, Owner};
use clock::Clock;
use futures_util::future::join_all;
use namespace::{
    Answer, Attr, Command, Commit, Content, Cred, Entry, Envelope, FallocateMode, Journaled, MemoryRows,
    NewKind, Query, Reply, SessionInfo, SetAttr, SlotRef,
};
use types::{Dseq, Errno, Ino, Nanos, VolumeId};

use self::chooser::Chooser;
use super::{Exclusive, ExclusiveOptions};
use crate::{CallError, MetaFuture, MetaService, Session, SessionError};

mod chooser;
mod takeover;

const VOLUME: VolumeId = VolumeId(1);
const ROOT: Cred = Cred { uid: 0, gid: 0 };

/// A stream of numbers that a seed repeats.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Time that a test moves; a sleep is a few turns of the others.
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(turns(20))
    }
}

async fn turns(count: u64) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// The real state machine; before and after it applies a command others have some turns.
struct Slow {
    state: Mutex<State>,
    full: AtomicBool,
}

struct State {
    rows: MemoryRows,
    now: i64,
    random: Random,
    /// Whether it reclaims in between.
    reclaims: bool,
    /// What mounts have sent, in the order of its application.
    journaled: Vec<Journaled>,
    refused: u64,
}

impl Slow {
    fn new(seed: u64, reclaims: bool, limit: u64) -> Arc<Slow> {
        let (rows, random) = (MemoryRows::default(), Random(seed));
        let state = State { rows, now: 0, random, reclaims, journaled: Vec::new(), refused: 0 };
        let service = Arc::new(Slow { state: Mutex::new(state), full: AtomicBool::new(false) });
        let (name, hash_key) = (b"v".to_vec(), [1; 16]);
        for command in [
            Command::AddDisk { disk: [1; 16], bytes: 1 << 40 },
            Command::AddGroup { disks: vec![[1; 16]] },
            Command::CreateVolume { name, limit, hash_key, mode: 0o755, cred: ROOT },
            Command::RegisterNode { node: 1, incarnation: 1 },
        ] {
            service.state().apply(Envelope { slot: None, command });
        }
        service
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked")
    }

    fn turns(&self) -> u64 {
        self.state().random.below(40)
    }
}

impl State {
    fn apply(&mut self, envelope: Envelope) -> Reply {
        self.now += 1;
        if let Command::Journal { commands } = &envelope.command {
            self.journaled.extend(commands.iter().cloned());
        }
        let entry = Entry { time: Nanos(self.now), commands: vec![envelope] };
        let (batch, mut replies) = namespace::apply(&self.rows, &entry).expect("sound rows");
        self.rows.commit(&batch);
        replies.pop().expect("one command has one reply")
    }
}

impl MetaService for Slow {
    fn call(&self, envelope: Envelope) -> MetaFuture<Reply> {
        let (before, after) = (self.turns(), self.turns());
        if self.full.load(Ordering::Relaxed) {
            self.state().refused += 1;
            return Box::pin(async { Err(CallError::ReadOnly("full".into())) });
        }
        // Nothing of this borrows the service: a batch goes on although its sender is gone.
        let reply = {
            let mut state = self.state();
            let reply = state.apply(envelope);
            if state.reclaims && state.random.below(3) == 0 {
                let steps = state.random.below(20) as u32;
                state.apply(Envelope { slot: None, command: Command::Reclaim { volume: VOLUME, steps } });
            }
            reply
        };
        Box::pin(async move {
            turns(before + after).await;
            Ok(reply)
        })
    }

    fn read(&self, query: Query) -> MetaFuture<Answer> {
        let answer = namespace::query(&self.state().rows, &query).expect("sound rows");
        let wait = self.turns() / 8;
        Box::pin(async move {
            turns(wait).await;
            Ok(answer)
        })
    }
}

async fn mount(service: &Arc<Slow>, clock: &Arc<Hand>, cache_bytes: usize) -> Exclusive {
    let meta: Arc<dyn MetaService> = service.clone();
    let session = Session::open(meta, VOLUME, 1, 1).await.expect("a session");
    let time: Arc<dyn Clock> = clock.clone();
    let journal = Arc::clone(arena_of(session.info()).journal());
    let options = ExclusiveOptions { cache_bytes };
    Exclusive::new(Arc::new(session), time, options, journal).await.expect("a mount")
}

fn arena_of(info: SessionInfo) -> Arena {
    let owner = Owner { volume: info.volume, session: info.session, epoch: info.epoch };
    let options = arena::Options { capacity: 64 << 10, chunk_bytes: 16 << 10 };
    Arena::create(owner, options).expect("an arena")
}

/// Rows without those that a session leaves for itself, and the cluster's.
fn content(rows: &MemoryRows) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let of_session = |key: &Vec<u8>| key[1..5] == [0; 4] || matches!(key[5], b'S' | b'T');
    rows.0.iter().filter(|(key, _)| !of_session(key)).map(|(key, row)| (key.clone(), row.clone())).collect()
}

fn reclaim_all(rows: &mut MemoryRows) {
    loop {
        let command = Command::Reclaim { volume: VOLUME, steps: 1000 };
        let entry = Entry { time: Nanos(0), commands: vec![Envelope { slot: None, command }] };
        let (batch, replies) = namespace::apply(rows, &entry).expect("sound rows");
        rows.commit(&batch);
        if replies == [Reply::Left(0)] {
            return;
        }
    }
}

/// Without what reclaim changes behind everybody's back.
fn visible(mut reply: Reply) -> Reply {
    match &mut reply {
        Reply::Attr(attr) | Reply::Removed(attr) | Reply::Copied { attr, .. } => attr.allocated = 0,
        Reply::Renamed { moved, other } => {
            moved.allocated = 0;
            other.iter_mut().for_each(|attr| attr.allocated = 0);
        }
        _ => {}
    }
    reply
}

fn visible_answer(mut answer: Answer) -> Answer {
    match &mut answer {
        Answer::Attr(attr) | Answer::Map { attr, .. } | Answer::Inline { attr, .. } => attr.allocated = 0,
        Answer::Entries(entries) => {
            entries.iter_mut().flat_map(|entry| &mut entry.attr).for_each(|attr| attr.allocated = 0);
        }
        _ => {}
    }
    answer
}

/// One mount, one thing after the other, until it dies or is closed.
async fn one_life(seed: u64) {
    let mut random = Random(seed ^ 0xa5a5);
    let reclaims = random.below(2) == 0;
    let service = Slow::new(seed, reclaims, 1 << 40);
    let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
    let cache_bytes = random.pick(&[0, 3000, 20_000, 1 << 20]);
    let mount = mount(&service, &clock, cache_bytes).await;
    let session = mount.info().session;
    let slot: SlotRef = namespace::any_slot(VOLUME, session);
    let mut reference = service.state().rows.clone();
    // What each command came to, for those that are in the order; and how many of them are durable for sure.
    let mut order: Vec<(Command, MemoryRows)> = Vec::new();
    let mut synced = 0;
    let mut chooser = Chooser::new(seed);
    for step in 0..random.below(250) {
        let now = clock.0.fetch_add(1000, Ordering::Relaxed) + 1000;
        if random.below(4) == 0 {
            let question = chooser.question();
            let expected = namespace::query(&reference, &question).expect("sound rows");
            let answer = mount.read(question.clone()).await.expect("an answer");
            assert_eq!(
                visible_answer(answer),
                visible_answer(expected),
                "seed {seed} step {step}: {question:?}"
            );
            continue;
        }
        if random.below(25) == 0 {
            mount.sync().await.expect("a sync");
            synced = order.len();
            continue;
        }
        let command = chooser.next(session);
        let (batch, expected) =
            namespace::predict(&reference, slot, Nanos(now), &command).expect("sound rows");
        let reply = mount.call(command.clone()).await;
        let reply = reply.unwrap_or_else(|error| panic!("seed {seed} step {step}: {command:?}: {error}"));
        chooser.learn(&command, &reply);
        assert_eq!(visible(reply), visible(expected), "seed {seed} step {step}: {command:?}");
        if !batch.is_empty() {
            reference.commit(&batch);
            order.push((command, reference.clone()));
        }
        turns(random.below(4)).await;
    }
    let closes = random.below(2) == 0;
    if closes {
        mount.close().await.expect("closed");
        synced = order.len();
    }
    // Death: whatever was not sent is gone.
    drop(mount);
    let state = service.state();
    let mut sent = state.journaled.iter();
    let mut next = sent.next();
    let mut durable = 0;
    for (at, (command, _)) in order.iter().enumerate() {
        // Refusals of the service are in its order too, and change nothing.
        while next.is_some_and(|item| item.command != *command && at >= durable) {
            next = sent.next();
        }
        if next.is_none() {
            break;
        }
        durable = at + 1;
        next = sent.next();
    }
    assert!(durable >= synced, "seed {seed}: {durable} of {} are durable, {synced} were synced", order.len());
    if let Some((_, rows)) = durable.checked_sub(1).map(|last| &order[last]) {
        let (mut there, mut foreseen) = (state.rows.clone(), rows.clone());
        reclaim_all(&mut there);
        // The session is closed there, and with it goes what it had open.
        if closes {
            let command = Command::CloseSession { volume: VOLUME, session };
            let entry = Entry { time: Nanos(0), commands: vec![Envelope { slot: None, command }] };
            let (batch, _) = namespace::apply(&foreseen, &entry).expect("sound rows");
            foreseen.commit(&batch);
        }
        reclaim_all(&mut foreseen);
        assert_eq!(content(&there), content(&foreseen), "seed {seed}: not what was foreseen");
    }
}

#[tokio::test]
async fn what_is_durable_is_a_prefix_of_what_was_answered() {
    for seed in 0..150 {
        one_life(seed).await;
    }
}

/// Many at once: nothing is refused that was answered, and the rows are sound.
#[tokio::test]
async fn many_callers_and_the_service_agree() {
    for seed in 0..25_u64 {
        let service = Slow::new(seed, true, 1 << 40);
        let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
        let mount = mount(&service, &clock, [2000, 1 << 20][seed as usize % 2]).await;
        let session = mount.info().session;
        let callers = (0..6_u64).map(|caller| {
            let (mount, clock) = (&mount, &clock);
            async move {
                let mut chooser = Chooser::new(seed * 100 + caller);
                chooser.counter = caller << 32;
                for _ in 0..60 {
                    clock.0.fetch_add(10, Ordering::Relaxed);
                    let command = chooser.next(session);
                    let reply = mount.call(command.clone()).await;
                    let reply = reply.unwrap_or_else(|error| panic!("seed {seed}: {command:?}: {error}"));
                    chooser.learn(&command, &reply);
                    let question = chooser.question();
                    mount.read(question).await.expect("an answer");
                }
            }
        });
        join_all(callers).await;
        mount.sync().await.expect("a sync");
        // What is kept here is what is there.
        for ino in 1..200 {
            for question in [
                Query::GetAttr { volume: VOLUME, ino: Ino(ino) },
                Query::ReadDir { volume: VOLUME, ino: Ino(ino), after: 2, max: 1000, attrs: false },
            ] {
                let there = namespace::query(&service.state().rows, &question).expect("sound rows");
                let here = mount.read(question).await.expect("an answer");
                assert_eq!(visible_answer(here), visible_answer(there), "seed {seed}");
            }
        }
        let problems = namespace::check(&service.state().rows, VOLUME, &mut |_| {}).expect("sound rows");
        assert_eq!(problems, [], "seed {seed}");
    }
}

fn create(name: &str) -> Command {
    let (name, kind) = (name.as_bytes().to_vec(), NewKind::File);
    Command::Create { parent: Ino::ROOT, name, kind, mode: 0o600, umask: 0, cred: ROOT }
}

#[tokio::test]
async fn a_full_service_refuses_what_is_new_and_keeps_what_was_answered() {
    let service = Slow::new(1, false, 1 << 40);
    let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
    let mount = mount(&service, &clock, 1 << 20).await;
    service.full.store(true, Ordering::Relaxed);
    assert!(matches!(mount.call(create("a")).await, Ok(Reply::Attr(_))), "it does not know yet");
    let full = Err(SessionError::Call(CallError::ReadOnly("full".into())));
    assert_eq!(mount.sync().await, full);
    assert_eq!(mount.call(create("b")).await.map(drop), full);
    assert!(service.state().refused > 0);
    assert_eq!(mount.pending(), 1);
    service.full.store(false, Ordering::Relaxed);
    assert_eq!(mount.sync().await, Ok(()));
    let names = Query::ReadDir { volume: VOLUME, ino: Ino::ROOT, after: 2, max: 9, attrs: false };
    let there = namespace::query(&service.state().rows, &names).expect("sound rows");
    assert!(matches!(there, Answer::Entries(entries) if entries.len() == 1 && entries[0].name == b"a"));
}

/// What was refused after all leaves no trace, and what was there can be read meanwhile.
#[tokio::test]
async fn what_a_full_service_refused_is_as_if_it_never_was() {
    let service = Slow::new(1, false, 1 << 40);
    let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
    let mount = mount(&service, &clock, 1 << 20).await;
    let get = |ino| Query::GetAttr { volume: VOLUME, ino };
    let set = |ino, set| Command::SetAttr { ino, set, kill_priv: false, applied: None, cred: ROOT };
    let Ok(Reply::Attr(small)) = mount.call(create("small")).await else { panic!("no file") };
    let Ok(Reply::Attr(large)) = mount.call(create("large")).await else { panic!("no file") };
    let Ok(Reply::Granted(grant)) = mount.call(Command::GrantWrite { ino: small.ino }).await else {
        panic!("no grant")
    };
    let mode = FallocateMode::Allocate;
    let reserve = Command::Fallocate { ino: large.ino, mode, offset: 0, len: 8192, kill_priv: false };
    assert!(matches!(mount.call(reserve).await, Ok(Reply::Attr(_))));
    mount.sync().await.expect("a sync");
    service.full.store(true, Ordering::Relaxed);
    let full = Err(SessionError::Call(CallError::ReadOnly("full".into())));
    let cut = set(large.ino, SetAttr { size: Some(100), ..SetAttr::default() });
    assert_eq!(mount.call(cut.clone()).await.map(drop), full, "only the service can run it");
    assert!(matches!(mount.read(get(large.ino)).await, Ok(Answer::Attr(attr)) if attr.size == 8192));
    let commit = Command::Commit(Commit {
        ino: small.ino,
        grant,
        applied: Dseq(1),
        content: Content::Inline(vec![7; 10]),
        size: 10,
        mtime: Some(Nanos(1_000_000)),
        kill_priv: false,
    });
    assert_eq!(mount.call(commit.clone()).await.map(drop), full);
    service.full.store(false, Ordering::Relaxed);
    let chmod = set(small.ino, SetAttr { mode: Some(0o640), ..SetAttr::default() });
    assert!(matches!(mount.call(chmod).await, Ok(Reply::Attr(attr)) if attr.size == 0 && attr.mode == 0o640));
    assert!(matches!(mount.call(cut).await, Ok(Reply::Attr(attr)) if attr.size == 100));
    assert!(matches!(mount.call(commit).await, Ok(Reply::Attr(attr)) if attr.size == 10));
    mount.sync().await.expect("a sync");
    for ino in [small.ino, large.ino] {
        let there = namespace::query(&service.state().rows, &get(ino)).expect("sound rows");
        assert_eq!(mount.read(get(ino)).await.expect("an answer"), there);
    }
}

#[tokio::test]
async fn a_service_that_comes_to_another_result_ends_the_mount() {
    let service = Slow::new(1, false, 1 << 40);
    let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
    let mount = mount(&service, &clock, 1 << 20).await;
    let slot = {
        let SlotRef { volume, session, .. } = mount.slot();
        SlotRef { volume, session, epoch: mount.info().epoch, slot: 255, seq: 1 }
    };
    assert!(matches!(mount.call(create("a")).await, Ok(Reply::Attr(_))));
    mount.sync().await.expect("a sync");
    // Somebody else changes the volume, which nobody may.
    service.state().apply(Envelope { slot: Some(slot), command: create("b") });
    assert!(matches!(mount.call(create("b")).await, Ok(Reply::Attr(_))));
    assert!(matches!(mount.sync().await, Err(SessionError::Diverged(_))));
    assert!(matches!(mount.call(create("c")).await, Err(SessionError::Diverged(_))));
}

/// Whoever does not agree with what a command would come to finds nothing of it, and the agreed one is run as shown.
#[tokio::test]
async fn a_command_is_run_only_if_its_caller_agrees_with_the_reply() {
    let service = Slow::new(1, false, 1 << 40);
    let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
    let mount = mount(&service, &clock, 1 << 20).await;
    let get = |ino| Query::GetAttr { volume: VOLUME, ino };
    let Ok(Reply::Attr(file)) = mount.call(create("file")).await else { panic!("no file") };
    let before = mount.mark();
    assert_eq!(mount.call_if(0, create("other"), &mut |_| false).await, Ok(None));
    let refused = mount.call_if(0, create("file"), &mut |_| panic!("a refusal is shown")).await;
    assert_eq!(refused, Ok(Some(Reply::Failed(Errno::EEXIST))));
    assert_eq!(mount.mark(), before, "nothing was put in order");
    let other = Query::Lookup { volume: VOLUME, parent: Ino::ROOT, name: b"other".to_vec() };
    assert_eq!(mount.read(other).await, Ok(Answer::Failed(Errno::ENOENT)));

    let mut shown = None;
    let mut agree = |reply: &Reply| {
        shown = Some(reply.clone());
        true
    };
    let unlink = Command::Unlink { parent: Ino::ROOT, name: b"file".to_vec(), pinned: false, cred: ROOT };
    let reply = mount.call_if(0, unlink, &mut agree).await.expect("a reply");
    assert!(matches!(&reply, Some(Reply::Removed(attr)) if attr.ino == file.ino), "{reply:?}");
    assert_eq!(reply, shown);
    assert_eq!(mount.read(get(file.ino)).await, Ok(Answer::Failed(Errno::ESTALE)));

    let Ok(Reply::Attr(file)) = mount.call(create("file")).await else { panic!("no file") };
    let (mode, len) = (FallocateMode::Allocate, 8192);
    let reserve = Command::Fallocate { ino: file.ino, mode, offset: 0, len, kill_priv: false };
    assert!(matches!(mount.call_if(0, reserve, &mut |_| true).await, Ok(Some(Reply::Attr(_)))));
    let cut = SetAttr { size: Some(100), ..SetAttr::default() };
    let cut = Command::SetAttr { ino: file.ino, set: cut, kill_priv: false, applied: None, cred: ROOT };
    assert_eq!(mount.call_if(0, cut, &mut |_| true).await, Ok(None), "only the service knows the map");
    mount.sync().await.expect("a sync");
    let there = namespace::query(&service.state().rows, &get(file.ino)).expect("sound rows");
    assert!(matches!(there, Answer::Attr(attr) if attr.size == 8192));
}

#[tokio::test]
async fn space_that_reclaim_gave_back_is_seen() {
    let service = Slow::new(1, false, 8192);
    let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
    let mount = mount(&service, &clock, 1 << 20).await;
    let set_aside = async |name: &str| {
        let Ok(Reply::Attr(Attr { ino, .. })) = mount.call(create(name)).await else { panic!("no file") };
        let (mode, len) = (FallocateMode::Allocate, 8192);
        let command = Command::Fallocate { ino, mode, offset: 0, len, kill_priv: false };
        mount.call(command).await.expect("an answer")
    };
    assert!(matches!(set_aside("a").await, Reply::Attr(_)));
    assert_eq!(set_aside("b").await, Reply::Failed(Errno::ENOSPC));
    let unlink = Command::Unlink { parent: Ino::ROOT, name: b"a".to_vec(), pinned: false, cred: ROOT };
    assert!(matches!(mount.call(unlink).await, Ok(Reply::Removed(_))));
    mount.sync().await.expect("a sync");
    reclaim_all(&mut service.state().rows);
    assert!(matches!(set_aside("c").await, Reply::Attr(_)), "it fits now");
}
