use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use namespace::{Batch, Rows, Write};

use super::{LsmRows, RowsOpenError};
use crate::record::Position;
use crate::rows::{Applied, RowStore};

const LOG: [u8; 16] = [7; 16];

/// Every row of the batch holds the batch's number, so a view that is torn shows two.
fn batch(number: u64) -> (Batch, Applied) {
    let rows = (0..50u32).map(|n| {
        let key = [&[1][..], &n.to_be_bytes()].concat();
        let write = if n % 10 == 9 && number % 2 == 1 {
            Write::Delete
        } else {
            Write::Put([&number.to_le_bytes()[..], &[0; 100]].concat())
        };
        (key, write)
    });
    (rows.collect(), Applied { position: Some(Position { term: 1, index: number }), ..Applied::default() })
}

/// The number that every row of `rows` has, and how many rows there are.
fn number(rows: &dyn Rows, backward: bool) -> (u64, usize) {
    let mut found = Vec::new();
    rows.scan(&[1], &[2], backward, &mut |_, value| {
        found.push(u64::from_le_bytes(value[..8].try_into().unwrap()));
        true
    })
    .unwrap();
    assert!(found.iter().all(|number| *number == found[0]), "a torn view: {found:?}");
    (found[0], found.len())
}

fn check(rows: &LsmRows, expected: u64) {
    let view = rows.view();
    let count = if expected % 2 == 1 { 45 } else { 50 };
    assert_eq!(number(&view, false), (expected, count));
    assert_eq!(number(&view, true), (expected, count));
    assert_eq!(Applied::read(&view).unwrap().position.map(|at| at.index), Some(expected));
}

fn new_rows() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    LsmRows::create(&path, LOG).unwrap();
    (folder, path)
}

#[test]
fn reopening_gives_the_last_sync() {
    let (_folder, path) = new_rows();
    let rows = LsmRows::open(&path, LOG).unwrap();
    assert_eq!(rows.applied(), Applied::default());
    for n in 1..=10 {
        let (batch, applied) = batch(n);
        rows.commit(batch, applied).unwrap();
    }
    assert_eq!(rows.sync().unwrap().position.unwrap().index, 10);
    for n in 11..=15 {
        let (batch, applied) = batch(n);
        rows.commit(batch, applied).unwrap();
    }
    check(&rows, 15);
    drop(rows);
    let rows = LsmRows::open(&path, LOG).unwrap();
    assert_eq!(rows.applied().position.unwrap().index, 10);
    check(&rows, 10);
    for n in 11..=20 {
        let (batch, applied) = batch(n);
        rows.commit(batch, applied).unwrap();
    }
    check(&rows, 20);
}

#[test]
fn views_and_syncs_beside_batches_never_see_half_a_batch() {
    let (_folder, path) = new_rows();
    let rows = Arc::new(LsmRows::open(&path, LOG).unwrap());
    let (first, applied) = batch(1);
    rows.commit(first, applied).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let (syncs, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let syncer = std::thread::spawn({
        let (rows, done, syncs) = (rows.clone(), done.clone(), syncs.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                rows.sync().unwrap();
                syncs.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let reader = std::thread::spawn({
        let (rows, done, seen) = (rows.clone(), done.clone(), seen.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                let view = rows.view();
                let mut found = Vec::new();
                let scanned =
                    view.scan(&[1], &[2], seen.load(Ordering::Relaxed) % 2 == 0, &mut |_, value| {
                        found.push(u64::from_le_bytes(value[..8].try_into().unwrap()));
                        true
                    });
                // A view that outlived its syncs may refuse, but never lies.
                if scanned.is_ok() {
                    assert!(found.iter().all(|n| *n == found[0]), "a torn view: {found:?}");
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    // On a busy machine the others need longer to get their turns. A thread that failed gets none.
    let few = || syncs.load(Ordering::Relaxed) < 2 || seen.load(Ordering::Relaxed) < 10;
    let failed = || syncer.is_finished() || reader.is_finished();
    let mut n = 1;
    while n < 3000 || (few() && !failed()) {
        n += 1;
        let (batch, applied) = batch(n);
        rows.commit(batch, applied).unwrap();
    }
    done.store(true, Ordering::Relaxed);
    syncer.join().unwrap();
    reader.join().unwrap();
    check(&rows, n);
    // What the last sync left is a whole batch too.
    let synced = rows.applied();
    drop(rows);
    let rows = LsmRows::open(&path, LOG).unwrap();
    assert!(rows.applied().position <= synced.position);
    check(&rows, rows.applied().position.unwrap().index);
}

#[test]
fn a_view_stands_still_and_ends_after_some_syncs() {
    let (_folder, path) = new_rows();
    let rows = LsmRows::open(&path, LOG).unwrap();
    let (first, applied) = batch(2);
    rows.commit(first, applied).unwrap();
    let view = rows.view();
    for n in 3..=5 {
        let (batch, applied) = batch(n);
        rows.commit(batch, applied).unwrap();
        rows.sync().unwrap();
        assert_eq!(number(&view, n % 2 == 0), (2, 50));
    }
    rows.sync().unwrap();
    assert!(view.get(&[1, 0, 0, 0, 0]).is_err());
    assert!(view.scan(&[1], &[2], false, &mut |_, _| true).is_err());
    check(&rows, 5);
}

#[test]
fn frozen_rows_stand_still_however_many_syncs_that_takes() {
    let (_folder, path) = new_rows();
    let rows = LsmRows::open(&path, LOG).unwrap();
    for n in 1..=4 {
        let (batch, applied) = batch(n);
        rows.commit(batch, applied).unwrap();
        if n == 3 {
            rows.sync().unwrap();
        }
    }
    let mut frozen = rows.freeze(&[1], &[2]).unwrap();
    assert_eq!(frozen.applied().position, Some(Position { term: 1, index: 4 }));
    let mut found = Vec::new();
    // More batches, syncs and compactions than any view lives through, one between every two rows.
    for n in 5.. {
        let Some(row) = frozen.next() else { break };
        found.push(u64::from_le_bytes(row.unwrap().1[..8].try_into().unwrap()));
        let (batch, applied) = batch(n);
        rows.commit(batch, applied).unwrap();
        rows.sync().unwrap();
    }
    assert_eq!(found, vec![4; 50]);
    check(&rows, 54);
}

#[test]
fn a_damaged_manifest_is_refused() {
    let (_folder, path) = new_rows();
    let current = std::fs::read(path.join("current")).unwrap();
    let manifest = path.join(format!("v{}", u64::from_le_bytes(current[..8].try_into().unwrap())));
    let whole = std::fs::read(&manifest).unwrap();
    for at in 0..whole.len() {
        let mut rotten = whole.clone();
        rotten[at] ^= 1;
        std::fs::write(&manifest, &rotten).unwrap();
        assert!(matches!(LsmRows::open(&path, LOG), Err(RowsOpenError::Damaged { .. })), "byte {at}");
    }
    std::fs::write(&manifest, &whole).unwrap();
    for at in 0..current.len() {
        let mut rotten = current.clone();
        rotten[at] ^= 1;
        std::fs::write(path.join("current"), &rotten).unwrap();
        assert!(LsmRows::open(&path, LOG).is_err(), "byte {at}");
    }
    std::fs::remove_file(path.join("current")).unwrap();
    assert!(matches!(LsmRows::open(&path, LOG), Err(RowsOpenError::Io { .. })));
    std::fs::write(path.join("current"), &current).unwrap();
    assert!(matches!(LsmRows::open(&path, [8; 16]), Err(RowsOpenError::Foreign { .. })));
    assert!(LsmRows::open(&path, LOG).is_ok());
}
