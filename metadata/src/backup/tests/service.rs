use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use meta_client::MetaService;
use namespace::{Command, Envelope, Rows};
use types::{Nanos, VolumeId};

use super::{Row, read};
use crate::backup::{Backup, END, FIRST};
use crate::offline::Offline;
use crate::{Beat, Options, Service};

fn options() -> Options {
    Options {
        log_bytes: 4 << 20,
        segment_bytes: 256 << 10,
        reserve_bytes: 1 << 20,
        read_only_below: 1 << 20,
        beat: Beat { bytes: 1 << 20, commands: 50, span: Duration::from_millis(200) },
        ..Options::default()
    }
}

fn disk(n: u64, bytes: u64) -> Envelope {
    let mut disk = [0; 16];
    disk[..8].copy_from_slice(&n.to_be_bytes());
    Envelope { slot: None, command: Command::AddDisk { disk, bytes } }
}

fn bytes_of(backup: Backup, mut between: impl FnMut()) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = backup.write(&mut |chunk| {
        bytes.extend(chunk);
        between();
        Ok(())
    });
    assert_eq!(written.unwrap().bytes, bytes.len() as u64);
    bytes
}

fn rows_of(data: &Path) -> Vec<Row> {
    let offline = Offline::open(data).unwrap();
    let mut rows = Vec::new();
    offline
        .scan(&FIRST, &END, false, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            true
        })
        .unwrap();
    rows
}

#[tokio::test]
async fn a_backup_of_a_running_and_of_a_stopped_service_hold_the_same() {
    let folder = tempfile::tempdir().unwrap();
    Service::create(folder.path(), &options()).unwrap();
    let service = Service::open(folder.path(), options()).unwrap();
    for n in 0..300 {
        service.call(disk(n % 40, n)).await.unwrap();
    }
    let running = service.backup([7; 16], Nanos(5)).unwrap();
    let running = bytes_of(running, || {});
    // As after a crash: part of it is in the log only.
    drop(service);
    let stopped = Backup::of_stopped(Offline::open(folder.path()).unwrap(), [7; 16], Nanos(5)).unwrap();
    let stopped = bytes_of(stopped, || {});
    assert!(running == stopped);
    let (head, rows, _) = read(&running).unwrap();
    assert_eq!((head.cluster, head.made), ([7; 16], Nanos(5)));
    assert!(rows == rows_of(folder.path()));
    assert!(rows.len() > 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_of_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    Service::create(folder.path(), &options()).unwrap();
    let service = Service::open(folder.path(), options()).unwrap();
    for n in 0..200 {
        let name = format!("{n:063}").into_bytes();
        let create = Command::CreateVolume {
            name,
            limit: n,
            hash_key: [1; 16],
            mode: 0o755,
            cred: namespace::Cred { uid: 0, gid: 0 },
        };
        service.call(Envelope { slot: None, command: create }).await.unwrap();
    }
    let stop = AtomicBool::new(false);
    let (begun, syncs) = (service.figures().partition.syncs, AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Every limit is raised by one, in order, round by round: at any moment all are `round` or `round + 1` above
        // their first, and once one is not raised, none behind it is.
        let load = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                for n in 0..200u32 {
                    let command =
                        Command::SetLimit { volume: VolumeId(n + 1), limit: u64::from(n) + round * 10_000 };
                    runtime.block_on(service.call(Envelope { slot: None, command })).unwrap();
                    if service.figures().partition.syncs > begun + 6 {
                        syncs.store(true, Ordering::Release);
                    }
                }
            }
        });
        let backup = service.backup([7; 16], Nanos(5)).unwrap();
        let position = backup.head().position;
        let bytes = bytes_of(backup, || {
            while !syncs.load(Ordering::Acquire) && !load.is_finished() {
                std::thread::yield_now();
            }
        });
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap();
        assert!(syncs.load(Ordering::Acquire), "more syncs than any view lives through");
        let (head, rows, _) = read(&bytes).unwrap();
        assert_eq!(head.position, position);
        let memory = namespace::MemoryRows(rows.into_iter().collect());
        let limits: Vec<u64> = match namespace::query(&memory, &namespace::Query::Volumes).unwrap() {
            namespace::Answer::Volumes(volumes) => {
                volumes.iter().map(|volume| volume.limit / 10_000).collect()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(limits.len(), 200);
        assert!(limits.is_sorted_by(|a, b| a >= b), "in order");
        assert!(limits[0] - limits[199] <= 1, "of one moment: {} and {}", limits[0], limits[199]);
    });
}
