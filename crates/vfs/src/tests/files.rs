//! Files: data, attributes, what may be remembered of them.

use std::time::Duration;

use namespace::{Answer, FallocateMode, NewKind, SetAttr, SetTime};
use types::{Errno, Ino, Nanos};

use super::bench::{Bench, READ_WRITE};
use crate::{Op, OpenFlags, Outcome, RenameFlags};

#[tokio::test]
async fn written_data_shows_at_once_and_is_durable_after_fsync() {
    let mut bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 10_000, b"end").await.expect("write");
    bench.write(ino, handle, 0, b"start").await.expect("write");
    assert_eq!(bench.attr(ino).await.size, 10_003);
    assert_eq!(bench.read(ino, handle, 9_999, 100).await.expect("read"), b"\0end");
    assert!(matches!(bench.row(ino).await, Answer::Attr(attr) if attr.size == 0), "not flushed yet");
    let shown = bench.attr(ino).await;
    bench.fsync(ino, handle).await.expect("fsync");
    let stored = bench.attr(ino).await;
    assert_eq!((shown.size, shown.mtime), (stored.size, stored.mtime), "a flush changes nothing that shows");
    bench.write(ino, handle, 0, b"LOST").await.expect("write");
    bench.power_cut().await;
    let handle = bench.open(ino).await;
    assert_eq!(bench.read(ino, handle, 0, 6).await.expect("read"), b"start\0");
    assert_eq!(bench.read(ino, handle, 10_000, 6).await.expect("read"), b"end");
    assert_eq!(bench.read(ino, handle, 20_000, 6).await.expect("read"), b"");
}

#[tokio::test]
async fn a_synchronous_write_is_durable_when_it_returns() {
    let mut bench = Bench::new().await;
    let ino = bench.make(Ino::ROOT, "file", NewKind::File).await;
    let handle = bench.open_as(ino, OpenFlags { sync: true, ..READ_WRITE }).await;
    bench.write(ino, handle, 0, b"durable").await.expect("write");
    bench.power_cut().await;
    let handle = bench.open(ino).await;
    assert_eq!(bench.read(ino, handle, 0, 100).await.expect("read"), b"durable");
}

#[tokio::test]
async fn a_file_that_replaces_another_is_whole_under_its_name() {
    let mut bench = Bench::new().await;
    let (old, handle) = bench.create("file").await;
    bench.write(old, handle, 0, b"old").await.expect("write");
    bench.fsync(old, handle).await.expect("fsync");
    let (new, handle) = bench.create("new").await;
    bench.write(new, handle, 0, &[4; 9000]).await.expect("write");
    let (parent, new_parent, flags) = (Ino::ROOT, Ino::ROOT, RenameFlags::default());
    let (name, new_name) = (b"new".to_vec(), b"file".to_vec());
    bench.run(Op::Rename { parent, name, new_parent, new_name, flags }).await.expect("rename");
    // The name is to be durable; nobody asks for the bytes.
    bench.run(Op::FsyncDir { ino: Ino::ROOT, handle, data_only: false }).await.expect("fsync");
    bench.power_cut().await;
    let there = bench.lookup(Ino::ROOT, "file").await.expect("the name is there");
    assert_eq!(there.ino, new);
    let handle = bench.open(new).await;
    assert!(bench.read(new, handle, 0, 10_000).await == Ok(vec![4; 9000]));
}

#[tokio::test]
async fn small_files_are_rows_and_large_ones_are_extents() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 0, &[1; 4096]).await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
    assert_eq!(bench.store.fragments(), 0);
    bench.write(ino, handle, 4096, &[2; 1]).await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
    assert_eq!(bench.store.fragments(), 1, "the block that is new");
    bench.write(ino, handle, 100, &[3; 1]).await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
    assert_eq!(bench.store.fragments(), 2, "what was inline");
    bench.write(ino, handle, 0, &vec![4; 3 << 20]).await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
    assert_eq!(bench.store.fragments(), 5);
    let bytes = bench.read(ino, handle, 0, 4 << 20).await.expect("read");
    assert!(bytes == vec![4; 3 << 20]);
}

