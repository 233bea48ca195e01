//! The loops as tasks.

use std::sync::Arc;
use std::time::Duration;

use clock::SimClock;
use clock::{Clock, SystemClock};
use types::Nanos;

use super::Cluster;
use crate::{Background, Pace};

const PACE: Pace = Pace {
    reclaim_every: Duration::from_millis(1),
    sweep_every: Duration::from_millis(1),
    watch_every: Duration::from_millis(1),
    between_steps: Duration::ZERO,
    after_failure: Duration::from_millis(1),
};

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_loops_free_what_they_should_and_stop() {
    for clock in [Arc::new(SystemClock::new()) as Arc<dyn Clock>, Arc::new(SimClock::new(Nanos(0)))] {
        let cluster = Cluster::new().await;
        let mount = cluster.mount().await;
        let (dead, kept, orphan) = (mount.seal().await, mount.seal().await, mount.seal().await);
        mount.file("dead", &dead).await;
        mount.file("kept", &kept).await;
        mount.extents.abandoned(orphan.id);
        mount.settle().await;
        let (keeper, bad_copies) = cluster.keeper(1).await;
        let background = Background::start(keeper, bad_copies, cluster.service(), clock, PACE);
        mount.remove(&cluster, "dead").await;
        until("both are gone", || cluster.fragments() == 1).await;
        let counts = || background.figures().counts();
        until("both are counted", || (counts().orphans, counts().dead_extents) == (1, 1)).await;

        // A failure is not the end.
        for store in &cluster.stores {
            store.set_broken(true);
        }
        until("a failure is counted", || counts().failures > 0).await;
        for store in &cluster.stores {
            store.set_broken(false);
        }
        let rounds = counts().sweeps;
        until("the sweep goes on", || counts().sweeps > rounds).await;
        background.stop().await;
        assert_eq!(cluster.fragments(), 1);
    }
}
