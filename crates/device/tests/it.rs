//! What every kind of disk has to do: the same suite for io_uring, threads and the simulated disk, then files and devices.

use device::{
    Backend, BlockDev, CreateError, Durability, FileDisk, IoBuf, IoClass, IoError, OpenError, OpenOptions,
    SimDisk, create_disk_file, grow_disk_file, open_disk,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use types::ByteOffset;

const MIB: u64 = 1 << 20;

fn options(backend: Backend) -> OpenOptions {
    OpenOptions { backend, ..OpenOptions::default() }
}

/// Backends that this machine has: where seccomp forbids io_uring, its half of the suite says so and threads run alone.
fn backends() -> Vec<Backend> {
    let (_folder, path) = file(MIB);
    match open_disk(&path, options(Backend::IoUring)) {
        Ok(_) => vec![Backend::IoUring, Backend::Threads],
        Err(OpenError::Backend { source, .. }) => {
            eprintln!("io_uring is not to be had here: {source}");
            vec![Backend::Threads]
        }
        Err(error) => panic!("{error}"),
    }
}

fn file(bytes: u64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk");
    create_disk_file(&path, bytes).expect("a disk file");
    (folder, path)
}

/// Runs `check` on a disk of 8 MiB of every kind, around the page cache and through it.
fn on_every_disk<F: Future<Output = ()>>(check: impl Fn(Arc<dyn BlockDev>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(check(Arc::new(SimDisk::new(8 * MIB))));
    for backend in backends() {
        for direct in [true, false] {
            let (_folder, path) = file(8 * MIB);
            let disk = open_disk(&path, OpenOptions { direct, ..options(backend) }).expect("open");
            assert_eq!(disk.backend(), backend);
            assert!(direct || !disk.is_direct());
            runtime.block_on(check(Arc::new(disk)));
        }
    }
}

fn filled(blocks: usize, fill: u8) -> IoBuf {
    IoBuf::from_bytes(&vec![fill; blocks * 4096])
}

async fn read(disk: &dyn BlockDev, block: u64, blocks: usize) -> Result<IoBuf, IoError> {
    disk.read(ByteOffset(block * 4096), IoBuf::zeroed(blocks * 4096), IoClass::Read).await
}

async fn write(
    disk: &dyn BlockDev,
    block: u64,
    bufs: Vec<IoBuf>,
    sync: Durability,
) -> Result<Vec<IoBuf>, IoError> {
    disk.write(ByteOffset(block * 4096), bufs, sync, IoClass::Write).await
}

#[test]
fn what_is_written_is_read_and_buffers_come_back() {
    on_every_disk(async |disk| {
        assert!(
            read(&*disk, 0, 512).await.expect("read").iter().all(|byte| *byte == 0),
            "a new disk is zero"
        );
        let bufs = vec![filled(1, 1), filled(3, 2), filled(100, 3)];
        let back = write(&*disk, 5, bufs, Durability::Buffered).await.expect("write");
        assert_eq!(
            back.iter().map(|buf| (buf.len() / 4096, buf[0])).collect::<Vec<_>>(),
            [(1, 1), (3, 2), (100, 3)]
        );
        disk.flush().await.expect("flush");
        write(&*disk, 6, vec![filled(1, 9)], Durability::Durable).await.expect("durable write");
        let buf = read(&*disk, 4, 106).await.expect("read");
        let fills: Vec<u8> = buf.chunks(4096).map(|block| block[4095]).collect();
        assert_eq!(fills[..6], [0, 1, 9, 2, 2, 3]);
        assert_eq!(fills[104..], [3, 0]);
        let end = disk.geometry().bytes / 4096;
        assert_eq!(end, 2048);
        write(&*disk, end - 1, vec![filled(1, 7)], Durability::Durable).await.expect("the last block");
        assert_eq!(read(&*disk, end - 1, 1).await.expect("read")[17], 7);
    });
}

#[test]
fn what_does_not_fit_is_refused_and_harms_nothing() {
    on_every_disk(async |disk| {
        let misfit = |result: Result<(), IoError>| {
            assert!(matches!(result, Err(IoError::Misfit { .. })), "{result:?}")
        };
        let too_long = disk.geometry().max_io as usize / 4096 + 1;
        misfit(disk.read(ByteOffset(100), IoBuf::zeroed(4096), IoClass::Read).await.map(drop));
        misfit(read(&*disk, 0, 0).await.map(drop));
        misfit(read(&*disk, 0, too_long).await.map(drop));
        misfit(read(&*disk, 2047, 2).await.map(drop));
        misfit(disk.read(ByteOffset(u64::MAX - 4095), IoBuf::zeroed(8192), IoClass::Read).await.map(drop));
        misfit(write(&*disk, 2048, vec![filled(1, 1)], Durability::Buffered).await.map(drop));
        misfit(write(&*disk, 0, vec![], Durability::Buffered).await.map(drop));
        misfit(write(&*disk, 0, vec![filled(1, 1), filled(0, 1)], Durability::Durable).await.map(drop));
        misfit(write(&*disk, 0, vec![filled(too_long, 1)], Durability::Durable).await.map(drop));
        assert!(read(&*disk, 0, 4).await.expect("still there").iter().all(|byte| *byte == 0));
        write(&*disk, 0, vec![filled(too_long - 1, 1)], Durability::Durable).await.expect("the longest");
    });
}

#[test]
fn many_operations_fly_at_once_and_none_needs_to_be_awaited() {
    on_every_disk(async |disk| {
        let writes: Vec<_> = (0..600)
            .map(|n| {
                (
                    n,
                    disk.write(
                        ByteOffset(n * 4096),
                        vec![filled(1, n as u8)],
                        Durability::Buffered,
                        IoClass::Write,
                    ),
                )
            })
            .collect();
        // A third is dropped: those are written too.
        for (n, write) in writes {
            if n % 3 > 0 {
                write.await.expect("write");
            }
        }
        let flushes: Vec<_> = (0..20).map(|_| disk.flush()).collect();
        for flush in flushes {
            flush.await.expect("flush");
        }
        let reads: Vec<_> = (0..600).map(|n| read(&*disk, n, 1)).collect();
        for (n, read) in reads.into_iter().enumerate() {
            // A dropped write may still be under way: only awaited ones are known to be there.
            let buf = read.await.expect("read");
            assert!(buf[1] == n as u8 || (n % 3 == 0 && buf[1] == 0), "block {n}");
        }
    });
}

#[test]
fn a_dropped_disk_has_done_what_it_was_asked_for_and_is_free_at_once() {
    for backend in backends() {
        let (_folder, path) = file(4 * MIB);
        for round in 0..10_u8 {
            let disk = open_disk(&path, options(backend)).expect("free");
            for n in 0..300 {
                drop(disk.write(
                    ByteOffset(n * 4096),
                    vec![filled(1, round + 1)],
                    Durability::Buffered,
                    IoClass::Write,
                ));
            }
            drop(disk);
            let bytes = std::fs::read(&path).expect("read");
            assert!(bytes[..300 * 4096].iter().all(|byte| *byte == round + 1), "{backend:?}, round {round}");
        }
    }
}

#[test]
fn the_last_owner_may_go_on_the_disks_own_thread() {
    struct LastOwner(std::sync::Mutex<Option<FileDisk>>, std::sync::mpsc::Sender<()>);
    impl std::task::Wake for LastOwner {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().expect("no panic before").take());
            self.1.send(()).expect("the test waits");
        }
    }
    for backend in backends() {
        let (_folder, path) = file(MIB);
        let disk = open_disk(&path, options(backend)).expect("open");
        let (gone, is_gone) = std::sync::mpsc::channel();
        let mut flush = disk.flush();
        let waker = Arc::new(LastOwner(std::sync::Mutex::new(Some(disk)), gone));
        let task = std::task::Waker::from(Arc::clone(&waker));
        if flush.as_mut().poll(&mut std::task::Context::from_waker(&task)).is_ready() {
            continue;
        }
        is_gone.recv().expect("it was woken");
        open_disk(&path, options(backend)).expect("free");
    }
}

