use super::{BLOCKS_MAX, Header, HeaderError, INLINE_AT, INLINE_MAX, STORED_MAX, blocks_of};
use crate::bytes::put;
use crate::layout::DiskId;
use checksum::{block_crcs, content_crc, crc32c};
use types::{Epoch, ExtentId, FragmentId, FragmentKind, GroupId, LayoutId, SessionId, VolumeId};

fn sample(data: &[u8]) -> Header {
    let crcs = block_crcs(data);
    Header {
        epoch: Epoch(5),
        id: FragmentId {
            group: GroupId(1),
            extent: ExtentId { volume: VolumeId(2), session: SessionId(3), counter: 4 },
            layout: LayoutId(0),
            index: 0,
            kind: FragmentKind::Data,
        },
        disk: DiskId([0x22; 16]),
        block: 0x1234,
        stored_len: data.len() as u32,
        content_crc: content_crc(&crcs),
        crcs,
    }
}

#[test]
fn the_fixture_is_what_is_written() {
    let (block, crc) = sample(b"holdfast").encode(b"holdfast");
    let hex: String = block[..132].iter().map(|byte| format!("{byte:02x}")).collect();
    let expect = "48464652 89770151 0100 0000 05000000 \
        00000001 00000002000000000003000000000004 00000000 00 00 000000000000 \
        22222222222222222222222222222222 3412000000000000 08000000 01000000 f1b32d17 \
        0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 82bf17b3";
    assert_eq!(hex, expect.replace([' ', '\n'], ""));
    assert_eq!(&block[INLINE_AT..INLINE_AT + 8], b"holdfast");
    assert_eq!(crc, u32::from_le_bytes([block[4], block[5], block[6], block[7]]));
}

#[test]
fn headers_survive_their_bytes() {
    for len in [1, 8, INLINE_MAX, INLINE_MAX + 1, 4096, 4097, 1 << 20, STORED_MAX] {
        let data: Vec<u8> = (0..len).map(|n| n as u8 | 1).collect();
        let header = sample(&data);
        let inline = if header.is_inline() { &data[..] } else { &[] };
        let (block, _) = header.encode(inline);
        assert_eq!(Header::decode(&block), Ok(header), "{len}");
    }
}

#[test]
fn blocks_count_the_header() {
    assert_eq!([1, INLINE_MAX, INLINE_MAX + 1, 4096, 4097].map(blocks_of), [1, 1, 2, 2, 3]);
    assert_eq!(blocks_of(STORED_MAX), BLOCKS_MAX);
}

#[test]
fn every_flipped_bit_is_noticed_small_data_among_them() {
    let (good, _) = sample(b"holdfast").encode(b"holdfast");
    for bit in (0..4096 * 8).step_by(7) {
        let mut block = good.to_vec();
        block[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(&block).is_err(), "bit {bit}");
    }
}

#[test]
fn what_a_right_checksum_hides_is_refused() {
    let cases: [(usize, &[u8], HeaderError); 8] = [
        (8, &[2], HeaderError::Newer(2)),
        (10, &[1], HeaderError::Malformed("version or flags")),
        (41, &[7], HeaderError::Malformed("id")),
        (72, &[0, 0, 0, 0], HeaderError::Malformed("length")),
        (72, &[1, 0, 0x11, 0], HeaderError::Malformed("length")),
        (76, &[2], HeaderError::Malformed("count of checksums")),
        (90, &[1], HeaderError::Malformed("reserved space")),
        (4095, &[1], HeaderError::Malformed("reserved space")),
    ];
    for (at, value, error) in cases {
        let mut block = sample(b"holdfast").encode(b"holdfast").0.to_vec();
        put(&mut block, at, value);
        let crc = crc32c(&block[8..]);
        put(&mut block, 4, &crc.to_le_bytes());
        assert_eq!(Header::decode(&block), Err(error), "byte {at}");
    }
    assert_eq!(Header::decode(&[0; 4096]), Err(HeaderError::NotHeader));
    assert_eq!(Header::decode(b"HFFR"), Err(HeaderError::NotHeader));
}
