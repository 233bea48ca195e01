//! Disks that must not be opened, each with its own reason, and superblocks that heal.

use crate::bench::{CLUSTER, DISK, assert_clean, content, formatted, get, id, open, open_with, put, small};
use checksum::crc32c;
use device::{BlockDev, SimDisk};
use store::{
    ClusterId, Damage, DiskId, FormatError, FormatOptions, FragmentStore, GrowError, OpenError, OpenOptions,
    PutError, Superblock,
};
use types::ByteSize;

const BYTES: u64 = 4 << 20;

async fn why(disk: &SimDisk) -> OpenError {
    match open_with(disk, OpenOptions::default()).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

/// Overwrites bytes in copies of the superblock and makes their checksums right.
fn forge(disk: &SimDisk, copies: &[usize], at: usize, value: &[u8]) {
    for copy in copies {
        let place = Superblock::places(BYTES)[*copy];
        let mut block = disk.peek(place, 4096);
        block[at..at + value.len()].copy_from_slice(value);
        block[12..16].fill(0);
        let crc = crc32c(&block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        disk.poke(place, &block);
    }
}

/// The first `bytes` of a disk, zeros behind them.
fn resized(disk: &SimDisk, bytes: u64) -> SimDisk {
    let other = SimDisk::new(bytes);
    let have = disk.geometry().bytes.min(bytes) as usize;
    other.poke(0, &disk.peek(0, have));
    other
}

#[tokio::test]
async fn blank_foreign_half_formatted_and_truncated_disks_are_told_apart() {
    assert_eq!(why(&SimDisk::new(BYTES)).await, OpenError::Blank);
    assert_eq!(why(&SimDisk::new(0)).await, OpenError::Blank);
    let foreign = SimDisk::new(BYTES);
    foreign.poke(0, b"\xeb\x3c\x90mkfs.fat");
    assert_eq!(why(&foreign).await, OpenError::NotHoldfast);
    // Others have their roots elsewhere in the ends: a RAID member at 4 KiB or 8 KiB before the end, ZFS at 16 KiB.
    for at in [4096, 16 << 10, (1 << 20) - 1, BYTES - (1 << 20), BYTES - 8192, BYTES - 1] {
        let foreign = SimDisk::new(BYTES);
        foreign.poke(at, b"\xfc");
        assert_eq!(why(&foreign).await, OpenError::NotHoldfast, "{at}");
        store::format(&foreign, &small()).await.expect("format");
        open(&foreign).await.close().await;
        assert_ne!(foreign.peek(at, 1), b"\xfc", "{at}: formatting erases it");
    }

    let disk = formatted(BYTES).await;
    for bytes in [BYTES - 4096, BYTES / 2, 70_000, 4096] {
        let error = why(&resized(&disk, bytes)).await;
        let expected = OpenError::Truncated { have: ByteSize(bytes / 4096 * 4096), need: ByteSize(BYTES) };
        assert_eq!(error, expected, "{bytes}");
    }
    let half = SimDisk::new(BYTES);
    half.poke(0, &disk.peek(0, 4096));
    assert_eq!(why(&half).await, OpenError::HalfFormatted);
    // One copy of a disk that was in use is damage: it had been formatted to its end.
    open(&disk).await.close().await;
    let used = SimDisk::new(BYTES);
    used.poke(0, &disk.peek(0, 4096));
    assert_eq!(why(&used).await, OpenError::Damaged(Damage::Superblocks));
}

#[tokio::test]
async fn other_clusters_and_disks_are_refused_by_name() {
    let disk = formatted(BYTES).await;
    let expected = ClusterId([9; 16]);
    let other = OpenOptions { cluster: Some(expected), ..OpenOptions::default() };
    let error = open_with(&disk, other).await.err();
    assert_eq!(error, Some(OpenError::OtherCluster { found: CLUSTER, expected }));
    let expected = DiskId([9; 16]);
    let other = OpenOptions { disk: Some(expected), ..OpenOptions::default() };
    assert_eq!(open_with(&disk, other).await.err(), Some(OpenError::OtherDisk { found: DISK, expected }));
    let both = OpenOptions { cluster: Some(CLUSTER), disk: Some(DISK), ..OpenOptions::default() };
    assert!(open_with(&disk, both).await.is_ok());
}

#[tokio::test]
async fn newer_formats_are_refused_and_newer_read_only_features_are_read() {
    let disk = formatted(BYTES).await;
    let running = open(&disk).await;
    put(&running.store, 1, &content(1, 0, 9000)).await.expect("put");
    running.close().await;
    let newer = disk.fork();
    forge(&newer, &[0, 1, 2, 3], 8, &3_u32.to_le_bytes());
    assert_eq!(why(&newer).await, OpenError::NewerFormat { version: 3, features: 0 });
    let newer = disk.fork();
    forge(&newer, &[0, 1, 2, 3], 16, &8_u64.to_le_bytes());
    assert_eq!(why(&newer).await, OpenError::NewerFormat { version: 2, features: 8 });

    let newer = disk.fork();
    forge(&newer, &[0, 1, 2, 3], 24, &8_u64.to_le_bytes());
    let before = newer.peek(0, BYTES as usize);
    let running = open(&newer).await;
    assert_eq!(get(&running.store, 1).await, Ok(content(1, 0, 9000)));
    let refused = put(&running.store, 2, &content(2, 0, 10)).await;
    assert!(matches!(refused, Err(PutError::Io(_))), "{refused:?}");
    assert!(running.store.delete(vec![id(1)]).await.is_err());
    running.close().await;
    assert!(newer.peek(0, BYTES as usize) == before, "it was written");
    let grown = store::grow(&newer, BYTES).await;
    assert!(matches!(grown, Err(GrowError::Open(OpenError::NewerFormat { .. }))), "{grown:?}");
}

#[tokio::test]
async fn any_two_copies_of_the_superblock_suffice_and_the_others_heal() {
    let disk = formatted(BYTES).await;
    let running = open(&disk).await;
    put(&running.store, 1, &content(1, 0, 9000)).await.expect("put");
    running.kill().await;
    for (one, other) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        let hurt = disk.fork();
        for copy in [one, other] {
            hurt.poke(Superblock::places(BYTES)[copy] + 70, &[0xff; 8]);
        }
        let running = open(&hurt).await;
        assert_eq!(running.report.copies_healed, 2, "{one}, {other}");
        assert_eq!(get(&running.store, 1).await, Ok(content(1, 0, 9000)));
        running.kill().await;
        assert_eq!(open(&hurt).await.report.copies_healed, 0);
        let hurt = disk.fork();
        for copy in 0..4 {
            if copy != one {
                hurt.poke(Superblock::places(BYTES)[copy] + 70, &[0xff; 8]);
            }
        }
        assert_eq!(why(&hurt).await, OpenError::Damaged(Damage::Superblocks));
    }
}

#[tokio::test]
async fn a_damaged_checkpoint_or_journal_is_refused_and_nothing_is_changed() {
    let disk = formatted(BYTES).await;
    let running = open(&disk).await;
    for n in 0..20 {
        put(&running.store, n, &content(n, 0, 100)).await.expect("put");
    }
    running.close().await;
    let running = open(&disk).await;
    for n in 20..23 {
        put(&running.store, n, &content(n, 0, 100)).await.expect("put");
    }
    let layout = running.store.superblock().layout;
    let slot = running.store.superblock().checkpoint.slot as usize;
    running.kill().await;

    let hurt = disk.fork();
    hurt.poke(layout.checkpoints[slot].at + 100, &[0xff]);
    assert_eq!(why(&hurt).await, OpenError::Damaged(Damage::Checkpoint { at: layout.checkpoints[slot].at }));
    // The other area is idle.
    let idle = disk.fork();
    idle.poke(layout.checkpoints[1 - slot].at + 100, &[0xff]);
    assert_eq!(open(&idle).await.report.fragments, 23);

    // A put that a later batch vouches for. Its record is in the block where its id is found.
    let needle = id(21).to_bytes();
    let journal = disk.peek(layout.journal.at, layout.journal.len as usize);
    let at = journal.windows(32).position(|window| window == needle).expect("the record of a put");
    let hurt = disk.fork();
    hurt.poke(layout.journal.at + at as u64, &[0xff]);
    let before = hurt.peek(0, BYTES as usize);
    let error = why(&hurt).await;
    assert!(matches!(error, OpenError::Damaged(Damage::Journal { .. })), "{error:?}");
    let hurt_eio = disk.fork();
    hurt_eio
        .inject(device::Fault::Unreadable(types::ByteOffset(layout.journal.at + at as u64 / 4096 * 4096)));
    let error = why(&hurt_eio).await;
    assert!(matches!(error, OpenError::Io(_) | OpenError::Damaged(Damage::Journal { .. })), "{error:?}");
    assert!(hurt.peek(0, BYTES as usize) == before, "a refused disk was changed");
}

#[tokio::test]
async fn disks_that_are_too_small_or_cut_oddly_are_not_formatted() {
    let error = store::format(&SimDisk::new(1 << 20), &small()).await;
    assert!(matches!(error, Err(FormatError::TooSmall(_))), "{error:?}");
    let odd = FormatOptions { segment_bytes: 12 << 10, ..small() };
    let error = store::format(&SimDisk::new(BYTES), &odd).await;
    assert_eq!(error, Err(FormatError::SegmentSize(12 << 10)));
}

#[tokio::test]
async fn a_disk_grows_and_never_shrinks() {
    let disk = formatted(BYTES).await;
    let running = open(&disk).await;
    put(&running.store, 1, &content(1, 0, 9000)).await.expect("put");
    let before = running.store.capacity();
    running.close().await;
    let larger = resized(&disk, 2 * BYTES);
    let running = open(&larger).await;
    assert_eq!(running.store.capacity(), before, "the room is used when it is asked for");
    running.close().await;
    store::grow(&larger, 2 * BYTES).await.expect("grow");
    store::grow(&larger, 2 * BYTES).await.expect("again changes nothing");
    assert!(matches!(store::grow(&larger, BYTES).await, Err(GrowError::Shrink { .. })));
    assert!(matches!(store::grow(&larger, 3 * BYTES).await, Err(GrowError::DeviceTooSmall { .. })));
    let running = open(&larger).await;
    assert_eq!(running.store.capacity(), before + BYTES);
    for n in 10..200 {
        let stored = put(&running.store, n, &content(n, 0, 30_000)).await;
        assert!(matches!(stored, Ok(_) | Err(PutError::NoSpace(_))), "{stored:?}");
    }
    assert!(running.store.used() > BYTES, "fragments lie in the new room");
    assert_clean(&running.store).await;
    running.close().await;
    assert_eq!(get(&open(&larger).await.store, 1).await, Ok(content(1, 0, 9000)));
    assert_eq!(
        why(&resized(&larger, BYTES)).await,
        OpenError::Truncated { have: ByteSize(BYTES), need: ByteSize(2 * BYTES) }
    );
}