#[test]
fn a_disk_that_fails_a_write_is_gone() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use std::os::fd::AsRawFd;
    for backend in backends() {
        let memory = memfd_create("disk", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memory");
        rustix::fs::ftruncate(&memory, MIB).expect("size");
        let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
        let disk = open_disk(&path, options(backend)).expect("open");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(write(&disk, 3, vec![filled(1, 1)], Durability::Durable)).expect("write");
        fcntl_add_seals(&memory, SealFlags::WRITE).expect("seal");
        let result = runtime.block_on(write(&disk, 4, vec![filled(1, 1)], Durability::Buffered)).map(drop);
        assert!(
            matches!(result, Err(IoError::Failed { op: "write", errno: types::Errno::EPERM, .. })),
            "{result:?}"
        );
        assert_eq!(runtime.block_on(read(&disk, 3, 1)).map(drop), Err(IoError::Gone));
        assert_eq!(runtime.block_on(disk.flush()), Err(IoError::Gone));
    }
}

#[test]
fn a_disk_that_fails_a_read_goes_on() {
    // A file that shrank answers reads with its end.
    for backend in backends() {
        let (_folder, path) = file(MIB);
        let disk = open_disk(&path, options(backend)).expect("open");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(0)).expect("shrink");
        let result = runtime.block_on(read(&disk, 3, 1)).map(drop);
        assert!(
            matches!(result, Err(IoError::Failed { op: "read", errno: types::Errno::EIO, .. })),
            "{result:?}"
        );
        runtime
            .block_on(write(&disk, 3, vec![filled(1, 1)], Durability::Durable))
            .expect("a failed read harms nothing");
    }
}

