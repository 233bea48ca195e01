//! The same store on a file, by both ways to the kernel.

use crate::bench::{assert_clean, content, get, id, put, small};
use clock::SystemClock;
use device::{Backend, create_disk_file, grow_disk_file, open_disk};
use std::path::Path;
use std::sync::Arc;
use store::{CloseError, FragmentStore, OpenOptions, RecoveryReport, Store};
use tokio::task::JoinHandle;

const BYTES: u64 = 24 << 20;

fn device(path: &Path, backend: Backend) -> device::FileDisk {
    let options = device::OpenOptions { backend, ..device::OpenOptions::default() };
    open_disk(path, options).expect("a disk")
}

async fn open(path: &Path, backend: Backend) -> (Store, JoinHandle<Result<(), CloseError>>, RecoveryReport) {
    let dev = Arc::new(device(path, backend));
    let opened = store::open(dev, Arc::new(SystemClock::new()), OpenOptions::default()).await;
    let (store, driver, report) = opened.expect("open");
    (store, tokio::spawn(driver.run()), report)
}

async fn live(backend: Backend) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk");
    create_disk_file(&path, BYTES).expect("a file");
    store::format(&device(&path, backend), &small()).await.expect("format");
    let (store, driver, _) = open(&path, backend).await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..40 {
                    let counter = writer * 1000 + n;
                    let len = 1 + (counter as usize * 7919) % 60_000;
                    put(&store, counter, &content(counter, 0, len)).await.expect("put");
                    assert_eq!(get(&store, counter).await, Ok(content(counter, 0, len)));
                    if n % 2 == 1 {
                        store.delete(vec![id(counter)]).await.expect("delete");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    assert_clean(&store).await;
    // As a process that is killed: the driver goes, nothing is closed.
    driver.abort();
    assert!(driver.await.is_err());
    drop(store);

    grow_disk_file(&path, 2 * BYTES).expect("a larger file");
    store::grow(&device(&path, backend), 2 * BYTES).await.expect("grow");
    let (store, driver, report) = open(&path, backend).await;
    assert_eq!((report.fragments, report.undone, report.was_closed), (160, vec![], false));
    assert_clean(&store).await;
    store.close().await.expect("close");
    driver.await.expect("no panic").expect("an orderly end");
    drop(store);
    let (store, _driver, report) = open(&path, backend).await;
    assert_eq!((report.fragments, report.from_checkpoint, report.replayed), (160, 160, 0));
    assert!(store.capacity() > BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_by_io_uring_or_what_there_is() {
    live(Backend::Auto).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_by_threads() {
    live(Backend::Threads).await;
}
