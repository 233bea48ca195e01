//! What fsck says of the stores.

use extents::memory::MemoryStore;
use namespace::ExtentRow;
use store::{FragmentStore, ListError, ReadError};
use types::GroupId;

use super::{Cluster, LEN, fragment, row};
use crate::verify::{self, Garbage, Problem};

#[tokio::test]
async fn a_live_extent_is_there_and_is_what_its_row_says() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    let extent = mount.seal().await;
    let (good, id) = (row(&extent), fragment(extent.group, &extent));
    assert_eq!(verify::extent(&cluster.groups, &good).await, []);
    let other = ExtentRow { content_crc: good.content_crc ^ 1, ..good };
    assert_eq!(verify::extent(&cluster.groups, &other).await, [Problem::OtherContent { fragment: id }]);
    let nowhere = ExtentRow { group: GroupId(99), ..good };
    let no_group = Problem::NoGroup { extent: extent.id, group: GroupId(99) };
    assert_eq!(verify::extent(&cluster.groups, &nowhere).await, [no_group]);

    let store: &MemoryStore = cluster.stores.iter().find(|store| store.fragments() == 1).expect("one has it");
    store.rot(id, LEN - 1);
    let problems = verify::extent(&cluster.groups, &good).await;
    assert!(
        matches!(problems[..], [Problem::Unreadable { source: ReadError::Damaged { .. }, .. }]),
        "{problems:?}"
    );
    store.delete(vec![id]).await.expect("deleted");
    let gone = Problem::Unreadable { fragment: id, source: ReadError::NotFound(id) };
    assert_eq!(verify::extent(&cluster.groups, &good).await, [gone]);
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    List(#[from] ListError),
}

#[tokio::test]
async fn fragments_that_nobody_needs_are_counted() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    let (named, moved, unnamed) = (mount.seal().await, mount.seal().await, mount.seal().await);
    assert_eq!(cluster.fragments(), 3);
    let rows = [row(&named), ExtentRow { group: GroupId(99), ..row(&moved) }];
    let live = |ids: Vec<types::ExtentId>| -> Result<Vec<ExtentRow>, Failed> {
        Ok(rows.iter().filter(|row| ids.contains(&row.id)).copied().collect())
    };
    let garbage = verify::garbage(&cluster.groups, live).await.expect("listed");
    assert_eq!(garbage, Garbage { fragments: 2, bytes: 2 * LEN as u64 }, "{unnamed:?} and {moved:?}");
}
