use std::collections::BTreeSet;

use super::{Ballot, Payload, Position, Record};
use crate::rows::{FormatError, Members};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn one_of_each() -> Vec<(Record, u16, &'static str)> {
    let at = Position { term: 3, index: 0x1234 };
    let members = Members { set_at: None, configs: vec![BTreeSet::from([1])], nodes: BTreeSet::from([1]) };
    vec![
        (
            Record::Entry { position: at, payload: Payload::Blank },
            1,
            "070000000000000003000000000000003412000000000000",
        ),
        (
            Record::Entry { position: at, payload: Payload::Commands([0xaa, 0xbb].into()) },
            1,
            "070000000100000003000000000000003412000000000000aabb",
        ),
        (
            Record::Entry { position: at, payload: Payload::Members(members) },
            1,
            "070000000200000003000000000000003412000000000000\
             0100000000000000000000000000000000000000000000000100010001000000000000000100\
             0100000000000000",
        ),
        (
            Record::Vote(Ballot { term: 3, node: 1, committed: true }),
            2,
            "070000000100000003000000000000000100000000000000",
        ),
        (Record::Truncate(None), 3, "070000000000000000000000000000000000000000000000"),
        (Record::Truncate(Some(at)), 3, "070000000100000003000000000000003412000000000000"),
        (
            Record::Purge { upto: at, last: 0x1236 },
            4,
            "0700000000000000030000000000000034120000000000003612000000000000",
        ),
    ]
}

#[test]
fn records_have_their_documented_bytes() {
    for (record, kind, bytes) in one_of_each() {
        let (got_kind, got) = record.encode(7);
        assert_eq!((got_kind, hex(&got).as_str()), (kind, bytes), "{record:?}");
        assert_eq!(Record::decode(got_kind, &got), Ok((7, record)));
    }
}

#[test]
fn what_is_not_a_record_is_refused() {
    for (record, _, _) in one_of_each() {
        let (kind, bytes) = record.encode(7);
        assert!(Record::decode(kind, &bytes[..23]).is_err());
        assert!(Record::decode(9, &bytes).is_err());
        for reserved in 5..8 {
            let mut changed = bytes.clone();
            changed[reserved] = 1;
            assert_eq!(Record::decode(kind, &changed), Err(FormatError::Reserved { what: "log record" }));
        }
        let mut changed = bytes;
        changed[4] = 9;
        assert!(Record::decode(kind, &changed).is_err());
    }
}
