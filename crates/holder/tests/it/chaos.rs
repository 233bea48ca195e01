//! Engines and holders come and go in any order, and a second keeper is always there.

use std::fs;

use holder::{Keeper, Role};
use rustix::process::Signal;

use crate::{Scene, scene, signal};

const STEPS: usize = 30;

/// Who is who among the scene's processes.
struct Cast {
    holder: usize,
    second: usize,
    engines: usize,
}

impl Cast {
    /// A second keeper that has all.
    fn attend(&mut self, scene: &mut Scene) {
        let pid = scene.holder("second").id();
        scene.wait("the second keeper has all", || scene.taken(pid) == 1);
        self.second = scene.holders.len() - 1;
    }

    fn kill_engine(&mut self, scene: &Scene) {
        signal(scene.engines()[self.engines - 1], Signal::KILL);
        self.engines += 1;
    }

    fn kill_holder(&mut self, scene: &mut Scene) {
        signal(scene.holders[self.holder].id() as i32, Signal::KILL);
        scene.holders[self.holder].wait().expect("it ends");
        self.holder = self.second;
    }

    fn succeed(&mut self, scene: &mut Scene) {
        let second = scene.holders[self.second].id();
        let taken = scene.taken(second);
        scene.holder("successor");
        let status = scene.holders[self.holder].wait().expect("it ends");
        assert!(status.success(), "{status}: {}", scene.log());
        self.holder = scene.holders.len() - 1;
        scene.wait("the second keeper is with the new holder", || scene.taken(second) > taken);
    }

    fn replace(&mut self, scene: &Scene) {
        let mut keeper = Keeper::connect(&scene.socket(), Role::Keeper).expect("connected");
        keeper.replace("/usr/bin/env".as_ref()).expect("it serves");
        self.engines += 1;
    }
}

#[test]
fn whatever_is_killed_or_exchanged_the_mount_answers_and_nothing_kept_is_lost() {
    let Some(mut scene) = scene() else { return };
    let mut seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    scene.holder("holder");
    scene.wait_for_engines(1);
    let mut cast = Cast { holder: 0, second: 0, engines: 1 };
    cast.attend(&mut scene);
    for step in 0..STEPS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let what = seed >> 33;
        // All five come at least once.
        match if step < 5 { step as u64 } else { what % 5 } {
            0 => cast.kill_engine(&scene),
            1 => {
                cast.kill_holder(&mut scene);
                scene.look();
                cast.attend(&mut scene);
            }
            2 => {
                cast.kill_engine(&scene);
                cast.kill_holder(&mut scene);
                scene.wait_for_engines(cast.engines);
                cast.attend(&mut scene);
            }
            3 => cast.replace(&scene),
            _ => cast.succeed(&mut scene),
        }
        scene.look();
        scene.wait_for_engines(cast.engines);
        assert_eq!(
            scene.engines().len(),
            cast.engines,
            "step {step}: one engine more than died\n{}",
            scene.log()
        );
    }
    let starts = fs::read_to_string(scene.folder.join("starts")).expect("what the engines found");
    let found: Vec<usize> = starts
        .lines()
        .map(|line| line.split(' ').nth(1).expect("two words").parse().expect("a number"))
        .collect();
    // A lost arena would begin anew.
    assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
    assert_eq!(found.len(), cast.engines);
}
