use std::sync::Arc;

use types::Ino;

use super::{LOOKS, SHARDS, Table};

/// As a lookup does: the kernel has one more reference.
fn refer(table: &Table, ino: u64) {
    table.node(Ino(ino)).state().lookups += 1;
}

#[test]
fn a_walk_over_many_inodes_is_remembered_in_part() {
    let table = Table::of(256);
    for ino in 1..=100_000 {
        refer(&table, ino);
    }
    assert!((200..=256).contains(&table.len()), "{}", table.len());
    assert!(table.find(Ino(100_000)).is_some() && table.find(Ino(1)).is_none());
}

#[test]
fn nodes_in_use_stay_and_later_ones_take_their_place_when_they_are_not() {
    let table = Table::of(SHARDS);
    for ino in 1..=1_000 {
        table.node(Ino(ino)).state().opens += 1;
    }
    let held = table.node(Ino(1_001));
    for ino in 2_000..4_000 {
        refer(&table, ino);
    }
    assert!((1..=1_001).all(|ino| table.find(Ino(ino)).is_some()), "what is in use is never dropped");
    assert!(Arc::ptr_eq(
        &table.node(Ino(1_001)).node.clone().expect("held"),
        held.node.as_ref().expect("held")
    ));
    drop(held);
    for ino in 1..=1_000 {
        table.node(Ino(ino)).state().opens -= 1;
    }
    for ino in 4_000..6_000 {
        refer(&table, ino);
    }
    assert!(table.len() <= 2 * SHARDS, "{}", table.len());
}

#[test]
fn what_comes_and_goes_leaves_nothing_behind() {
    let table = Table::of(1 << 20);
    refer(&table, 1);
    for ino in 2..10_000 {
        drop(table.node(Ino(ino)));
    }
    assert_eq!(table.len(), 1);
    let order: usize = table.shards.iter().map(|shard| super::lock(shard).order.len()).sum();
    assert!(order <= SHARDS * (LOOKS + 2), "{order}");
}
