use super::{CheckpointRef, State, Superblock, SuperblockError, VERSION, choose};
use crate::bytes::put;
use crate::layout::{ClusterId, DiskId, FormatOptions, Layout};
use checksum::crc32c;

fn sample() -> Superblock {
    let options = FormatOptions {
        checkpoint_bytes: Some(4 << 20),
        ..FormatOptions::new(ClusterId([0x11; 16]), DiskId([0x22; 16]))
    };
    Superblock {
        version: VERSION,
        incompat: 0,
        ro_compat: 0,
        cluster: options.cluster,
        disk: options.disk,
        sequence: 7,
        incarnation: 3,
        state: State::Open,
        disk_bytes: 1 << 30,
        layout: Layout::of(1 << 30, &options).expect("fits"),
        checkpoint: CheckpointRef {
            slot: 1,
            crc: 0xdead_beef,
            len: 8192,
            journal_from: 0x0040_1000,
            entries: 5,
        },
        journal_flushed: 0x0040_3000,
        segment_bytes: 4 << 20,
    }
}

/// A block with a right checksum in which `value` was put at `at`.
fn altered(at: usize, value: &[u8]) -> Vec<u8> {
    let mut block = sample().encode(0).to_vec();
    put(&mut block, at, value);
    put(&mut block, 12, &[0; 4]);
    let crc = crc32c(&block);
    put(&mut block, 12, &crc.to_le_bytes());
    block
}

/// The first 256 bytes of copy 2 of the sample, as docs/FORMATS/disk.md draws them; all behind is zero.
const FIXTURE: &str = "\
    48464449534b3031 02000000 CRC_____ 0000000000000000 0000000000000000 \
    11111111111111111111111111111111 22222222222222222222222222222222 \
    0700000000000000 0300000000000000 02000000 01000000 0000004000000000 \
    0000100000000000 0000000200000000 0000100200000000 0000000400000000 \
    0000100600000000 0000400000000000 0000500600000000 0000400000000000 \
    0000900600000000 0000603900000000 0000000000000000 0000000000000000 \
    01000000 efbeadde 0020000000000000 0010400000000000 0500000000000000 \
    0030400000000000 0000000000000000 0000000000000000 00004000 00000000";

#[test]
fn the_fixture_is_what_is_written() {
    let block = sample().encode(2);
    let hex: String = block[..256].iter().map(|byte| format!("{byte:02x}")).collect();
    let crc = "c2f2d8ac";
    assert_eq!(hex, FIXTURE.replace(' ', "").replace("CRC_____", crc));
    assert_eq!(Superblock::decode(&block), Ok((sample(), 2)));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = sample().encode(0);
    for bit in 0..300 * 8 {
        let mut block = good.to_vec();
        block[bit / 8] ^= 1 << (bit % 8);
        assert!(Superblock::decode(&block).is_err(), "bit {bit}");
    }
}

#[test]
fn what_is_not_ours_is_told_apart() {
    assert_eq!(Superblock::decode(&[0; 4096]), Err(SuperblockError::Blank));
    assert_eq!(Superblock::decode(&[7; 4096]), Err(SuperblockError::NotSuperblock));
    assert_eq!(
        Superblock::decode(&altered(8, &3_u32.to_le_bytes())),
        Err(SuperblockError::Newer { version: 3, incompat: 0 })
    );
    assert_eq!(
        Superblock::decode(&altered(16, &4_u64.to_le_bytes())),
        Err(SuperblockError::Newer { version: 2, incompat: 4 })
    );
}

#[test]
fn what_contradicts_itself_is_refused() {
    let cases: [(usize, &[u8], &str); 9] = [
        (8, &[0], "version"),
        (80, &[4], "copy number"),
        (84, &[9], "state"),
        (96, &[1], "regions"),
        (88, &[0; 8], "regions"),
        (192, &[2], "checkpoint"),
        (176, &[1], "reserved space"),
        (4095, &[1], "reserved space"),
        (248, &[1], "segment size"),
    ];
    for (at, value, what) in cases {
        assert_eq!(Superblock::decode(&altered(at, value)), Err(SuperblockError::Malformed(what)));
    }
    let future_ro = Superblock::decode(&altered(24, &[1])).expect("read-only features do not hinder reading");
    assert_eq!(future_ro.0.ro_compat, 1);
}

#[test]
fn the_highest_sequence_on_which_two_agree_counts() {
    let at = |sequence| Superblock { sequence, ..sample() };
    assert_eq!(choose(&[at(8), at(7), at(7), at(7)]), Some(at(7)));
    assert_eq!(choose(&[at(8), at(8), at(7), at(7)]), Some(at(8)));
    assert_eq!(choose(&[at(8), at(7)]), None);
    assert_eq!(choose(&[]), None);
    let other = Superblock { incarnation: 9, ..at(8) };
    assert_eq!(choose(&[at(8), other, at(7), at(7)]), Some(at(7)), "same sequence, other content");
}

#[test]
fn copies_lie_at_both_ends() {
    let mib = 1 << 20;
    assert_eq!(Superblock::places(64 * mib + 5), [0, 65_536, 63 * mib, 64 * mib - 65_536]);
}
