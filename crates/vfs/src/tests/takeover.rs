//! An engine dies in the middle of something, and another one goes on.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::sync::atomic::Ordering;

use futures_util::future::{Either, select};
use namespace::{NewKind, SetAttr, SetTime};
use types::{Ino, Nanos};

use super::bench::Bench;
use crate::{Handle, Op, Outcome, RenameFlags};

/// A stream of numbers that a seed repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

async fn turns(count: u64) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// The result, unless it takes more turns than that.
async fn within<T>(count: u64, work: impl Future<Output = T>) -> Option<T> {
    match select(pin!(work), pin!(turns(count))).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// Names and what they stand for; contents by inode.
#[derive(Clone, PartialEq, Debug, Default)]
struct Model {
    names: BTreeMap<String, Ino>,
    bytes: BTreeMap<Ino, Vec<u8>>,
}

/// What is there.
async fn seen(bench: &Bench) -> Model {
    let mut model = Model::default();
    for n in 0..NAMES {
        let name = name(n);
        let Some(attr) = bench.lookup(Ino::ROOT, &name).await else { continue };
        let handle = bench.open(attr.ino).await;
        let bytes = bench.read(attr.ino, handle, 0, 1 << 20).await.expect("read");
        assert_eq!(bytes.len() as u64, bench.attr(attr.ino).await.size);
        bench.release(attr.ino, handle).await;
        model.names.insert(name, attr.ino);
        model.bytes.insert(attr.ino, bytes);
    }
    model
}

const NAMES: u64 = 6;

fn name(n: u64) -> String {
    format!("name-{n}")
}

/// One operation, and the model after it; `None` if it would fail.
fn choose(random: &mut Random, model: &Model) -> Option<(Op, Model)> {
    let (one, other) = (name(random.below(NAMES)), name(random.below(NAMES)));
    let (mut after, ino) = (model.clone(), model.names.get(&one).copied());
    // A handle carries no state of an engine.
    let handle = Handle::new(super::bench::READ_WRITE, 0, 1);
    let op = match random.below(12) {
        0..=1 if ino.is_none() => {
            // Which inode it is shows later.
            after.names.insert(one.clone(), Ino(0));
            let (parent, name, kind) = (Ino::ROOT, one.into_bytes(), NewKind::File);
            Op::Create { parent, name, kind, mode: 0o644, umask: 0, open: None }
        }
        2 => {
            after.bytes.remove(&ino?);
            after.names.remove(&one);
            Op::Unlink { parent: Ino::ROOT, name: one.into_bytes() }
        }
        3 if one != other => {
            let ino = after.names.remove(&one)?;
            if let Some(replaced) = after.names.insert(other.clone(), ino) {
                after.bytes.remove(&replaced);
            }
            let (name, new_name) = (one.into_bytes(), other.into_bytes());
            let (parent, new_parent) = (Ino::ROOT, Ino::ROOT);
            Op::Rename { parent, name, new_parent, new_name, flags: RenameFlags::default() }
        }
        4 => {
            let (ino, size) = (ino?, random.below(20_000));
            after.bytes.get_mut(&ino)?.resize(size as usize, 0);
            let set = SetAttr { size: Some(size), ..SetAttr::default() };
            Op::SetAttr { ino, set, kill_priv: false }
        }
        5..=6 => Op::Fsync { ino: ino?, handle, data_only: false },
        _ => {
            let (ino, offset) = (ino?, random.below(12_000));
            let data = vec![random.below(255) as u8 + 1; 1 + random.below(9000) as usize];
            let bytes = after.bytes.get_mut(&ino)?;
            bytes.resize(bytes.len().max(offset as usize + data.len()), 0);
            bytes[offset as usize..][..data.len()].copy_from_slice(&data);
            Op::Write { ino, handle, offset, data, kill_priv: false }
        }
    };
    Some((op, after))
}

impl Model {
    /// Whether it is the same but for an inode that was not known.
    fn is(&self, seen: &Model) -> bool {
        self.names.keys().eq(seen.names.keys())
            && self.names.iter().all(|(name, ino)| {
                let found = seen.names[name];
                let bytes = self.bytes.get(ino).cloned().unwrap_or_default();
                (ino.0 == 0 || *ino == found) && bytes == seen.bytes[&found]
            })
    }
}

#[tokio::test]
async fn whatever_an_engine_was_doing_nothing_answered_is_lost() {
    let (mut deaths, mut records, mut unsettled, mut in_flight, mut half_done) = (0, 0, 0, 0, 0);
    for seed in 0..100 {
        let mut random = Random(seed);
        let mut bench = Bench::new().await;
        bench.service.slow.store(true, Ordering::Relaxed);
        let mut model = Model::default();
        for step in 0..60 {
            let Some((op, after)) = choose(&mut random, &model) else { continue };
            let patience = if random.below(6) == 0 { random.below(12) } else { u64::MAX };
            let told = within(patience, bench.run(op.clone())).await;
            if random.below(4) == 0 {
                // The flusher may be in the middle of something too.
                bench.clock.advance(std::time::Duration::from_secs(2));
                let patience = random.below(12);
                within(patience, bench.vfs.run_flusher(std::future::pending())).await;
            }
            let dies = told.is_none() || random.below(6) == 0;
            if dies {
                let recovery;
                (bench, recovery) = bench.taken_over().await;
                assert_eq!(recovery.damaged, []);
                let journal = &recovery.journal;
                deaths += 1;
                records += recovery.records;
                unsettled += journal.entries.iter().filter(|entry| entry.jseq > journal.settled).count();
                in_flight += usize::from(journal.busy.is_some());
            }
            let seen = seen(&bench).await;
            let told =
                told.map(|told| told.unwrap_or_else(|errno| panic!("seed {seed} {step} {op:?}: {errno}")));
            if let Some(Outcome::Entry { attr, .. }) = &told {
                assert!(seen.names.values().any(|ino| *ino == attr.ino), "seed {seed} step {step}");
            }
            // Without an answer it may be done or not, and nothing in between.
            half_done += usize::from(told.is_none() && after.is(&seen));
            assert!(
                after.is(&seen) || (told.is_none() && model.is(&seen)),
                "seed {seed} step {step}: {op:?}, dies: {dies}"
            );
            model = seen;
        }
        bench.vfs.flush_everything().await.expect("flush");
        assert_eq!(bench.arena.record_count(), 0);
        bench.power_cut().await;
        assert!(model.is(&seen(&bench).await), "seed {seed}: not all of it is at the service");
        bench.service.check(bench.volume);
    }
    assert!(deaths > 400 && records > 300 && unsettled > 300, "{deaths}, {records}, {unsettled}");
    assert!(in_flight > 50 && half_done > 5, "{in_flight} in flight, {half_done} half done");
}

/// What is known of records beside their bytes: who wrote them, and whether the file's times were set since.
#[tokio::test]
async fn times_and_set_id_bits_are_those_that_were_promised() {
    for dies in [false, true] {
        let mut bench = Bench::new().await;
        let ((ino, handle), (other, set_id)) = (bench.create("times").await, bench.create("set-id").await);
        bench.set(other, SetAttr { mode: Some(0o4755), ..SetAttr::default() }).await.expect("chmod");
        bench.write(ino, handle, 0, b"before").await.expect("write");
        let data = b"by anybody".to_vec();
        let op = Op::Write { ino: other, handle: set_id, offset: 0, data, kill_priv: true };
        assert_eq!(bench.run_as(op, 1000).await, Ok(Outcome::Written(10)));
        let mtime = Nanos::from_parts(1_000_000, 5);
        let set = SetAttr { mtime: Some(SetTime::To(mtime)), ..SetAttr::default() };
        assert_eq!(bench.set(ino, set).await.expect("utimens").mtime, mtime);
        if dies {
            let recovery;
            (bench, recovery) = bench.taken_over().await;
            assert_eq!(recovery.records, 2, "nothing was flushed");
        }
        assert_eq!(bench.attr(ino).await.mtime, mtime);
        assert_eq!(bench.attr(other).await.mode & 0o7777, 0o755);
        bench.vfs.flush_everything().await.expect("flush");
        assert_eq!(bench.attr(ino).await.mtime, mtime, "dies: {dies}");
        assert_eq!(bench.attr(other).await.mode & 0o7777, 0o755, "dies: {dies}");
        bench.write(ino, handle, 0, b"after").await.expect("write");
        bench.vfs.flush_everything().await.expect("flush");
        assert!(bench.attr(ino).await.mtime > mtime);
    }
}

/// The first bytes of the arena's chunks (docs/FORMATS/arena.md).
fn chunks(bench: &Bench) -> (std::fs::File, Vec<u8>) {
    let fd = bench.arena.as_fd().try_clone_to_owned().expect("another descriptor");
    let (file, mut bytes) = (std::fs::File::from(fd), vec![0; 100_000]);
    file.read_exact_at(&mut bytes, CHUNKS_AT).expect("chunks");
    (file, bytes)
}

const CHUNKS_AT: u64 = 0x100_0000;

/// A death right after the command is in the journal, before the first record is freed.
#[tokio::test]
async fn records_that_nobody_needs_any_more_are_not_taken_again() {
    for unlinks in [false, true] {
        let mut bench = Bench::new().await;
        let (ino, handle) = bench.create("file").await;
        bench.write(ino, handle, 0, &[1; 20_000]).await.expect("write");
        bench.fsync(ino, handle).await.expect("fsync");
        bench.write(ino, handle, 5000, &[2; 20_000]).await.expect("write");
        let commits = bench.service.calls("Commit");
        let (arena, before) = chunks(&bench);
        if unlinks {
            bench.release(ino, handle).await;
            bench.unlink(Ino::ROOT, "file").await.expect("unlink");
        } else {
            bench.fsync(ino, handle).await.expect("fsync");
        }
        assert_eq!(bench.arena.record_count(), 0);
        arena.write_all_at(&before, CHUNKS_AT).expect("as it was");
        let (again, recovery) = bench.taken_over().await;
        bench = again;
        assert!(recovery.records > 0, "nothing to be told apart");
        assert_eq!(bench.arena.record_count(), 0, "unlinks: {unlinks}");
        bench.vfs.flush_everything().await.expect("flush");
        assert_eq!(bench.service.calls("Commit"), commits + u64::from(!unlinks));
        if !unlinks {
            let bytes = bench.read(ino, handle, 0, 30_000).await.expect("read");
            assert!(bytes == [vec![1; 5000], vec![2; 20_000]].concat());
        }
    }
}
