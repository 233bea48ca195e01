//! What goes and what stays.

use std::sync::Arc;

use checksum::block_crcs;
use device::{IoBuf, IoError};
use extents::FixedPlacement;
use meta_client::CallError;
use meta_client::memory::Fault;
use namespace::{Answer, Query};
use store::{DeleteError, FragmentStore, ListError, Put, PutAck};
use types::Epoch;

use super::{Cluster, LEN, fragment, row};
use crate::{Figures, Reclaim, ReclaimError, Sweep, SweepError};

fn sweep(cluster: &Cluster) -> (Sweep, Arc<Figures>) {
    let figures = Arc::new(Figures::default());
    (Sweep::new(cluster.placement(), cluster.service(), Arc::clone(&figures)), figures)
}

fn reclaim(cluster: &Cluster) -> (Reclaim, Arc<Figures>) {
    let figures = Arc::new(Figures::default());
    (Reclaim::new(cluster.placement(), cluster.service(), Arc::clone(&figures)), figures)
}

#[tokio::test]
async fn only_what_is_settled_and_unnamed_goes() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    let (mut sweep, figures) = sweep(&cluster);
    let kept = mount.seal().await;
    mount.file("kept", &kept).await;
    let abandoned = mount.seal().await;
    let in_flight = mount.seal().await;
    let late = mount.seal().await;
    assert_eq!(cluster.fragments(), 4);

    sweep.round().await.expect("a round");
    assert_eq!(cluster.fragments(), 4, "nothing is settled");
    mount.extents.abandoned(abandoned.id);
    mount.extents.abandoned(late.id);
    sweep.round().await.expect("a round");
    assert_eq!(cluster.fragments(), 4, "the service has not heard of it");
    mount.settle().await;
    sweep.round().await.expect("a round");
    assert_eq!(cluster.fragments(), 3, "below the mark is one that nobody named");
    assert!(mount.extents.read(&row(&abandoned), 0..5).await.is_err());
    mount.extents.read(&row(&in_flight), 0..5).await.expect("its commit may still come");
    mount.file("in flight", &in_flight).await;

    mount.session.close().await.expect("closed");
    sweep.round().await.expect("a round");
    assert_eq!(cluster.fragments(), 2, "of a closed session only what is named stays");
    for extent in [&kept, &in_flight] {
        assert_eq!(mount.extents.read(&row(extent), 0..LEN as u32).await.expect("read"), [7; LEN]);
    }
    let counts = figures.counts();
    assert_eq!((counts.sweeps, counts.orphans, counts.orphan_bytes), (4, 2, 2 * LEN as u64));
    assert_eq!(counts.listed, 4 + 4 + 4 + 3);
}

#[tokio::test]
async fn a_sweep_sees_every_fragment_across_its_batches() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    let kept = mount.seal().await;
    mount.file("kept", &kept).await;
    for n in 0..1300_u32 {
        let extent = mount.extents.seal(&n.to_le_bytes()).await.expect("sealed");
        mount.extents.abandoned(extent.id);
    }
    mount.settle().await;
    let (mut sweep, figures) = sweep(&cluster);
    sweep.round().await.expect("a round");
    assert_eq!((cluster.fragments(), figures.counts().orphans), (1, 1300));
}

#[tokio::test]
async fn what_a_failed_put_left_in_another_group_goes() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    let extent = mount.seal().await;
    mount.file("file", &extent).await;
    let other = cluster.groups.iter().position(|group| group.id != extent.group).expect("two groups");
    let stored = [7; LEN];
    let stray = Put {
        id: fragment(cluster.groups[other].id, &extent),
        epoch: Epoch(1),
        stored_len: LEN as u32,
        block_crcs: block_crcs(&stored),
        content_crc: extent.content_crc,
    };
    let ack = cluster.stores[other].put(stray, vec![IoBuf::from_bytes(&stored)]).await;
    assert_eq!((ack, cluster.fragments()), (Ok(PutAck::Stored), 2));
    let (mut sweep, _) = sweep(&cluster);
    sweep.round().await.expect("a round");
    assert_eq!((cluster.fragments(), cluster.stores[other].fragments()), (1, 0));
}

#[tokio::test]
async fn a_sweep_that_fails_goes_on_where_it_was() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    let extent = mount.seal().await;
    mount.extents.abandoned(extent.id);
    mount.settle().await;
    let (mut sweep, _) = sweep(&cluster);
    for store in &cluster.stores {
        store.set_broken(true);
    }
    assert_eq!(sweep.step().await, Err(SweepError::List(ListError::Io(IoError::Gone))));
    for store in &cluster.stores {
        store.set_broken(false);
    }
    sweep.round().await.expect("a round");
    assert_eq!(cluster.fragments(), 0);
}

#[tokio::test]
async fn dead_extents_give_their_space_back_and_their_rows_go() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    let (reclaim, figures) = reclaim(&cluster);
    let (dead, live) = (mount.seal().await, mount.seal().await);
    mount.file("dead", &dead).await;
    mount.file("live", &live).await;
    assert_eq!(reclaim.step().await, Ok(0));
    mount.remove(&cluster, "dead").await;
    let free = mount.extents.space().free;

    // The disk fails, then the service, at each of the steps; nothing is lost by it.
    for store in &cluster.stores {
        store.set_broken(true);
    }
    assert_eq!(reclaim.step().await, Err(ReclaimError::Delete(DeleteError::Io(IoError::Gone))));
    for store in &cluster.stores {
        store.set_broken(false);
    }
    cluster.service.fail_next([Fault::LoseCall]);
    assert_eq!(reclaim.step().await, Err(ReclaimError::Ask(CallError::Lost("the call".into()))));
    assert_eq!(cluster.fragments(), 1, "the fragment goes before the row");
    cluster.service.fail_next([Fault::LoseReply]);
    assert_eq!(reclaim.step().await, Err(ReclaimError::Ask(CallError::Lost("the reply".into()))));
    assert_eq!(reclaim.step().await, Ok(0), "the row is gone already");

    assert!(mount.extents.space().free > free);
    let query = Query::DeadExtents { volume: cluster.volume, max: 10 };
    assert_eq!(mount.session.read(query).await, Ok(Answer::Extents(vec![])));
    assert_eq!(mount.extents.read(&row(&live), 0..LEN as u32).await.expect("read"), [7; LEN]);
    mount.remove(&cluster, "live").await;
    assert_eq!(reclaim.step().await, Ok(1));
    assert_eq!((cluster.fragments(), figures.counts().dead_extents), (0, 1));
}

#[tokio::test]
async fn a_dead_extent_of_a_group_elsewhere_waits() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    let dead = mount.seal().await;
    mount.file("dead", &dead).await;
    mount.remove(&cluster, "dead").await;
    let figures = Arc::new(Figures::default());
    let others = cluster.groups.iter().filter(|group| group.id != dead.group).cloned().collect();
    let reclaim = Reclaim::new(FixedPlacement::of(others), cluster.service(), Arc::clone(&figures));
    assert_eq!(reclaim.step().await, Ok(0));
    assert_eq!((cluster.fragments(), figures.counts().out_of_reach), (1, 1));
}

#[tokio::test]
async fn a_sweep_leaves_the_dead_to_reclaim() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    let dead = mount.seal().await;
    mount.file("dead", &dead).await;
    mount.settle().await;
    mount.remove(&cluster, "dead").await;
    let (mut sweep, _) = sweep(&cluster);
    sweep.round().await.expect("a round");
    assert_eq!(cluster.fragments(), 1);
}
