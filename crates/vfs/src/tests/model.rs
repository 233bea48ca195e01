//! Random operations on a few files against arrays of bytes, with flushes and power cuts at random points.

use namespace::{FallocateMode, NewKind, SetAttr, SetTime};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::test_runner::{Config, TestRunner};
use types::{Errno, Ino, Nanos};

use super::bench::{Bench, Sizes};
use crate::{Handle, Op, Outcome, SeekTo};

const FILES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Write { file: usize, offset: u64, len: usize, byte: u8 },
    Read { file: usize, offset: u64, len: u32 },
    Truncate { file: usize, size: u64 },
    Allocate { file: usize, mode: FallocateMode, offset: u64, len: u64 },
    Copy { from: usize, offset: u64, to: usize, to_offset: u64, len: u64 },
    SetTime { file: usize, secs: i64 },
    Fsync { file: usize },
    FlushAll,
    Reopen { file: usize },
    RenameOver { file: usize },
    Wait { millis: u64 },
    PowerCut,
    TakeOver,
}

fn place() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..5000,
        (0_u64..6).prop_map(|n| n * 4096),
        0_u64..40_000,
        (1_048_000_u64..1_049_500),
        0_u64..2_500_000,
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1_usize..200, Just(4096_usize), 1_usize..9000, 100_000_usize..300_000]
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..FILES;
    let mode = prop_oneof![
        Just(FallocateMode::Allocate),
        Just(FallocateMode::AllocateKeepSize),
        Just(FallocateMode::PunchHole),
        Just(FallocateMode::Zero),
        Just(FallocateMode::ZeroKeepSize),
    ];
    prop_oneof![
        8 => (file.clone(), place(), length(), 1_u8..255)
            .prop_map(|(file, offset, len, byte)| Step::Write { file, offset, len, byte }),
        4 => (file.clone(), place(), 1_u32..400_000).prop_map(|(file, offset, len)| Step::Read { file, offset, len }),
        2 => (file.clone(), prop_oneof![Just(0_u64), place()]).prop_map(|(file, size)| Step::Truncate { file, size }),
        2 => (file.clone(), mode, place(), length())
            .prop_map(|(file, mode, offset, len)| Step::Allocate { file, mode, offset, len: len as u64 }),
        2 => (file.clone(), place(), file.clone(), place(), length()).prop_map(
            |(from, offset, to, to_offset, len)| Step::Copy { from, offset, to, to_offset, len: len as u64 }
        ),
        1 => (file.clone(), 0_i64..2_000_000_000).prop_map(|(file, secs)| Step::SetTime { file, secs }),
        2 => file.clone().prop_map(|file| Step::Fsync { file }),
        1 => Just(Step::FlushAll),
        1 => file.clone().prop_map(|file| Step::Reopen { file }),
        1 => file.prop_map(|file| Step::RenameOver { file }),
        1 => (1_u64..3000).prop_map(|millis| Step::Wait { millis }),
        1 => Just(Step::PowerCut),
        2 => Just(Step::TakeOver),
    ]
}

/// A file as it should be.
#[derive(Clone)]
struct File {
    ino: Ino,
    handle: Handle,
    bytes: Vec<u8>,
    /// As it must be after a power cut, if it is known: nothing was written since it was durable.
    durable: Option<Vec<u8>>,
}

impl File {
    fn grow(&mut self, size: usize) {
        if self.bytes.len() < size {
            self.bytes.resize(size, 0);
        }
    }

    /// Right after somebody waited for it.
    fn is_durable(&mut self) {
        self.durable = Some(self.bytes.clone());
    }
}

fn name(file: usize) -> String {
    format!("file-{file}")
}

