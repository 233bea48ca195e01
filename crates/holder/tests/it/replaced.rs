//! A newer engine takes the place of one that serves.

use std::path::{Path, PathBuf};

use holder::{Keeper, KeeperError, Role};

use crate::{Scene, scene};

/// Another program that does as the first one.
fn program(scene: &Scene, name: &str) -> PathBuf {
    let path = scene.folder.join(name);
    std::os::unix::fs::symlink("/usr/bin/env", &path).expect("a link");
    path
}

fn replace(scene: &Scene, program: &Path) -> Result<(), KeeperError> {
    Keeper::connect(&scene.socket(), Role::Keeper).expect("connected").replace(program)
}

fn refusal(scene: &Scene, program: &Path) -> String {
    match replace(scene, program) {
        Err(KeeperError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_newer_engine_takes_over_again_and_again() {
    const TIMES: usize = 10;
    let Some(mut scene) = scene() else { return };
    scene.holder("holder");
    scene.wait_for_engines(1);
    for times in 1..=TIMES {
        let next = program(&scene, &format!("next-{times}"));
        replace(&scene, &next).expect("it serves");
        scene.look();
        assert_eq!(scene.engines().len(), times + 1, "it serves when that is said");
    }
    // What dies is followed by its like.
    crate::signal(scene.engines()[TIMES], rustix::process::Signal::KILL);
    scene.wait_for_engines(TIMES + 2);
    scene.look();
    let log = scene.log();
    let last = log.lines().rfind(|line| line.contains("an engine is started")).expect("a line");
    assert!(last.contains(&format!("next-{TIMES}")), "{last}");
}

#[test]
fn a_program_that_does_not_get_to_greet_changes_nothing() {
    let Some(mut scene) = scene() else { return };
    scene.holder("holder");
    let engine = scene.wait_for_engines(1);
    let missing = refusal(&scene, &scene.folder.join("nothing"));
    assert!(missing.contains("cannot be started"), "{missing}");
    let broken = refusal(&scene, Path::new("/bin/false"));
    assert!(broken.contains("serves on") && broken.contains("exit status: 1"), "{broken}");
    scene.look();
    assert_eq!(scene.engines(), [engine]);
    // Nothing is left under way.
    replace(&scene, &program(&scene, "good")).expect("it serves");
    scene.look();
}

#[test]
fn a_program_that_dies_before_it_serves_is_followed_by_the_old_one() {
    let Some(mut scene) = scene() else { return };
    scene.holder("holder");
    scene.wait_for_engines(1);
    std::fs::write(scene.folder.join("crash-late"), "").expect("written");
    let why = refusal(&scene, &program(&scene, "bad"));
    assert!(why.contains("old program"), "{why}");
    scene.wait_for_engines(2);
    scene.look();
    let log = scene.log();
    let last = log.lines().rfind(|line| line.contains("an engine is started")).expect("a line");
    assert!(last.contains("/usr/bin/env"), "{last}");
}
