//! What a scrub finds, and where it goes on.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, SystemClock};

use super::{Cluster, LEN, fragment};
use crate::{Scrub, ScrubState, Scrubbed, Scrubbing};

fn scrub(cluster: &Cluster, state: ScrubState) -> Scrub {
    Scrub::new(cluster.placement(), cluster.service(), state)
}

async fn pass(scrub: &mut Scrub) {
    while scrub.step(77).await.expect("a step") != Scrubbed::Pass {}
}

#[tokio::test]
async fn rot_is_found_and_what_nobody_names_is_not_read() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    let (good, bad, unnamed) = (mount.seal().await, mount.seal().await, mount.seal().await);
    mount.file("good", &good).await;
    mount.file("bad", &bad).await;
    let mut scrub = scrub(&cluster, ScrubState::default());
    let mut most = (0, 0);
    while scrub.step(77).await.expect("a step") != Scrubbed::Pass {
        most = most.max((scrub.state().fragments, scrub.state().bytes));
    }
    assert_eq!(most, (2, 2 * LEN as u64));
    assert_eq!((scrub.state().passes, scrub.state().last_pass, scrub.state().bad_in_pass), (1, Some(77), 0));
    for extent in [&bad, &unnamed] {
        let at = cluster.groups.iter().position(|group| group.id == extent.group).expect("its group");
        cluster.stores[at].rot(fragment(extent.group, extent), 5000);
    }
    pass(&mut scrub).await;
    assert_eq!(scrub.state().bad_in_pass, 1);
    pass(&mut scrub).await;
    assert_eq!((scrub.state().passes, scrub.state().bad_in_pass), (3, 1), "it is found in every pass");
}

#[tokio::test]
async fn a_pass_goes_on_after_a_restart_and_reads_each_byte_once() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    for n in 0..300 {
        mount.file(&format!("f{n}"), &mount.seal().await).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scrub.json");
    let mut read = 0;
    for _ in 0..100 {
        let mut scrub = scrub(&cluster, ScrubState::load(&path));
        let before = scrub.state().fragments;
        let step = scrub.step(5).await.expect("a step");
        read += scrub.state().fragments.saturating_sub(before);
        scrub.state().save(&path).expect("saved");
        if step == Scrubbed::Pass {
            break;
        }
    }
    assert_eq!((read, ScrubState::load(&path).passes), (300, 1));
    std::fs::write(&path, "no state").expect("written");
    assert_eq!(ScrubState::load(&path), ScrubState::default());
}

#[tokio::test]
async fn the_rate_follows_what_is_stored() {
    let cluster = Cluster::new().await;
    let scrub = scrub(&cluster, ScrubState::default());
    assert_eq!(scrub.rate(Duration::from_secs(7 * 86_400)), 1 << 20, "a small disk");
    let mount = cluster.mount().await;
    let full = vec![1; 1 << 20];
    for _ in 0..20 {
        mount.extents.seal(&full).await.expect("sealed");
    }
    assert!(scrub.rate(Duration::from_secs(5)) > 4 << 20);
}

#[tokio::test]
async fn the_task_scrubs_rests_and_leaves_its_state() {
    let cluster = Cluster::new().await;
    let mount = cluster.mount().await;
    mount.file("file", &mount.seal().await).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scrub.json");
    let week = Duration::from_secs(7 * 86_400);
    for _ in 0..2 {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let running = Scrubbing::start(cluster.placement(), cluster.service(), clock, path.clone(), week);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while running.state().passes == 0 {
            assert!(std::time::Instant::now() < deadline, "no pass was finished");
            tokio::task::yield_now().await;
        }
        running.stop().await;
        assert_eq!(ScrubState::load(&path).passes, 1, "the next one is due in a week");
    }
}
