use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meta_client::{CallError, MetaService};
use meta_raft::Beat;
use namespace::{Answer, Command, Cred, Envelope, NewKind, Query, Reply, Rows, SessionInfo, SlotRef};
use types::{Ino, VolumeId};

use super::Service;
use crate::folder::{CreateError, OpenError, Options};
use crate::offline::Offline;
use crate::space::FreeSpace;

fn small() -> Options {
    Options {
        log_bytes: 4 << 20,
        segment_bytes: 256 << 10,
        reserve_bytes: 1 << 20,
        read_only_below: 1 << 20,
        beat: Beat { bytes: 1 << 20, commands: 100, span: Duration::from_millis(200) },
        ..Options::default()
    }
}

fn lazy() -> Options {
    Options { beat: Beat { bytes: u64::MAX, commands: u64::MAX, span: Duration::from_secs(3600) }, ..small() }
}

const CRED: Cred = Cred { uid: 0, gid: 0 };

fn free(command: Command) -> Envelope {
    Envelope { slot: None, command }
}

async fn mount(service: &Service) -> SessionInfo {
    let create = Command::CreateVolume {
        name: b"v".to_vec(),
        limit: 1 << 30,
        hash_key: [1; 16],
        mode: 0o755,
        cred: CRED,
    };
    let Reply::Volume(volume) = service.call(free(create)).await.unwrap() else { panic!("no volume") };
    service.call(free(Command::RegisterNode { node: 1, incarnation: 1 })).await.unwrap();
    let open = Command::OpenSession { volume, node: 1, incarnation: 1 };
    let Reply::Session(session) = service.call(free(open)).await.unwrap() else { panic!("no session") };
    session
}

fn create(session: &SessionInfo, slot: u8, seq: u64, name: &str) -> Envelope {
    let slot = SlotRef { volume: session.volume, session: session.session, epoch: session.epoch, slot, seq };
    let command = Command::Create {
        parent: Ino(1),
        name: name.into(),
        kind: NewKind::File,
        mode: 0o644,
        umask: 0,
        cred: CRED,
    };
    Envelope { slot: Some(slot), command }
}

async fn names(service: &Service, volume: VolumeId) -> Vec<String> {
    let query = Query::ReadDir { volume, ino: Ino(1), after: 2, max: 10_000, attrs: false };
    let Answer::Entries(entries) = service.read(query).await.unwrap() else { panic!("no entries") };
    let mut names: Vec<String> =
        entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect();
    names.sort();
    names
}

fn all_rows(rows: &dyn Rows) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    rows.scan(&[1], &[255], false, &mut |key, value| {
        all.push((key.to_vec(), value.to_vec()));
        true
    })
    .unwrap();
    all
}

#[tokio::test]
async fn what_was_answered_is_there_after_every_kind_of_end() {
    let folder = tempfile::tempdir().unwrap();
    Service::create(folder.path(), &small()).unwrap();
    assert!(matches!(Service::create(folder.path(), &small()), Err(CreateError::Exists { .. })));
    let mut session = None;
    let mut expected = Vec::new();
    for (round, options) in [lazy(), small(), lazy(), small()].into_iter().enumerate() {
        let service = Service::open(folder.path(), options).unwrap();
        if session.is_none() {
            session = Some(mount(&service).await);
        }
        let session = session.as_ref().unwrap();
        assert_eq!(names(&service, session.volume).await, expected);
        for n in 0..50 {
            let name = format!("{round}-{n:02}");
            let seq = (round * 50 + n + 1) as u64;
            let command = create(session, 0, seq, &name);
            let first = service.call(command.clone()).await.unwrap();
            assert!(matches!(first, Reply::Attr(_)), "{first:?}");
            assert_eq!(service.call(command).await.unwrap(), first, "a repeat is answered, not applied");
            expected.push(name);
            assert_eq!(
                names(&service, session.volume).await.len(),
                expected.len(),
                "a read sees what was answered"
            );
        }
        if round % 2 == 0 {
            drop(service);
        } else {
            assert!(service.close().await.closed);
            assert!(matches!(service.read(Query::Volumes).await, Err(CallError::Stopped(_))));
        }
    }
    let service = Service::open(folder.path(), small()).unwrap();
    assert_eq!(names(&service, session.unwrap().volume).await, expected);
    assert_eq!(service.volumes().unwrap().len(), 1);
}

#[tokio::test]
async fn an_offline_look_sees_what_the_next_start_serves_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    Service::create(folder.path(), &lazy()).unwrap();
    let service = Service::open(folder.path(), Options { reclaim: false, ..lazy() }).unwrap();
    let session = mount(&service).await;
    for n in 1..=30 {
        service.call(create(&session, 0, n, &format!("a{n}"))).await.unwrap();
        if n == 20 {
            service.sync().await.unwrap();
        }
    }
    assert!(Offline::open(folder.path()).is_err(), "it is in use");
    drop(service);
    let before = files(folder.path());
    let offline = Offline::open(folder.path()).unwrap();
    assert!(offline.report().replayed >= 10, "{:?}", offline.report());
    assert!(offline.report().synced < offline.report().last);
    let seen = all_rows(&offline);
    let mut backward = Vec::new();
    offline
        .scan(&[1], &[255], true, &mut |key, value| {
            backward.push((key.to_vec(), value.to_vec()));
            true
        })
        .unwrap();
    backward.reverse();
    assert!(backward == seen);
    drop(offline);
    assert!(Offline::log(folder.path()).unwrap().all(|record| record.record.is_ok()));
    assert!(before == files(folder.path()), "an offline look changes nothing");
    let service = Service::open(folder.path(), Options { reclaim: false, ..lazy() }).unwrap();
    assert!(all_rows(&service.partition.view()) == seen);
}

