use std::fs;
use std::path::Path;

use meta_client::MetaService;
use namespace::{Command, Envelope, Reply};
use types::{Epoch, Nanos};

use super::service::{bytes_of, disk, options, rows_of};
use super::written;
use crate::backup::{ReadError, Reader};
use crate::restore::{RestoreError, Restored};
use crate::{OpenError, Options, Service};

fn build(data: &Path, backup: &[u8]) -> Result<Restored, RestoreError> {
    Restored::build(data, &options(), Reader::open(backup)?, &mut |_| {})
}

/// A data directory whose service went on behind its backup, and the backup.
async fn history() -> (tempfile::TempDir, Vec<u8>, crate::Position) {
    let folder = tempfile::tempdir().unwrap();
    Service::create(folder.path(), &options()).unwrap();
    let service = Service::open(folder.path(), options()).unwrap();
    for n in 0..30 {
        service.call(disk(n, n)).await.unwrap();
    }
    let backup = service.backup([7; 16], Nanos(5)).unwrap();
    let position = backup.head().position;
    let backup = bytes_of(backup, || {});
    for n in 0..30 {
        service.call(disk(n, 99)).await.unwrap();
    }
    assert!(service.close().await.closed);
    (folder, backup, position)
}

#[tokio::test]
async fn a_restored_service_goes_on_behind_the_backup() {
    let (folder, backup, position) = history().await;
    let before = rows_of(folder.path());
    let restored = build(folder.path(), &backup).unwrap();
    assert!(rows_of(folder.path()) == before, "nothing has changed yet");
    let service = Service::open(restored.path(), Options { used: true, ..options() }).unwrap();
    let command = Command::Restored { epoch: Epoch(5), sessions: Vec::new(), keep_until: Nanos(0) };
    assert_eq!(service.call(Envelope { slot: None, command }).await.unwrap(), Reply::Done);
    let first = service.figures().partition.applied.unwrap();
    assert!(first.index > position.index && first.term > position.term, "{first:?} behind {position:?}");
    assert!(service.close().await.closed);
    drop(service);
    let kept = restored.install().unwrap().expect("there were others");
    let names = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!((names(&kept), names(folder.path())), (3, 2), "the old ones, and nothing that is left over");
    // As after any start and stop.
    let service = Service::open(folder.path(), Options { used: true, ..options() }).unwrap();
    service.call(disk(1, 7)).await.unwrap();
    drop(service);
    let rows = rows_of(folder.path());
    let held = |n: u64| {
        let (_, value) =
            rows.iter().find(|(key, _)| key[5] == b'd' && key[6..14] == n.to_be_bytes()).unwrap();
        u64::from_le_bytes(value[9..17].try_into().unwrap())
    };
    assert_eq!((held(0), held(1), held(29)), (0, 7, 29), "the backup's, but for what was changed since");
    // The old ones are whole where they are now.
    let again = tempfile::tempdir().unwrap();
    fs::rename(&kept, again.path().join("meta")).unwrap();
    assert!(rows_of(again.path()) == before);
    let second = build(folder.path(), &backup).unwrap().install().unwrap();
    assert!(second.is_some_and(|path| path.ends_with("meta.replaced-1")), "the first free name");
}

#[tokio::test]
async fn a_restore_that_is_cut_off_leaves_the_old_the_new_or_says_so() {
    let (folder, backup, _) = history().await;
    let data = folder.path();
    let before = rows_of(data);
    // In the middle of the building, with half a backup: the old ones are there.
    let half = build(data, &backup[..backup.len() - 1]).err().expect("half a backup is no backup");
    assert!(matches!(half, RestoreError::Read(ReadError::Short { .. })), "{half}");
    assert!(rows_of(data) == before && !Service::was_cut_off(data));
    // Built, not installed.
    drop(build(data, &backup).unwrap());
    assert!(rows_of(data) == before && !Service::was_cut_off(data));
    // Between the two renames.
    let built = build(data, &backup).unwrap();
    fs::rename(data.join("meta"), data.join("meta.replaced-1")).unwrap();
    drop(built);
    assert!(Service::was_cut_off(data));
    assert!(matches!(Service::open(data, options()), Err(OpenError::Missing { .. })));
    // Done again, it is whole.
    assert_eq!(
        build(data, &backup).unwrap().install().unwrap(),
        None,
        "the old ones have their name already"
    );
    assert!(!Service::was_cut_off(data));
    assert!(rows_of(data) != before);
    drop(Service::open(data, options()).unwrap());
}

#[tokio::test]
async fn a_backup_with_rows_of_another_table_is_refused() {
    let (folder, ..) = history().await;
    let (foreign, _) = written(&[(vec![0, 0, 0, 0, 0, b'A'], vec![1; 24])]);
    assert!(matches!(build(folder.path(), &foreign), Err(RestoreError::Table { table: 0 })));
}
