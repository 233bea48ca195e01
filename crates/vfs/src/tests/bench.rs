//! A mount over the real state machine, arena and extents, in memory.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arena::{Arena, Options, Owner, Recovery};
use clock::{Clock, SimClock};
use extents::memory::MemoryStore;
use extents::{Extents, FixedPlacement, Group};
use meta_client::{CallError, Exclusive, ExclusiveOptions, MetaFuture, MetaService, Session};
use namespace::{
    Answer, Attr, Command, Cred, Entry, Envelope, MemoryRows, NewKind, Query, Reply, RowsError, SetAttr,
};
use types::{Errno, GroupId, Ino, Nanos, VolumeId};

use crate::{Ctx, Handle, Op, OpenFlags, Outcome, Parts, Vfs};

pub(crate) const READ_WRITE: OpenFlags =
    OpenFlags { read: true, write: true, append: false, truncate: false, direct: false, sync: false };

/// The rows, what was asked of them, and what is to go wrong.
#[derive(Default)]
struct Rigging {
    rows: MemoryRows,
    /// How many commands were applied, by kind.
    calls: BTreeMap<&'static str, u64>,
    refuse: Option<CallError>,
}

/// The metadata service: the real state machine over rows in memory.
pub(crate) struct Service {
    clock: SimClock,
    rigging: Mutex<Rigging>,
    /// Answers come at the second poll, so that whatever can run in between does.
    pub(crate) slow: AtomicBool,
}

impl Service {
    fn rigging(&self) -> MutexGuard<'_, Rigging> {
        self.rigging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, envelope: Envelope) -> Result<Reply, CallError> {
        let mut rigging = self.rigging();
        if let Some(error) = &rigging.refuse {
            return Err(error.clone());
        }
        match &envelope.command {
            Command::Journal { commands } => {
                for item in commands {
                    *rigging.calls.entry(kind_of(&item.command)).or_default() += 1;
                }
            }
            command => *rigging.calls.entry(kind_of(command)).or_default() += 1,
        }
        self.clock.advance(Duration::from_micros(10));
        let entry = Entry { time: self.clock.now(), commands: vec![envelope] };
        let (batch, mut replies) = namespace::apply(&rigging.rows, &entry).map_err(stopped)?;
        rigging.rows.commit(&batch);
        Ok(replies.pop().expect("one command has one reply"))
    }

    /// From now on commands meet this error, or none.
    pub(crate) fn refuse(&self, error: Option<CallError>) {
        self.rigging().refuse = error;
    }

    /// How many commands of a kind were applied, failed ones included.
    pub(crate) fn calls(&self, kind: &str) -> u64 {
        self.rigging().calls.get(kind).copied().unwrap_or(0)
    }

    pub(crate) fn query(&self, query: &Query) -> Answer {
        namespace::query(&self.rigging().rows, query).expect("sound rows")
    }

    /// The rows are sound.
    pub(crate) fn check(&self, volume: VolumeId) {
        let problems = namespace::check(&self.rigging().rows, volume, &mut |_| {}).expect("sound rows");
        assert_eq!(problems, []);
    }

    /// Applies a command without a slot.
    pub(crate) fn order(&self, command: Command) -> Reply {
        self.apply(Envelope { slot: None, command }).expect("a service that answers")
    }

    async fn later<T>(slow: bool, answer: T) -> T {
        if slow {
            tokio::task::yield_now().await;
        }
        answer
    }
}

fn kind_of(command: &Command) -> &'static str {
    match command {
        Command::GrantWrite { .. } => "GrantWrite",
        Command::Commit(_) => "Commit",
        Command::SetAttr { .. } => "SetAttr",
        Command::Unpin { .. } => "Unpin",
        Command::Touch { .. } => "Touch",
        _ => "other",
    }
}

fn stopped(error: RowsError) -> CallError {
    CallError::Stopped(error.to_string())
}

impl MetaService for Service {
    fn call(&self, envelope: Envelope) -> MetaFuture<Reply> {
        Box::pin(Service::later(self.slow.load(Ordering::Relaxed), self.apply(envelope)))
    }

    fn read(&self, query: Query) -> MetaFuture<Answer> {
        let answer = namespace::query(&self.rigging().rows, &query).map_err(stopped);
        Box::pin(Service::later(self.slow.load(Ordering::Relaxed), answer))
    }
}

/// How large everything is, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) limit: u64,
    pub(crate) disk: u64,
    pub(crate) arena: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { limit: 1 << 30, disk: 1 << 30, arena: 64 << 20 }
    }
}

/// A mount and everything under it.
pub(crate) struct Bench {
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) service: Arc<Service>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) arena: Arc<Arena>,
    pub(crate) clock: SimClock,
    pub(crate) volume: VolumeId,
    sizes: Sizes,
    group: GroupId,
    incarnation: u64,
    unique: AtomicU64,
}

impl Bench {
    pub(crate) async fn new() -> Bench {
        Bench::sized(Sizes::default()).await
    }

