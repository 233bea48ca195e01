use super::{Entry, Index, Left, Run, SHARDS, decode_entry, encode_entry};
use proptest::collection::vec;
use proptest::prelude::{any, proptest};
use std::collections::BTreeMap;
use types::{Epoch, ExtentId, FragmentId, FragmentKind, GroupId, LayoutId, SessionId, VolumeId};

fn id(group: u32, counter: u64) -> FragmentId {
    FragmentId {
        group: GroupId(group),
        extent: ExtentId { volume: VolumeId(1), session: SessionId(2), counter },
        layout: LayoutId(0),
        index: 0,
        kind: FragmentKind::Data,
    }
}

fn entry(block: u64) -> Entry {
    Entry { block, stored_len: 4096, header_crc: 7, epoch: Epoch(1), heat: 0 }
}

proptest! {
    #[test]
    fn lists_are_those_of_one_ordered_map(
        ops in vec((0..4_u32, 0..200_u64, any::<bool>()), 0..300),
        group in 0..4_u32,
        after in 0..200_u64,
        max in 0..40_usize,
    ) {
        let index = Index::new();
        let mut model = BTreeMap::new();
        for (n, (group, counter, insert)) in ops.into_iter().enumerate() {
            let id = id(group, counter);
            if insert {
                let _ = index.insert(&id, entry(n as u64));
                model.insert(id, entry(n as u64));
            } else {
                let had = model.remove(&id).map_or(Left::Nothing, |old| Left::Free(old.run()));
                assert_eq!(index.remove(&id), had);
            }
        }
        assert_eq!(index.len(), model.len() as u64);
        for after in [None, Some(id(group, after)), Some(id(group + 1, 0)), Some(id(0, 0))] {
            let expect: Vec<_> = model.keys()
                .filter(|id| id.group == GroupId(group) && after.is_none_or(|after| **id > after))
                .take(max).copied().collect();
            let listed: Vec<_> =
                index.list(GroupId(group), after.as_ref(), max).iter().map(|info| info.id).collect();
            assert_eq!(listed, expect);
        }
        let mut copied: Vec<_> = (0..SHARDS).flat_map(|shard| index.copy_shard(shard)).collect();
        copied.sort_by_key(|(id, _)| *id);
        assert_eq!(copied, model.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn an_entry_survives_its_bytes() {
    let entry = Entry {
        block: 0xffff_ffff_fffe,
        stored_len: 1 << 20,
        header_crc: 0xdead_beef,
        epoch: Epoch(9),
        heat: 3,
    };
    let bytes = encode_entry(&id(1, 4), &entry);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let expect = "00000001 00000001000000000002000000000004 00000000 00 00 \
        feffffffffff 00001000 efbeadde 09000000 03000000";
    assert_eq!(hex, expect.replace(' ', ""));
    assert_eq!(decode_entry(&bytes), Some((id(1, 4), entry)));
    let mut long = bytes;
    long[34] = 0xff;
    assert_eq!(decode_entry(&long), None, "a length out of range");
}

#[test]
fn blocks_that_are_read_are_freed_by_the_last_reader() {
    let index = Index::new();
    let (id, entry) = (id(1, 1), entry(10));
    assert_eq!(index.insert(&id, entry), Left::Nothing);
    assert_eq!(index.pin(&id), Some(entry));
    assert_eq!(index.pin(&id), Some(entry));
    assert_eq!(index.remove(&id), Left::Pinned);
    assert_eq!(index.pin(&id), None);
    assert_eq!(index.unpin(&id, &entry), None);
    assert_eq!(index.unpin(&id, &entry), Some(Run { block: 10, blocks: 2 }));
}

#[test]
fn a_fragment_that_is_replaced_frees_its_old_blocks() {
    let index = Index::new();
    assert_eq!(index.insert(&id(1, 1), entry(10)), Left::Nothing);
    assert_eq!(index.insert(&id(1, 1), entry(20)), Left::Free(Run { block: 10, blocks: 2 }));
    assert_eq!(index.len(), 1);
}

#[test]
fn shards_fill_evenly() {
    let index = Index::new();
    for counter in 0..25_600 {
        let _ = index.insert(&id(1, counter), entry(counter));
    }
    let sizes: Vec<usize> = (0..SHARDS).map(|shard| index.copy_shard(shard).len()).collect();
    assert!(sizes.iter().all(|size| (50..200).contains(size)), "{sizes:?}");
}