#[tokio::test]
async fn one_grant_for_a_file_and_one_commit_for_a_flush() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    for n in 0..50 {
        bench.write(ino, handle, n * 1000, &[n as u8; 1000]).await.expect("write");
    }
    bench.fsync(ino, handle).await.expect("fsync");
    bench.write(ino, handle, 0, b"more").await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
    bench.fsync(ino, handle).await.expect("fsync");
    assert_eq!((bench.service.calls("GrantWrite"), bench.service.calls("Commit")), (1, 2));
}

#[tokio::test]
async fn a_file_that_is_emptied_needs_no_flush() {
    let mut bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 0, &[1; 9000]).await.expect("write");
    assert_eq!(bench.truncate(ino, 0).await.map(|attr| attr.size), Ok(0));
    assert_eq!((bench.service.calls("Commit"), bench.arena.record_count()), (0, 0));
    bench.write(ino, handle, 2, b"x").await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
    bench.power_cut().await;
    let handle = bench.open_as(ino, OpenFlags { truncate: false, ..READ_WRITE }).await;
    assert_eq!(bench.read(ino, handle, 0, 100).await.expect("read"), b"\0\0x");
    let handle = bench.open_as(ino, OpenFlags { truncate: true, ..READ_WRITE }).await;
    assert_eq!(bench.read(ino, handle, 0, 100).await.expect("read"), b"");
}

#[tokio::test]
async fn a_write_is_a_change_at_once_and_its_flush_is_none() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    let before = bench.attr(ino).await;
    bench.clock.advance(std::time::Duration::from_secs(1));
    bench.write(ino, handle, 0, &[1; 10_000]).await.expect("write");
    let written = bench.attr(ino).await;
    assert!(written.mtime > before.mtime && written.ctime == written.mtime, "{written:?}");
    bench.clock.advance(std::time::Duration::from_secs(1));
    bench.fsync(ino, handle).await.expect("fsync");
    let flushed = bench.attr(ino).await;
    assert_eq!((flushed.mtime, flushed.ctime), (written.mtime, written.ctime));
    let Answer::Attr(row) = bench.row(ino).await else { panic!("no row") };
    assert_eq!((row.mtime, row.ctime), (written.mtime, written.ctime));
}

#[tokio::test]
async fn errors_of_data() {
    let bench = Bench::new().await;
    let (file, both) = bench.create("file").await;
    let dir = bench.make(Ino::ROOT, "dir", NewKind::Directory).await;
    let reader = bench.open_as(file, OpenFlags { write: false, ..READ_WRITE }).await;
    let writer = bench.open_as(file, OpenFlags { read: false, ..READ_WRITE }).await;
    let write = |ino, handle, offset| Op::Write { ino, handle, offset, data: vec![1; 10], kill_priv: false };
    let allocate =
        |handle, offset, len| Op::Fallocate { ino: file, handle, mode: FallocateMode::Allocate, offset, len };
    let size = |ino, size| Op::SetAttr {
        ino,
        set: SetAttr { size: Some(size), ..SetAttr::default() },
        kill_priv: false,
    };
    let top = i64::MAX as u64;
    let cases = [
        (write(file, reader, 0), Errno::EBADF),
        (Op::Read { ino: file, handle: writer, offset: 0, len: 1 }, Errno::EBADF),
        (write(dir, both, 0), Errno::EISDIR),
        (Op::Read { ino: dir, handle: both, offset: 0, len: 1 }, Errno::EISDIR),
        (write(file, both, top), Errno::EFBIG),
        (write(file, both, u64::MAX - 3), Errno::EFBIG),
        (allocate(reader, 0, 1), Errno::EBADF),
        (allocate(both, 0, 0), Errno::EINVAL),
        (allocate(both, top, 1), Errno::EFBIG),
        (size(file, top + 1), Errno::EFBIG),
        (size(dir, 0), Errno::EISDIR),
        (size(Ino(999), 0), Errno::ESTALE),
    ];
    for (op, errno) in cases {
        assert_eq!(bench.run(op.clone()).await, Err(errno), "{op:?}");
    }
    assert_eq!(bench.write(file, both, 0, b"").await, Ok(0));
    assert_eq!(bench.attr(file).await.size, 0);
}

