//! Many operations at once, on few names and files.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use namespace::{Answer, NewKind, SetAttr, XattrMode};
use types::{Errno, Ino};

use super::bench::{Bench, READ_WRITE, Sizes};
use crate::space::Charge;
use crate::{Listed, Op, Outcome, RenameFlags};

/// A small generator, so that a seed repeats what each task does.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

async fn work(bench: Arc<Bench>, seed: u64) {
    let mut random = Random(seed);
    for _ in 0..300 {
        let name = format!("name-{}", random.below(6)).into_bytes();
        let other = format!("name-{}", random.below(6)).into_bytes();
        let parent = Ino::ROOT;
        let found = match bench.run(Op::Lookup { parent, name: name.clone() }).await {
            Ok(Outcome::Entry { attr, .. }) => Some(attr.ino),
            Ok(Outcome::NoEntry { .. }) => None,
            other => panic!("lookup: {other:?}"),
        };
        let Some(ino) = found else {
            let kind = if random.below(8) == 0 { NewKind::Directory } else { NewKind::File };
            let op = Op::Create { parent, name, kind, mode: 0o755, umask: 0, open: None };
            match bench.run(op).await {
                Ok(Outcome::Entry { attr, .. }) => bench.forget(attr.ino, 1).await,
                Err(Errno::EEXIST) => {}
                other => panic!("create: {other:?}"),
            }
            continue;
        };
        let done = match random.below(9) {
            0 => bench.run(Op::Unlink { parent, name }).await,
            1 => bench.run(Op::Rmdir { parent, name }).await,
            2 => bench.run(Op::Link { ino, parent, name: other }).await.inspect(|_| assert!(found.is_some())),
            3 => {
                let flags = RenameFlags { exchange: random.below(3) == 0, ..RenameFlags::default() };
                bench.run(Op::Rename { parent, name, new_parent: parent, new_name: other, flags }).await
            }
            4 => {
                let set = SetAttr { size: Some(random.below(9000)), ..SetAttr::default() };
                bench.run(Op::SetAttr { ino, set, kill_priv: false }).await
            }
            5 => {
                let (name, value) = (b"user.x".to_vec(), vec![1; random.below(9) as usize]);
                bench.run(Op::SetXattr { ino, name, value, mode: XattrMode::Set }).await
            }
            _ => match bench.run(Op::Open { ino, flags: READ_WRITE }).await {
                Ok(Outcome::Opened { handle, .. }) => {
                    let offset = random.below(20_000);
                    let data = vec![seed as u8; 1 + random.below(8000) as usize];
                    let op = Op::Write { ino, handle, offset, data, kill_priv: false };
                    let written = bench.run(op).await;
                    assert!(written.is_ok(), "an open file was not written: {written:?}");
                    if random.below(3) == 0 {
                        let flushed = bench.fsync(ino, handle).await;
                        assert!(flushed.is_ok(), "{flushed:?}");
                    }
                    let read = bench.read(ino, handle, offset, 10_000).await;
                    assert!(read.is_ok(), "{read:?}");
                    bench.release(ino, handle).await;
                    Ok(Outcome::Done)
                }
                other => other,
            },
        };
        if let Ok(Outcome::Entry { attr, .. }) = &done {
            bench.forget(attr.ino, 1).await;
        }
        const EXPECTED: [Errno; 8] = [
            Errno::ENOENT,
            Errno::EEXIST,
            Errno::ESTALE,
            Errno::EISDIR,
            Errno::ENOTDIR,
            Errno::EPERM,
            Errno::EINVAL,
            Errno::ENOTEMPTY,
        ];
        if let Err(errno) = done {
            assert!(EXPECTED.contains(&errno), "{errno}");
        }
        bench.forget(ino, 1).await;
    }
}

#[test]
fn whatever_runs_at_once_leaves_one_truth() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().expect("a runtime");
    for seed in 0..6_u64 {
        println!("seed {seed}");
        runtime.block_on(async {
            let bench = Arc::new(Bench::sized(Sizes { arena: 2 << 20, ..Sizes::default() }).await);
            bench.service.slow.store(true, Ordering::Relaxed);
            let vfs = Arc::clone(&bench.vfs);
            let flusher = tokio::spawn(async move { vfs.run_flusher(std::future::pending()).await });
            let tasks: Vec<_> = (0..8)
                .map(|task| tokio::spawn(work(Arc::clone(&bench), seed << 32 | task << 8 | 1)))
                .collect();
            for task in tasks {
                task.await.expect("a task");
            }
            flusher.abort();
            drop(flusher.await);
            bench.vfs.run_flusher(std::future::ready(())).await;
            bench.vfs.flush_everything().await.expect("flush");
            assert_eq!(bench.arena.record_count(), 0, "seed {seed}");
            let op = Op::ReadDir { ino: Ino::ROOT, handle: crate::Handle(0), after: 2, max: 100, plus: true };
            let Ok(Outcome::Entries(entries)) = bench.run(op).await else { panic!("readdir") };
            for Listed { entry, .. } in &entries {
                let shown = bench.attr(entry.ino).await;
                assert_eq!(bench.row(entry.ino).await, Answer::Attr(shown), "seed {seed}");
                bench.forget(entry.ino, 1).await;
            }
            let root = bench.attr(Ino::ROOT).await;
            assert_eq!(bench.row(Ino::ROOT).await, Answer::Attr(root));
            assert_eq!(bench.nodes(), 0, "seed {seed}: everything was forgotten");
            assert_eq!(
                bench.vfs.space.charged(),
                Charge::default(),
                "seed {seed}: all that was charged was given back"
            );
        });
    }
}