async fn run(bench: &mut Bench, files: &mut [File], step: &Step) {
    match *step {
        Step::Write { file, offset, len, byte } => {
            let file = &mut files[file];
            // Bytes that differ from one another, so that a shift shows.
            let data: Vec<u8> = (0..len).map(|n| byte.wrapping_add((n / 7) as u8)).collect();
            assert_eq!(bench.write(file.ino, file.handle, offset, &data).await, Ok(len as u32));
            file.grow(offset as usize + len);
            file.bytes[offset as usize..offset as usize + len].copy_from_slice(&data);
            file.durable = None;
        }
        Step::Read { file, offset, len } => {
            let file = &files[file];
            let from = (offset as usize).min(file.bytes.len());
            let to = (from + len as usize).min(file.bytes.len());
            let read = bench.read(file.ino, file.handle, offset, len).await.expect("read");
            assert!(read == file.bytes[from..to], "{step:?} of {} bytes", file.bytes.len());
        }
        Step::Truncate { file, size } => {
            let file = &mut files[file];
            let attr = bench.truncate(file.ino, size).await.expect("truncate");
            assert_eq!(attr.size, size);
            file.bytes.resize(size as usize, 0);
            // What was written before is flushed for it, and it comes after that.
            bench.vfs.settle().await.expect("sync");
            file.is_durable();
        }
        Step::Allocate { file, mode, offset, len } => {
            let file = &mut files[file];
            let (ino, handle) = (file.ino, file.handle);
            bench.run(Op::Fallocate { ino, handle, mode, offset, len }).await.expect("fallocate");
            if matches!(mode, FallocateMode::Allocate | FallocateMode::Zero) {
                file.grow((offset + len) as usize);
            }
            if !matches!(mode, FallocateMode::Allocate | FallocateMode::AllocateKeepSize) {
                let end = (offset + len).min(file.bytes.len() as u64) as usize;
                file.bytes[(offset as usize).min(end)..end].fill(0);
            }
            bench.vfs.settle().await.expect("sync");
            file.is_durable();
        }
        Step::Copy { from, offset, to, to_offset, len } => {
            copy(bench, files, (from, offset), (to, to_offset), len).await
        }
        Step::SetTime { file, secs } => {
            let file = &mut files[file];
            let mtime = Nanos::from_parts(secs, 5);
            let set = SetAttr { mtime: Some(SetTime::To(mtime)), ..SetAttr::default() };
            assert_eq!(bench.set(file.ino, set).await.expect("utimens").mtime, mtime);
            bench.vfs.flush_everything().await.expect("flush");
            assert_eq!(bench.attr(file.ino).await.mtime, mtime, "an earlier write took the time back");
            files.iter_mut().for_each(File::is_durable);
        }
        Step::Fsync { file } => {
            let file = &mut files[file];
            bench.fsync(file.ino, file.handle).await.expect("fsync");
            file.is_durable();
        }
        Step::FlushAll => {
            bench.vfs.flush_everything().await.expect("flush");
            files.iter_mut().for_each(File::is_durable);
        }
        Step::Reopen { file } => {
            let file = &mut files[file];
            bench.release(file.ino, file.handle).await;
            file.handle = bench.open(file.ino).await;
        }
        Step::RenameOver { file: at } => {
            // What was written goes over an older file, whole.
            let op = Op::Create {
                parent: Ino::ROOT,
                name: b"old".to_vec(),
                kind: NewKind::File,
                mode: 0o644,
                umask: 0,
                open: None,
            };
            bench.run(op).await.expect("create");
            let rename = |from: &str, to: &str| Op::Rename {
                parent: Ino::ROOT,
                name: from.into(),
                new_parent: Ino::ROOT,
                new_name: to.into(),
                flags: crate::RenameFlags::default(),
            };
            bench.run(rename(&name(at), "old")).await.expect("rename over");
            bench.run(rename("old", &name(at))).await.expect("rename back");
            bench.vfs.settle().await.expect("sync");
            files[at].is_durable();
        }
        Step::Wait { millis } => {
            bench.clock.advance(std::time::Duration::from_millis(millis));
            // A stop that comes at once: one round.
            bench.vfs.run_flusher(std::future::ready(())).await;
        }
        // It has just happened: everything is as it was, to whoever has it open too.
        Step::TakeOver => {
            for (at, file) in files.iter().enumerate() {
                let bytes = bench.read(file.ino, file.handle, 0, u32::MAX >> 4).await.expect("read");
                assert!(bytes == file.bytes, "file {at} lost what was accepted");
            }
        }
        Step::PowerCut => {
            bench.power_cut().await;
            for (at, file) in files.iter_mut().enumerate() {
                assert_eq!(bench.lookup(Ino::ROOT, &name(at)).await.map(|attr| attr.ino), Some(file.ino));
                file.handle = bench.open(file.ino).await;
                let size = bench.attr(file.ino).await.size;
                let bytes = bench.read(file.ino, file.handle, 0, u32::MAX >> 4).await.expect("read");
                assert_eq!(bytes.len() as u64, size);
                if let Some(durable) = &file.durable {
                    assert!(bytes == *durable, "file {at} lost what was durable");
                }
                file.bytes = bytes;
                file.is_durable();
            }
        }
    }
    for (at, file) in files.iter().enumerate() {
        let attr = bench.attr(file.ino).await;
        assert_eq!(attr.size, file.bytes.len() as u64, "file {at} after {step:?}");
    }
}