#[tokio::test]
async fn attributes_are_remembered_only_while_nothing_is_to_come() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    let ttl = async || bench.attr_ttl(ino).await.expect("attributes").1;
    assert!(ttl().await > Duration::ZERO);
    bench.write(ino, handle, 0, b"data").await.expect("write");
    assert_eq!(ttl().await, Duration::ZERO, "times will be the server's");
    bench.fsync(ino, handle).await.expect("fsync");
    assert!(ttl().await > Duration::ZERO);
    let op = Op::ReadDir { ino: Ino::ROOT, handle, after: 0, max: 9, plus: true };
    bench.write(ino, handle, 0, b"more").await.expect("write");
    let listed = bench.run(op).await;
    assert!(
        matches!(&listed, Ok(Outcome::Entries(entries))
        if entries[2].ttl.attr == Duration::ZERO && entries[2].entry.attr.is_some_and(|attr| attr.size == 4)),
        "{listed:?}"
    );
}

#[tokio::test]
async fn reading_moves_the_atime_once() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 0, b"data").await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
    bench.clock.advance(Duration::from_secs(5));
    let before = bench.attr(ino).await;
    let reader = OpenFlags { write: false, ..READ_WRITE };
    let opened = bench.run(Op::Open { ino, flags: reader }).await;
    assert!(matches!(opened, Ok(Outcome::Opened { keep_cache: true, .. })), "{opened:?}");
    let (shown, ttl) = bench.attr_ttl(ino).await.expect("attributes");
    assert!(shown.atime > before.mtime && ttl > Duration::ZERO, "it is stored as it is shown");
    bench.vfs.run_flusher(std::future::ready(())).await;
    let stored = bench.attr(ino).await;
    assert_eq!(stored, shown);
    assert_eq!(bench.row(ino).await, Answer::Attr(stored));
    let opened = bench.run(Op::Open { ino, flags: reader }).await;
    assert!(matches!(opened, Ok(Outcome::Opened { keep_cache: true, .. })), "{opened:?}");
    bench.read(ino, handle, 0, 1).await.expect("read");
    bench.vfs.run_flusher(std::future::ready(())).await;
    assert_eq!(bench.service.calls("Touch"), 1, "it is newer than the data now");

    // A time that is set after a read is not taken back by it.
    bench.write(ino, handle, 0, b"D").await.expect("write");
    bench.clock.advance(Duration::from_secs(5));
    bench.read(ino, handle, 0, 1).await.expect("read");
    let set = SetAttr { atime: Some(SetTime::To(Nanos(77))), ..SetAttr::default() };
    assert_eq!(bench.set(ino, set).await.map(|attr| attr.atime), Ok(Nanos(77)));
    bench.vfs.run_flusher(std::future::ready(())).await;
    assert_eq!(bench.attr(ino).await.atime, Nanos(77));
}

/// What is closed within moments shares the flushes of the disk, and waits for nothing else.
#[tokio::test]
async fn closed_files_gather_for_a_moment_and_are_flushed_together() {
    let bench = Bench::new().await;
    for name in ["one", "two"] {
        let (ino, handle) = bench.create(name).await;
        bench.write(ino, handle, 0, b"data").await.expect("write");
        bench.release(ino, handle).await;
        bench.vfs.run_flusher(std::future::ready(())).await;
        bench.clock.advance(Duration::from_millis(6));
    }
    assert_eq!(bench.arena.record_count(), 2, "they gather");
    bench.vfs.run_flusher(std::future::ready(())).await;
    assert_eq!(bench.arena.record_count(), 0, "the first was closed 12 ms ago");
}

#[tokio::test]
async fn a_write_without_the_right_to_keep_them_clears_set_id_bits() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    for (before, after) in [(0o6755, 0o755), (0o6745, 0o2745)] {
        bench.set(ino, mode(before)).await.expect("chmod");
        let op = Op::Write { ino, handle, offset: 0, data: vec![1], kill_priv: true };
        bench.run_as(op, 7).await.expect("write");
        assert_eq!(bench.attr(ino).await.mode, after, "at once");
        bench.fsync(ino, handle).await.expect("fsync");
        assert_eq!(bench.attr(ino).await.mode, after);
        assert!(matches!(bench.row(ino).await, Answer::Attr(attr) if attr.mode == after));
    }
    let op = Op::Write { ino, handle, offset: 0, data: vec![1], kill_priv: true };
    bench.run_as(op, 7).await.expect("write");
    bench.set(ino, mode(0o4755)).await.expect("chmod");
    bench.fsync(ino, handle).await.expect("fsync");
    assert_eq!(bench.attr(ino).await.mode, 0o4755, "an earlier write does not clear what is set later");
}

