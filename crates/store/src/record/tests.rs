use super::{Record, RecordError};
use crate::index::{Entry, Run};
use types::{Epoch, ExtentId, FragmentId, FragmentKind, GroupId, LayoutId, SessionId, VolumeId};

fn id() -> FragmentId {
    FragmentId {
        group: GroupId(1),
        extent: ExtentId { volume: VolumeId(2), session: SessionId(3), counter: 4 },
        layout: LayoutId(5),
        index: 6,
        kind: FragmentKind::Data,
    }
}

const ID: &str = "00000001 00000002000000000003000000000004 00000005 06 00 000000000000";

fn samples() -> [(Record, String); 6] {
    let entry =
        Entry { block: 0x1_0000_0007, stored_len: 4096, header_crc: 0xdead_beef, epoch: Epoch(9), heat: 0 };
    [
        (
            Record::Put { id: id(), entry },
            format!("{ID} 0700000001000000 00100000 efbeadde 09000000 00000000"),
        ),
        (Record::Delete { id: id() }, ID.into()),
        (Record::Tombstone { id: id() }, ID.into()),
        (
            Record::FillCursor { group: GroupId(1), epoch: Epoch(2), id: id() },
            format!("01000000 02000000 {ID}"),
        ),
        (
            Record::GroupEpoch { group: GroupId(1), epoch: Epoch(2), state: 3 },
            "01000000 02000000 03000000".into(),
        ),
        (Record::BadBlocks { run: Run { block: 2, blocks: 1 } }, "0020000000000000 0010000000000000".into()),
    ]
}

#[test]
fn the_fixtures_are_what_is_written_and_read() {
    for (n, (record, hex)) in samples().into_iter().enumerate() {
        let (kind, body) = record.encode();
        assert_eq!(usize::from(kind), n + 1);
        let written: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, hex.replace(' ', ""), "{record:?}");
        assert_eq!(Record::decode(kind, &body), Ok(record));
    }
}

#[test]
fn what_is_unknown_or_malformed_is_an_error() {
    assert_eq!(Record::decode(7, &[]), Err(RecordError::UnknownType(7)));
    for (record, _) in samples() {
        let (kind, body) = record.encode();
        let short = Record::decode(kind, &body[..body.len() - 1]);
        assert_eq!(short, Err(RecordError::Malformed(kind)));
    }
    let (kind, mut body) = samples()[0].0.encode();
    body[55] = 1;
    assert_eq!(Record::decode(kind, &body), Err(RecordError::Malformed(1)), "flags");
    body[55] = 0;
    body[38] = 1;
    assert_eq!(Record::decode(kind, &body), Err(RecordError::Malformed(1)), "a block over 48 bits");
}
