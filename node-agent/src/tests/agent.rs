//! Real disks in files: opened, served, closed, found again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::{Clock, SystemClock};
use extents::{Extents, FixedPlacement};
use meta_client::{MetaService, Session};
use namespace::{Answer, Query};
use store::{ClusterId, DiskId, FormatOptions};
use types::SessionId;

use super::{Cluster, LEN, Mount, remove, row};
use crate::{Figures, Keeper, NodeAgent, OpenError, Options, Reclaim, Sweep, format, verify};

const CLUSTER: ClusterId = ClusterId([7; 16]);
const DISK_BYTES: u64 = 48 << 20;

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn options() -> Options {
    Options { cluster: CLUSTER, read_only: false, device: device::OpenOptions::default() }
}

async fn new_disk(folder: &Path, n: u8) -> PathBuf {
    let path = folder.join(format!("disk{n}"));
    device::create_disk_file(&path, DISK_BYTES).expect("a file");
    let small = FormatOptions {
        journal_bytes: Some(4 << 20),
        intent_bytes: Some(1 << 20),
        checkpoint_bytes: Some(4 << 20),
        segment_bytes: 1 << 20,
        ..FormatOptions::new(CLUSTER, DiskId([n; 16]))
    };
    format(&path, &small, device::OpenOptions::default()).await.expect("formatted");
    path
}

/// A mount over the agent's disks; the metadata are those of `cluster`.
async fn mount(cluster: &Cluster, agent: &NodeAgent) -> Mount {
    let (keeper, _) = Keeper::start(cluster.service(), agent.stores(), 1).await.expect("registered");
    let session = Session::open(cluster.service(), cluster.volume, 1, 1).await.expect("a session");
    let extents = Extents::new(cluster.volume, session.info().session, 1, keeper);
    Mount { session, extents }
}

async fn groups_of(cluster: &Cluster, agent: &NodeAgent) -> Vec<extents::Group> {
    match cluster.service.read(Query::Groups).await {
        Ok(Answer::Groups(rows)) => {
            let is_here = |group: &extents::Group| group.is_reachable();
            agent.groups(rows).into_iter().filter(is_here).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn disks_serve_and_are_found_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::bare().await;
    let paths = [new_disk(folder.path(), 11).await, new_disk(folder.path(), 12).await];
    let agent = NodeAgent::open(&paths, &clock(), options()).await.expect("opened");
    let first = mount(&cluster, &agent).await;
    let (kept, dead, orphan) = (first.seal().await, first.seal().await, first.seal().await);
    first.file("kept", &kept).await;
    first.file("dead", &dead).await;
    let fragments = |agent: &NodeAgent| agent.disks().iter().map(|disk| disk.status().fragments).sum::<u64>();
    assert_eq!(fragments(&agent), 3);

    // Ended as by a crash, then closed in order.
    let Mount { session, extents } = first;
    drop((agent, extents));
    let agent = reopen(&paths).await;
    assert!(agent.disks().iter().all(|disk| !disk.recovery().was_closed && disk.status().incarnation == 2));
    assert_eq!(fragments(&agent), 3);
    agent.close().await.expect("closed");
    let agent = reopen(&paths).await;
    assert!(agent.disks().iter().all(|disk| disk.recovery().was_closed));

    let groups = groups_of(&cluster, &agent).await;
    assert_eq!(groups.len(), 2, "one for each disk");
    remove(&session, &cluster, "dead").await;
    session.close().await.expect("closed");
    let figures = Arc::new(Figures::default());
    let reclaim = Reclaim::new(FixedPlacement::of(groups.clone()), cluster.service(), Arc::clone(&figures));
    assert_eq!(reclaim.step().await, Ok(1));
    drop(reclaim);
    Sweep::new(FixedPlacement::of(groups.clone()), cluster.service(), Arc::clone(&figures))
        .round()
        .await
        .expect("a round");
    assert_eq!((fragments(&agent), figures.counts().orphans), (1, 1), "{orphan:?} goes");
    let reader = Extents::new(cluster.volume, SessionId(99), 1, FixedPlacement::of(groups.clone()));
    assert_eq!(reader.read(&row(&kept), 0..LEN as u32).await.expect("read"), [7; LEN]);
    drop((groups, reader));
    agent.close().await.expect("closed");

    // What was deleted stays deleted, and fsck agrees.
    let agent =
        NodeAgent::open(&paths, &clock(), Options { read_only: true, ..options() }).await.expect("opened");
    assert_eq!(fragments(&agent), 1);
    let groups = groups_of(&cluster, &agent).await;
    assert_eq!(verify::extent(&groups, &row(&kept)).await, []);
    assert_eq!(verify::extent(&groups, &row(&dead)).await.len(), 1);
    agent.close().await.expect("closed");
}

/// Opens disks whose last opener was just dropped: its tasks let go of them in their own time.
async fn reopen(paths: &[PathBuf]) -> NodeAgent {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < deadline, "somebody still holds the disks");
        match NodeAgent::open(paths, &clock(), options()).await {
            Ok(agent) => return agent,
            Err(OpenError::Device(device::OpenError::Held { .. })) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_used_leaves_none_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = new_disk(folder.path(), 11).await;
    let blank = folder.path().join("blank");
    device::create_disk_file(&blank, DISK_BYTES).expect("a file");
    let paths = [good.clone(), blank];
    match NodeAgent::open(&paths, &clock(), options()).await.expect_err("one is blank") {
        OpenError::Store { path, source: store::OpenError::Blank } => assert_eq!(path, paths[1]),
        other => panic!("{other}"),
    }
    let other = Options { cluster: ClusterId([8; 16]), ..options() };
    match NodeAgent::open(&paths[..1], &clock(), other).await.expect_err("another cluster's") {
        OpenError::Store { source: store::OpenError::OtherCluster { .. }, .. } => {}
        other => panic!("{other}"),
    }
    let gone = [good.clone(), folder.path().join("gone")];
    match NodeAgent::open(&gone, &clock(), options()).await.expect_err("one is missing") {
        OpenError::Device(device::OpenError::Missing { path }) => assert_eq!(path, gone[1]),
        other => panic!("{other}"),
    }
    let agent =
        NodeAgent::open(std::slice::from_ref(&good), &clock(), options()).await.expect("it is free again");
    assert!(agent.disks()[0].recovery().was_closed);
    match NodeAgent::open(&[good], &clock(), options()).await.expect_err("held") {
        OpenError::Device(device::OpenError::Held { .. }) => {}
        other => panic!("{other}"),
    }
    agent.close().await.expect("closed");
}