#[tokio::test]
async fn a_request_that_comes_twice_is_accepted_once() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    let ctx = bench.ctx(0);
    let write = |data: &[u8]| Op::Write { ino, handle, offset: 0, data: data.to_vec(), kill_priv: false };
    assert_eq!(bench.vfs.handle(write(b"first"), ctx).await, Ok(Outcome::Written(5)));
    bench.write(ino, handle, 0, b"later").await.expect("write");
    assert_eq!(bench.vfs.handle(write(b"first"), ctx).await, Ok(Outcome::Written(5)));
    assert_eq!(bench.read(ino, handle, 0, 9).await.expect("read"), b"later");
    assert_eq!(bench.arena.record_count(), 2);
}

#[tokio::test]
async fn what_is_cached_is_answered_at_the_first_poll() {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 0, b"grant").await.expect("write");
    bench.service.slow.store(true, std::sync::atomic::Ordering::Relaxed);
    let ops = [
        Op::GetAttr { ino },
        Op::Write { ino, handle, offset: 5, data: vec![1; 9000], kill_priv: false },
        Op::Read { ino, handle, offset: 0, len: 100 },
        Op::Open { ino, flags: READ_WRITE },
        Op::Flush { ino, handle },
        Op::Forget { ino, count: 0 },
    ];
    for op in ops {
        let mut future = pin!(bench.vfs.handle(op.clone(), bench.ctx(0)));
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(_))), "{op:?}: {polled:?}");
    }
}

#[tokio::test]
async fn a_sequential_reader_finds_what_comes_next_in_memory() {
    const PAGE: u64 = 128 << 10;
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    let page = |at: u64| vec![at as u8 + 1; PAGE as usize];
    for at in 0..64 {
        bench.write(ino, handle, at * PAGE, &page(at)).await.expect("write");
    }
    bench.fsync(ino, handle).await.expect("fsync");
    for at in 0..12 {
        assert!(bench.read(ino, handle, at * PAGE, PAGE as u32).await == Ok(page(at)), "{at}");
        // What was begun beside the read is done.
        tokio::task::yield_now().await;
    }
    bench.store.set_broken(true);
    for at in 12..24 {
        assert!(bench.read(ino, handle, at * PAGE, PAGE as u32).await == Ok(page(at)), "{at}");
    }
    assert_eq!(
        bench.read(ino, handle, 60 * PAGE, PAGE as u32).await,
        Err(Errno::EIO),
        "this is not in memory"
    );
    bench.store.set_broken(false);

    // What is in memory is of the extents, not of the file.
    bench.write(ino, handle, 5 * PAGE, &page(99)).await.expect("write");
    bench.fsync(ino, handle).await.expect("fsync");
    for at in 0..64 {
        let expected = if at == 5 { page(99) } else { page(at) };
        assert!(bench.read(ino, handle, at * PAGE, PAGE as u32).await == Ok(expected), "{at}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn times_that_are_set_stay_although_what_was_written_before_is_stored_later() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    bench.write(ino, handle, 0, &[1; 9000]).await.expect("write");
    let old = Nanos(5_000_000_000);
    let set = SetAttr { mtime: Some(SetTime::To(old)), ..SetAttr::default() };
    assert_eq!(bench.set(ino, set).await.expect("utimes").mtime, old);
    assert_eq!(bench.service.calls("Commit"), 0, "nothing was stored for it");
    let shown = bench.attr(ino).await;
    assert_eq!((shown.mtime, shown.size), (old, 9000));
    bench.fsync(ino, handle).await.expect("fsync");
    let stored = bench.attr(ino).await;
    assert_eq!((stored.mtime, stored.ctime), (old, shown.ctime));
    assert!(matches!(bench.row(ino).await, Answer::Attr(attr) if attr.mtime == old));
    // Some before, some after: the later ones count.
    bench.write(ino, handle, 0, &[2; 10]).await.expect("write");
    bench.set(ino, set).await.expect("utimes");
    bench.clock.advance(Duration::from_secs(1));
    bench.write(ino, handle, 20, &[3; 10]).await.expect("write");
    let written = bench.attr(ino).await.mtime;
    assert!(written > old);
    bench.fsync(ino, handle).await.expect("fsync");
    assert!(matches!(bench.row(ino).await, Answer::Attr(attr) if attr.mtime == written));
}