    pub(crate) async fn sized(sizes: Sizes) -> Bench {
        let clock = SimClock::new(Nanos(1_000_000_000_000_000_000));
        let slow = AtomicBool::new(false);
        let service = Arc::new(Service { clock: clock.clone(), rigging: Mutex::default(), slow });
        service.order(Command::AddDisk { disk: [7; 16], bytes: sizes.disk });
        let Reply::Group(group) = service.order(Command::AddGroup { disks: vec![[7; 16]] }) else {
            panic!("no group");
        };
        let command = Command::CreateVolume {
            name: b"bench".to_vec(),
            limit: sizes.limit,
            hash_key: [3; 16],
            mode: 0o755,
            cred: Cred { uid: 0, gid: 0 },
        };
        let Reply::Volume(volume) = service.order(command) else { panic!("no volume") };
        let store = Arc::new(MemoryStore::new(sizes.disk));
        let (vfs, arena) = mount(&service, &store, &clock, sizes, group, volume, 1).await;
        let unique = AtomicU64::new(2);
        Bench { vfs, service, store, arena, clock, volume, sizes, group, incarnation: 1, unique }
    }

    /// As after a power cut: what was only accepted is gone, and everything is mounted again.
    pub(crate) async fn power_cut(&mut self) {
        self.incarnation += 1;
        let (service, store, clock) = (&self.service, &self.store, &self.clock);
        let (group, volume) = (self.group, self.volume);
        let mounted = mount(service, store, clock, self.sizes, group, volume, self.incarnation).await;
        (self.vfs, self.arena) = mounted;
    }

    /// The engine dies here, and another one goes on over the arena and the session. Answers what was found.
    pub(crate) async fn taken_over(self) -> (Bench, Recovery) {
        let Bench { vfs, service, store, arena, clock, volume, sizes, group, incarnation, unique } = self;
        let info = vfs.session.info();
        let fd = arena.as_fd().try_clone_to_owned().expect("another descriptor");
        drop((Arc::into_inner(vfs).expect("nobody else has it"), arena));
        let (arena, recovery) = Arena::recover(fd).expect("an arena");
        let arena = Arc::new(arena);
        let meta: Arc<dyn MetaService> = Arc::clone(&service) as Arc<dyn MetaService>;
        let time: Arc<dyn Clock> = Arc::new(clock.clone());
        let journal = (Arc::clone(arena.journal()), recovery.journal.clone());
        let exclusive = Exclusive::resume(meta, info, time, ExclusiveOptions::default(), journal).await;
        let parts = parts(exclusive.expect("a service that answers"), &arena, &store, &clock, group);
        let vfs = Arc::new(Vfs::resume(parts).await.expect("a service that answers"));
        vfs.count_to_the_end().await.expect("no quota is left to count");
        (Bench { vfs, service, store, arena, clock, volume, sizes, group, incarnation, unique }, recovery)
    }

    pub(crate) fn ctx(&self, uid: u32) -> Ctx {
        let unique = self.unique.fetch_add(2, Ordering::Relaxed);
        Ctx { cred: Cred { uid, gid: uid }, pid: 1, unique }
    }

    pub(crate) async fn run(&self, op: Op) -> Result<Outcome, Errno> {
        self.run_as(op, 0).await
    }

    pub(crate) async fn run_as(&self, op: Op, uid: u32) -> Result<Outcome, Errno> {
        // The adapter moves the future between threads.
        fn send<T: Send>(future: T) -> T {
            future
        }
        send(self.vfs.handle(op, self.ctx(uid))).await
    }

    pub(crate) async fn create(&self, name: &str) -> (Ino, Handle) {
        let op = Op::Create {
            parent: Ino::ROOT,
            name: name.as_bytes().to_vec(),
            kind: NewKind::File,
            mode: 0o644,
            umask: 0,
            open: Some(READ_WRITE),
        };
        match self.run(op).await {
            Ok(Outcome::Created { attr, handle, .. }) => (attr.ino, handle),
            other => panic!("create {name}: {other:?}"),
        }
    }

    pub(crate) async fn make(&self, parent: Ino, name: &str, kind: NewKind) -> Ino {
        let name = name.as_bytes().to_vec();
        match self.run(Op::Create { parent, name, kind, mode: 0o755, umask: 0, open: None }).await {
            Ok(Outcome::Entry { attr, .. }) => attr.ino,
            other => panic!("make: {other:?}"),
        }
    }

    pub(crate) async fn open(&self, ino: Ino) -> Handle {
        self.open_as(ino, READ_WRITE).await
    }

    pub(crate) async fn open_as(&self, ino: Ino, flags: OpenFlags) -> Handle {
        match self.run(Op::Open { ino, flags }).await {
            Ok(Outcome::Opened { handle, .. }) => handle,
            other => panic!("open: {other:?}"),
        }
    }

    pub(crate) async fn write(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        data: &[u8],
    ) -> Result<u32, Errno> {
        let op = Op::Write { ino, handle, offset, data: data.to_vec(), kill_priv: false };
        match self.run(op).await? {
            Outcome::Written(bytes) => Ok(bytes),
            other => panic!("write: {other:?}"),
        }
    }