/// Copies as a program does: until nothing is left.
async fn copy(bench: &Bench, files: &mut [File], from: (usize, u64), to: (usize, u64), len: u64) {
    let size = files[from.0].bytes.len() as u64;
    let len = len.min(size.saturating_sub(from.1));
    let mut copied = 0;
    loop {
        let (source, target) = (&files[from.0], &files[to.0]);
        let op = Op::CopyRange {
            ino: source.ino,
            handle: source.handle,
            offset: from.1 + copied,
            to: target.ino,
            to_handle: target.handle,
            to_offset: to.1 + copied,
            len: len - copied,
        };
        match bench.run(op).await {
            Ok(Outcome::Written(0)) => break,
            Ok(Outcome::Written(bytes)) => copied += u64::from(bytes),
            // One file over itself.
            Err(Errno::EINVAL) if from.0 == to.0 && from.1 < to.1 + len && to.1 < from.1 + len => return,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(copied, len);
    let bytes = files[from.0].bytes[(from.1 as usize).min(size as usize)..][..len as usize].to_vec();
    let target = &mut files[to.0];
    if len > 0 {
        target.grow((to.1 + len) as usize);
        target.bytes[to.1 as usize..(to.1 + len) as usize].copy_from_slice(&bytes);
        target.durable = None;
    }
}

/// What lseek(2) calls a hole reads as zeros, and data and holes follow one another up to the end.
async fn seek_through(bench: &Bench, file: &File) {
    let seek = async |offset: u64, to| {
        let op = Op::Seek { ino: file.ino, handle: file.handle, offset, to };
        match bench.run(op).await {
            Ok(Outcome::Offset(at)) => Ok(at),
            Err(errno) => Err(errno),
            other => panic!("{other:?}"),
        }
    };
    let size = file.bytes.len() as u64;
    let mut at = 0;
    while at < size {
        let data = match seek(at, SeekTo::Data).await {
            Ok(data) => data,
            Err(errno) => {
                assert_eq!(errno, Errno::ENXIO);
                size
            }
        };
        assert!(data >= at && data <= size);
        assert!(file.bytes[at as usize..data as usize].iter().all(|byte| *byte == 0), "data in a hole");
        if data == size {
            break;
        }
        at = seek(data, SeekTo::Hole).await.expect("there is a hole at the end");
        assert!(at > data && at <= size, "data ends nowhere");
        if at < size {
            assert_eq!(seek(at, SeekTo::Hole).await, Ok(at));
        }
    }
    assert_eq!(seek(size, SeekTo::Data).await, Err(Errno::ENXIO));
    assert_eq!(seek(size, SeekTo::Hole).await, Err(Errno::ENXIO));
}

async fn play(steps: &[Step]) {
    // A small arena, so that pressure and waiting happen.
    let mut bench = Bench::sized(Sizes { arena: 4 << 20, ..Sizes::default() }).await;
    let mut files = Vec::new();
    for at in 0..FILES {
        let (ino, handle) = bench.create(&name(at)).await;
        files.push(File { ino, handle, bytes: Vec::new(), durable: Some(Vec::new()) });
    }
    bench.vfs.settle().await.expect("sync");
    for step in steps {
        if matches!(step, Step::TakeOver) {
            (bench, _) = bench.taken_over().await;
        }
        run(&mut bench, &mut files, step).await;
        if bench.vfs.is_under_pressure() {
            bench.vfs.flush_everything().await.expect("flush");
            files.iter_mut().for_each(File::is_durable);
        }
    }
    for file in &files {
        let read = bench.read(file.ino, file.handle, 0, u32::MAX >> 4).await.expect("read");
        assert!(read == file.bytes, "at the end");
        seek_through(&bench, file).await;
    }
    bench.vfs.flush_everything().await.expect("flush");
    assert_eq!(bench.arena.record_count(), 0);
    for file in &mut files {
        let row = bench.row(file.ino).await;
        assert!(
            matches!(row, namespace::Answer::Attr(attr) if attr.size == file.bytes.len() as u64),
            "{row:?}"
        );
        seek_through(&bench, file).await;
        file.is_durable();
    }
    run(&mut bench, &mut files, &Step::PowerCut).await;
    assert_eq!(bench.unlink(Ino::ROOT, "nothing").await, Err(Errno::ENOENT));
}

#[test]
fn files_are_arrays_of_bytes() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    // A failure is shrunk and printed with its steps, which repeat it without a seed.
    let mut runner = TestRunner::new(config);
    let result = runner.run(&vec(step(), 1..60), |steps| {
        runtime.block_on(play(&steps));
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}
