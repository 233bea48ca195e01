//! copy_file_range(2) and lseek(2), step by step.

use types::{Errno, Ino};

use super::bench::{Bench, READ_WRITE};
use crate::{Handle, Op, OpenFlags, Outcome, SeekTo};

const MIB: u64 = 1 << 20;

async fn copy(
    bench: &Bench,
    from: (Ino, Handle, u64),
    to: (Ino, Handle, u64),
    len: u64,
) -> Result<u64, Errno> {
    let (ino, handle, offset) = from;
    let (to, to_handle, to_offset) = to;
    match bench.run(Op::CopyRange { ino, handle, offset, to, to_handle, to_offset, len }).await? {
        Outcome::Written(bytes) => Ok(bytes.into()),
        other => panic!("{other:?}"),
    }
}

async fn seek(bench: &Bench, (ino, handle): (Ino, Handle), offset: u64, to: SeekTo) -> Result<u64, Errno> {
    match bench.run(Op::Seek { ino, handle, offset, to }).await? {
        Outcome::Offset(offset) => Ok(offset),
        other => panic!("{other:?}"),
    }
}

fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 4096) as u8 | 1).collect()
}

#[tokio::test]
async fn a_copy_stores_nothing_anew_and_is_the_callers_own() {
    let bench = Bench::new().await;
    let (from, handle) = bench.create("from").await;
    let (to, to_handle) = bench.create("to").await;
    let bytes = pattern(3 * MIB);
    bench.write(from, handle, 0, &bytes).await.expect("write");
    bench.fsync(from, handle).await.expect("fsync");
    let stored = bench.store.fragments();
    assert_eq!(copy(&bench, (from, handle, 0), (to, to_handle, 0), u64::MAX >> 1).await, Ok(3 * MIB));
    assert_eq!(bench.store.fragments(), stored, "no byte was stored again");
    bench.write(from, handle, 10, b"changed").await.expect("write");
    bench.write(to, to_handle, 2 * MIB, b"other").await.expect("write");
    bench.vfs.flush_everything().await.expect("flush");
    let mut expected = bytes;
    expected[2 << 20..][..5].copy_from_slice(b"other");
    assert!(bench.read(to, to_handle, 0, 4 << 20).await == Ok(expected), "neither file changes the other");
}

#[tokio::test]
async fn a_copy_lies_over_what_was_written_before_and_under_what_is_written_after() {
    let mut bench = Bench::new().await;
    let (from, handle) = bench.create("from").await;
    let (to, to_handle) = bench.create("to").await;
    let bytes = pattern(MIB);
    bench.write(from, handle, 0, &bytes).await.expect("write");
    bench.write(to, to_handle, 0, &[7; 1 << 20]).await.expect("write");
    let copied = copy(&bench, (from, handle, 0), (to, to_handle, 4096), MIB - 8192).await;
    assert_eq!(copied, Ok(MIB - 8192), "neither was flushed before");
    bench.write(to, to_handle, 5000, b"after").await.expect("write");
    bench.fsync(to, to_handle).await.expect("fsync");
    bench.power_cut().await;
    let mut expected = vec![7; 1 << 20];
    expected[4096..(1 << 20) - 4096].copy_from_slice(&bytes[..(1 << 20) - 8192]);
    expected[5000..5005].copy_from_slice(b"after");
    let handle = bench.open(to).await;
    assert!(bench.read(to, handle, 0, 2 << 20).await == Ok(expected));
}

#[tokio::test]
async fn small_files_and_first_blocks_are_copied_too() {
    let bench = Bench::new().await;
    let (from, handle) = bench.create("from").await;
    let (to, to_handle) = bench.create("to").await;
    bench.write(from, handle, 0, b"small").await.expect("write");
    assert_eq!(copy(&bench, (from, handle, 1), (to, to_handle, 2), 100).await, Ok(4));
    assert_eq!(bench.read(to, to_handle, 0, 100).await.as_deref(), Ok(&b"\0\0mall"[..]));
    bench.fsync(from, handle).await.expect("fsync");
    bench.truncate(from, 100_000).await.expect("the first bytes stay in their row");
    bench.write(from, handle, 50_000, &[5; 50_000]).await.expect("write");
    bench.fsync(to, to_handle).await.expect("fsync");
    assert_eq!(copy(&bench, (from, handle, 0), (to, to_handle, 3), 100_000).await, Ok(100_000));
    let got = bench.read(to, to_handle, 0, 200_000).await.expect("read");
    let want = bench.read(from, handle, 0, 200_000).await.expect("read");
    assert!(got[..3] == *b"\0\0m" && got[3..] == want);
}

#[tokio::test]
async fn what_copy_file_range_refuses() {
    let bench = Bench::new().await;
    let (file, handle) = bench.create("file").await;
    bench.write(file, handle, 0, &pattern(MIB)).await.expect("write");
    let onto_itself = copy(&bench, (file, handle, 0), (file, handle, 4096), 8192).await;
    assert_eq!(onto_itself, Err(Errno::EINVAL));
    assert_eq!(copy(&bench, (file, handle, 0), (file, handle, MIB), MIB).await, Ok(MIB));
    let far = (file, handle, i64::MAX as u64 - 5);
    assert_eq!(copy(&bench, (file, handle, 0), far, 10).await, Err(Errno::EFBIG));
    let read_only = bench.open_as(file, OpenFlags { write: false, ..READ_WRITE }).await;
    assert_eq!(copy(&bench, (file, handle, 0), (file, read_only, 9 * MIB), 10).await, Err(Errno::EBADF));
    assert_eq!(copy(&bench, (file, handle, 5 * MIB), (file, handle, 0), 10).await, Ok(0), "behind the end");
}

#[tokio::test]
async fn data_and_holes_are_told_whether_flushed_or_not() {
    let bench = Bench::new().await;
    let (ino, handle) = bench.create("file").await;
    let file = (ino, handle);
    bench.write(ino, handle, MIB, &[1; 8192]).await.expect("write");
    bench.truncate(ino, 4 * MIB).await.expect("truncate");
    bench.write(ino, handle, 3 * MIB, &[1; 4096]).await.expect("write");
    for flushed in [false, true] {
        assert_eq!(seek(&bench, file, 0, SeekTo::Data).await, Ok(MIB), "{flushed}");
        assert_eq!(seek(&bench, file, MIB + 5, SeekTo::Data).await, Ok(MIB + 5));
        assert_eq!(seek(&bench, file, MIB, SeekTo::Hole).await, Ok(MIB + 8192));
        assert_eq!(seek(&bench, file, MIB + 8192, SeekTo::Data).await, Ok(3 * MIB), "{flushed}");
        assert_eq!(seek(&bench, file, 3 * MIB, SeekTo::Hole).await, Ok(3 * MIB + 4096));
        assert_eq!(seek(&bench, file, 3 * MIB + 4096, SeekTo::Data).await, Err(Errno::ENXIO));
        assert_eq!(seek(&bench, file, 4 * MIB, SeekTo::Hole).await, Err(Errno::ENXIO));
        bench.fsync(ino, handle).await.expect("fsync");
    }
    // Space that is only set aside is a hole.
    let mode = namespace::FallocateMode::Allocate;
    let allocate = Op::Fallocate { ino, handle, mode, offset: 5 * MIB, len: MIB };
    bench.run(allocate).await.expect("fallocate");
    assert_eq!(seek(&bench, file, 5 * MIB, SeekTo::Data).await, Err(Errno::ENXIO));
    assert_eq!(seek(&bench, file, 5 * MIB, SeekTo::Hole).await, Ok(5 * MIB));
}