#[test]
fn a_disk_is_held_by_one_at_a_time() {
    let (_folder, path) = file(MIB);
    let disk = open_disk(&path, OpenOptions::default()).expect("open");
    assert!(matches!(open_disk(&path, OpenOptions::default()), Err(OpenError::Held { .. })));
    assert!(matches!(grow_disk_file(&path, 2 * MIB), Err(OpenError::Held { .. })));
    drop(disk);
    open_disk(&path, OpenOptions::default()).expect("free again");
}

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let open =
        |path: &Path| open_disk(path, OpenOptions { min_bytes: MIB, ..OpenOptions::default() }).map(drop);
    assert!(matches!(open(&at("none")), Err(OpenError::Missing { .. })));
    assert!(matches!(open(folder.path()), Err(OpenError::NotADisk { .. })));
    assert!(matches!(open(Path::new("/dev/null")), Err(OpenError::NotADisk { .. })));
    std::fs::write(at("small"), [0; 8192]).expect("a file");
    let error = open(&at("small")).expect_err("small");
    assert!(matches!(error, OpenError::TooSmall { .. }));
    assert!(error.to_string().ends_with("small has 8.0 KiB, but a disk needs at least 1.0 MiB"), "{error}");
    std::fs::write(at("odd"), vec![0; MIB as usize + 100]).expect("a file");
    let odd = open_disk(&at("odd"), OpenOptions::default()).expect("open");
    assert_eq!(odd.geometry().bytes, MIB, "a part of a block is not used");
}

#[test]
fn a_disk_file_is_created_whole_or_not_at_all_and_grows() {
    use std::os::unix::fs::MetadataExt;
    let (folder, path) = file(3 * MIB + 17);
    let stat = std::fs::metadata(&path).expect("stat");
    assert_eq!((stat.len(), stat.blocks() * 512 >= 3 * MIB), (3 * MIB, true), "its blocks are reserved");
    assert!(matches!(create_disk_file(&path, MIB), Err(CreateError::Exists { .. })));
    std::fs::write(&path, vec![7; 3 * MIB as usize]).expect("fill");
    grow_disk_file(&path, 5 * MIB).expect("grow");
    grow_disk_file(&path, 5 * MIB).expect("nothing to do");
    let bytes = std::fs::read(&path).expect("read");
    assert_eq!((bytes.len() as u64, bytes[3 * MIB as usize - 1], bytes[3 * MIB as usize]), (5 * MIB, 7, 0));
    assert!(matches!(grow_disk_file(&path, MIB), Err(OpenError::TooSmall { .. })));
    let huge = folder.path().join("huge");
    let error = create_disk_file(&huge, 1 << 50).expect_err("no filesystem here holds a pebibyte");
    assert!(matches!(error, CreateError::NoSpace { .. } | CreateError::Io { .. }), "{error}");
    assert!(!huge.exists(), "nothing is left behind");
    let before = std::fs::metadata(&path).expect("stat").len();
    grow_disk_file(&path, 1 << 50).expect_err("no filesystem here holds a pebibyte");
    assert_eq!(std::fs::metadata(&path).expect("stat").len(), before);
}

#[test]
fn in_a_scope_a_short_write_is_done_when_it_is_awaited() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for backend in backends() {
        let (_folder, path) = file(8 * MIB);
        let disk = open_disk(&path, OpenOptions { direct: false, ..options(backend) }).expect("open");
        let byte = |block: usize| std::fs::read(&path).expect("read the file")[block * 4096];
        let scope = helping::Scope::enter();
        let start = |block: u64| {
            disk.write(ByteOffset(block * 4096), vec![filled(1, 7)], Durability::Buffered, IoClass::Write)
        };
        // Whoever asks may hold a lock: nothing may wait for the disk here.
        let (done, dropped, late) = (start(1), start(2), start(3));
        assert_eq!([1, 2, 3].map(byte), [0, 0, 0]);
        runtime.block_on(done).expect("written");
        drop(dropped);
        runtime.block_on(disk.flush()).expect("flushed within the call");
        assert_eq!([1, 2, 3].map(byte), [7, 0, 0]);
        drop(disk);
        let late = runtime.block_on(late).map(drop);
        assert_eq!(late, Err(IoError::Gone), "the disk may be somebody else's now");
        drop(scope);
        assert_eq!([1, 2, 3].map(byte), [7, 0, 0]);
    }
}