    pub(crate) async fn read(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        len: u32,
    ) -> Result<Vec<u8>, Errno> {
        match self.run(Op::Read { ino, handle, offset, len }).await? {
            Outcome::Bytes(bytes) => Ok(bytes),
            other => panic!("read: {other:?}"),
        }
    }

    pub(crate) async fn fsync(&self, ino: Ino, handle: Handle) -> Result<(), Errno> {
        self.run(Op::Fsync { ino, handle, data_only: false }).await.map(drop)
    }

    pub(crate) async fn release(&self, ino: Ino, handle: Handle) {
        self.run(Op::Release { ino, handle }).await.expect("release");
    }

    pub(crate) async fn forget(&self, ino: Ino, count: u64) {
        self.run(Op::Forget { ino, count }).await.expect("forget");
    }

    pub(crate) async fn attr(&self, ino: Ino) -> Attr {
        self.attr_ttl(ino).await.expect("attributes").0
    }

    pub(crate) async fn attr_ttl(&self, ino: Ino) -> Result<(Attr, Duration), Errno> {
        match self.run(Op::GetAttr { ino }).await? {
            Outcome::Attr { attr, ttl } => Ok((attr, ttl)),
            other => panic!("getattr: {other:?}"),
        }
    }

    pub(crate) async fn set(&self, ino: Ino, set: SetAttr) -> Result<Attr, Errno> {
        match self.run(Op::SetAttr { ino, set, kill_priv: false }).await? {
            Outcome::Attr { attr, .. } => Ok(attr),
            other => panic!("setattr: {other:?}"),
        }
    }

    pub(crate) async fn truncate(&self, ino: Ino, size: u64) -> Result<Attr, Errno> {
        self.set(ino, SetAttr { size: Some(size), ..SetAttr::default() }).await
    }

    /// What a name stands for; each call that finds something counts a reference.
    pub(crate) async fn lookup(&self, parent: Ino, name: &str) -> Option<Attr> {
        match self.run(Op::Lookup { parent, name: name.as_bytes().to_vec() }).await {
            Ok(Outcome::Entry { attr, .. }) => Some(attr),
            Ok(Outcome::NoEntry { .. }) => None,
            other => panic!("lookup {name}: {other:?}"),
        }
    }

    pub(crate) async fn unlink(&self, parent: Ino, name: &str) -> Result<(), Errno> {
        self.run(Op::Unlink { parent, name: name.as_bytes().to_vec() }).await.map(drop)
    }

    pub(crate) fn nodes(&self) -> u64 {
        self.vfs.figures().nodes
    }

    /// The attributes that the rows have, once everything that was answered is in them.
    pub(crate) async fn row(&self, ino: Ino) -> Answer {
        self.vfs.settle().await.expect("a service that answers");
        self.service.query(&Query::GetAttr { volume: self.volume, ino })
    }
}

/// A first engine, with a session and an arena of its own.
async fn mount(
    service: &Arc<Service>,
    store: &Arc<MemoryStore>,
    clock: &SimClock,
    sizes: Sizes,
    group: GroupId,
    volume: VolumeId,
    incarnation: u64,
) -> (Arc<Vfs>, Arc<Arena>) {
    service.order(Command::RegisterNode { node: 1, incarnation });
    let meta: Arc<dyn MetaService> = Arc::clone(service) as Arc<dyn MetaService>;
    let session = Session::open(meta, volume, 1, incarnation).await.expect("a session");
    let info = session.info();
    let time: Arc<dyn Clock> = Arc::new(clock.clone());
    let owner = Owner { volume, session: info.session, epoch: info.epoch };
    let options = Options { capacity: sizes.arena, chunk_bytes: (sizes.arena / 8).min(1 << 20) as u32 };
    let arena = Arc::new(Arena::create(owner, options).expect("an arena"));
    let (options, journal) = (ExclusiveOptions::default(), Arc::clone(arena.journal()));
    let exclusive = Exclusive::new(Arc::new(session), time, options, journal).await;
    let parts = parts(exclusive.expect("a service that answers"), &arena, store, clock, group);
    let vfs = Arc::new(Vfs::new(parts));
    // As the counting task does when a mount begins.
    vfs.count_to_the_end().await.expect("no quota is left to count");
    (vfs, arena)
}

fn parts(
    session: Exclusive,
    arena: &Arc<Arena>,
    store: &Arc<MemoryStore>,
    clock: &SimClock,
    group: GroupId,
) -> Parts {
    let (info, group) = (session.info(), Group::numbered(group, vec![Arc::clone(store) as Arc<_>]));
    let first = 1 + (arena.engines_before() << 32);
    let extents = Extents::new(info.volume, info.session, first, FixedPlacement::of(vec![group]));
    let (arena, clock) = (Arc::clone(arena), Arc::new(clock.clone()));
    Parts { session: Arc::new(session), arena, extents: Arc::new(extents), clock }
}