fn files(path: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            all.push((path, bytes));
        }
    }
    all.sort();
    all
}

struct Free(AtomicU64);

impl FreeSpace for Free {
    fn free(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn a_full_filesystem_makes_it_read_only_until_space_returns() {
    let folder = tempfile::tempdir().unwrap();
    let space = Arc::new(Free(AtomicU64::new(100 << 20)));
    let options = Options { free: space.clone(), ..lazy() };
    Service::create(folder.path(), &options).unwrap();
    let service = Service::open(folder.path(), options).unwrap();
    let session = mount(&service).await;
    service.call(create(&session, 0, 1, "before")).await.unwrap();
    let reserve = folder.path().join("meta/reserve");
    assert!(reserve.exists());
    space.0.store(1000, Ordering::Relaxed);
    let until = |read_only: bool| {
        while service.figures().read_only.is_some() != read_only {
            std::thread::yield_now();
        }
    };
    until(true);
    let refused = service.call(create(&session, 1, 1, "refused")).await;
    assert!(matches!(refused, Err(CallError::ReadOnly(_))), "{refused:?}");
    assert_eq!(names(&service, session.volume).await, ["before"]);
    space.0.store(100 << 20, Ordering::Relaxed);
    until(false);
    assert!(reserve.exists());
    assert!(matches!(service.call(create(&session, 1, 1, "after")).await, Ok(Reply::Attr(_))));
    assert!(service.figures().partition.syncs >= 1);
}

#[tokio::test]
async fn a_sync_gives_up_the_reserve_before_it_needs_the_room() {
    let folder = tempfile::tempdir().unwrap();
    let space = Arc::new(Free(AtomicU64::new(100 << 20)));
    let options = Options { free: space.clone(), ..lazy() };
    Service::create(folder.path(), &options).unwrap();
    let service = Service::open(folder.path(), options).unwrap();
    let session = mount(&service).await;
    service.call(create(&session, 0, 1, "before")).await.unwrap();
    space.0.store(1000, Ordering::Relaxed);
    // Asked for at once: the next look at the filesystem is half a second away.
    service.sync().await.unwrap();
    assert!(service.figures().read_only.is_some());
    assert!(!folder.path().join("meta/reserve").exists());
}

#[tokio::test]
async fn deleted_files_are_reclaimed_behind_the_scenes() {
    let folder = tempfile::tempdir().unwrap();
    Service::create(folder.path(), &small()).unwrap();
    let service = Service::open(folder.path(), small()).unwrap();
    let session = mount(&service).await;
    let empty = all_rows(&service.partition.view()).len();
    for n in 1..=20 {
        service.call(create(&session, 0, n, &format!("f{n}"))).await.unwrap();
    }
    for n in 1..=20 {
        let mut envelope = create(&session, 0, 20 + n, "");
        envelope.command =
            Command::Unlink { parent: Ino(1), name: format!("f{n}").into(), pinned: false, cred: CRED };
        assert!(matches!(service.call(envelope).await.unwrap(), Reply::Removed(_)));
    }
    // One slot and the volume's own rows are left.
    while all_rows(&service.partition.view()).len() > empty + 3 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn the_parallel_callers_of_a_small_log_never_fill_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { log_bytes: 2 << 20, segment_bytes: 128 << 10, ..lazy() };
    Service::create(folder.path(), &options).unwrap();
    let service = Arc::new(Service::open(folder.path(), options).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let session = runtime.block_on(mount(&service));
    let threads: Vec<_> = (0..4u8)
        .map(|slot| {
            let service = service.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    for seq in 1..=400 {
                        let reply = service.call(create(&session, slot, seq, &format!("{slot}-{seq}"))).await;
                        assert!(matches!(reply, Ok(Reply::Attr(_))), "{reply:?}");
                    }
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(runtime.block_on(names(&service, session.volume)).len(), 1600);
    let figures = service.figures();
    assert!(figures.partition.syncs > 0, "the log was larger than its file: {figures:?}");
    assert!(figures.latency.buckets.iter().map(|(_, count)| count).sum::<u64>() >= 1600);
}

#[test]
fn what_is_not_a_service_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Service::open(folder.path(), small()), Err(OpenError::Missing { .. })));
    std::fs::create_dir(folder.path().join("meta.new")).unwrap();
    std::fs::write(folder.path().join("meta.new/raft.log"), b"half").unwrap();
    assert!(!Service::exists(folder.path()));
    Service::create(folder.path(), &small()).unwrap();
    let used = || Options { used: true, ..small() };
    let empty = Service::open(folder.path(), used());
    assert!(matches!(empty, Err(OpenError::Empty { .. })), "nothing begins anew in what was used");
    let service = Service::open(folder.path(), small()).unwrap();
    drop(service);
    let service = Service::open(folder.path(), used()).unwrap();
    assert!(matches!(Service::open(folder.path(), small()), Err(OpenError::Disk(_))), "it is in use");
    drop(service);
    let log = folder.path().join("meta/raft.log");
    let whole = std::fs::read(&log).unwrap();
    let mut rotten = whole.clone();
    rotten[20] ^= 1;
    std::fs::write(&log, &rotten).unwrap();
    drop(Service::open(folder.path(), small()).expect("the second copy serves"));
    let end = rotten.len() - 4096;
    rotten[end + 20] ^= 1;
    std::fs::write(&log, &rotten).unwrap();
    assert!(matches!(Service::open(folder.path(), small()), Err(OpenError::Header { .. })));
    std::fs::write(&log, &whole[..8192]).unwrap();
    assert!(Service::open(folder.path(), small()).is_err(), "a truncated log");
}
