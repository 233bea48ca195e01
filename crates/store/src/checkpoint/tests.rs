use super::{CheckpointError, CheckpointRecord, Group, Writer, bytes_needed, capacity, read};
use crate::index::{Entry, Run};
use crate::layout::{DiskId, Region};
use crate::superblock::CheckpointRef;
use device::{BlockDev, SimDisk};
use types::{Epoch, ExtentId, FragmentId, FragmentKind, GroupId, LayoutId, SessionId, VolumeId};

const DISK: DiskId = DiskId([0x22; 16]);
const BAD: Run = Run { block: 3, blocks: 7 };
const AREA: Region = Region { at: 1 << 20, len: 4 << 20 };

fn fragment(counter: u64) -> (FragmentId, Entry) {
    let extent = ExtentId { volume: VolumeId(2), session: SessionId(3), counter };
    let id =
        FragmentId { group: GroupId(1), extent, layout: LayoutId(0), index: 0, kind: FragmentKind::Data };
    (id, Entry { block: counter * 2, stored_len: 4096, header_crc: 7, epoch: Epoch(1), heat: 0 })
}

/// Writes `count` fragments in `shards` shards and two groups.
async fn written(dev: &dyn BlockDev, area: Region, count: u64, shards: u64) -> CheckpointRef {
    let mut writer = Writer::new(dev, DISK, area, 9);
    for shard in 0..shards {
        let entries: Vec<_> = (shard * count / shards..(shard + 1) * count / shards).map(fragment).collect();
        writer.shard(shard as u32, 100 + shard, &entries).await.expect("a sound disk");
    }
    for id in 1..3 {
        writer.group(GroupId(id), Group { epoch: Epoch(id), state: 4 }).await.expect("a sound disk");
    }
    writer.bad(BAD).await.expect("a sound disk");
    writer.finish(0, 100).await.expect("a sound disk")
}

async fn entries(
    dev: &dyn BlockDev,
    named: &CheckpointRef,
) -> Result<Vec<(FragmentId, Entry)>, CheckpointError> {
    let mut all = Vec::new();
    let (mut groups, mut bad) = (0, 0);
    read(dev, DISK, AREA, named, |record| match record {
        CheckpointRecord::Shard(part) => {
            assert_eq!(part.lsn, 100 + u64::from(part.shard));
            all.extend(part.entries);
        }
        CheckpointRecord::Group(id, group) => {
            assert_eq!(group, Group { epoch: Epoch(id.0), state: 4 });
            groups += 1;
        }
        CheckpointRecord::Bad(run) => {
            assert_eq!(run, BAD);
            bad += 1;
        }
    })
    .await?;
    assert_eq!((groups, bad), (2, 1));
    Ok(all)
}

#[tokio::test]
async fn what_was_written_is_read_over_many_chunks() {
    for (count, shards) in [(0, 256), (1, 1), (5, 256), (60_000, 256), (60_000, 1)] {
        let disk = SimDisk::new(8 << 20);
        let named = written(&disk, AREA, count, shards).await;
        assert_eq!(named.entries, count);
        let all = entries(&disk, &named).await.expect("readable");
        assert_eq!(all, (0..count).map(fragment).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn damage_anywhere_is_noticed() {
    let disk = SimDisk::new(8 << 20);
    let named = written(&disk, AREA, 30_000, 256).await;
    for at in (0..named.len).step_by(9973) {
        let before = disk.peek(AREA.at + at, 1)[0];
        disk.poke(AREA.at + at, &[before ^ 0x10]);
        let found = entries(&disk, &named).await;
        // What is behind a chunk's end, up to whole blocks, is not covered and not read.
        let padding = at > named.len - 4096 && found.is_ok();
        assert!(padding || matches!(found, Err(CheckpointError::Damaged { .. })), "byte {at}");
        disk.poke(AREA.at + at, &[before]);
    }
    let other = written(&disk, AREA, 29_999, 256).await;
    assert!(entries(&disk, &named).await.is_err(), "the area was reused");
    assert!(entries(&disk, &other).await.is_ok());
    assert!(entries(&disk, &CheckpointRef { crc: 0, ..other }).await.is_err());
    assert!(entries(&disk, &CheckpointRef { entries: 1, ..other }).await.is_err());
}

#[tokio::test]
async fn what_the_capacity_admits_fits() {
    for len in [64 << 10, 1 << 20, 3 << 20] {
        let disk = SimDisk::new(8 << 20);
        let area = Region { len, ..AREA };
        let mut count = 0;
        while bytes_needed(count + 1, 2) <= capacity(len) {
            count += 1;
        }
        assert!(count * 60 > len * 3 / 4, "most of the area is used: {count} of {len}");
        for shards in [1, 3, 256] {
            assert!(written(&disk, area, count, shards).await.len <= len);
        }
    }
}

#[tokio::test]
async fn the_fixture_is_what_is_written() {
    let disk = SimDisk::new(8 << 20);
    let named = written(&disk, AREA, 1, 1).await;
    let hex: String = disk.peek(AREA.at, 208).iter().map(|byte| format!("{byte:02x}")).collect();
    let expect = "4846434b CRC_____ 22222222222222222222222222222222 0900000000000000 0000000000000000 \
        d0000000 04000000 00000000000000000000000000000000 \
        0100 0000 40000000 00000000 01000000 6400000000000000 \
        00000001 00000002000000000003000000000000 00000000 00 00 000000000000 00100000 07000000 01000000 00000000 \
        0200 0000 10000000 01000000 01000000 04000000 00000000 \
        0200 0000 10000000 02000000 02000000 04000000 00000000 \
        0300 0000 10000000 0030000000000000 0070000000000000";
    let crc = checksum::crc32c(&disk.peek(AREA.at + 8, 200));
    let crc: String = crc.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expect.replace(' ', "").replace("CRC_____", &crc));
    assert_eq!((named.len, named.entries, named.journal_from), (4096, 1, 100));
}
