//! The model is right about what a crash may leave behind, and notices what it must not.

use std::fs;
use std::path::Path;

use super::{Model, Step};
use crate::random::content;

fn create(name: &str, file: u64, len: usize) -> Step {
    Step::Create { name: name.into(), file, seed: file, len }
}

/// A folder that holds `a` (100 bytes), `b` (50 bytes) and the folder `d`, and its model.
fn folder() -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut model = Model::default();
    for step in [create("a", 1, 100), create("b", 2, 50), Step::MakeFolder { name: "d".into() }] {
        model.apply(&step);
    }
    write(folder.path(), "a", &content(1, 100));
    write(folder.path(), "b", &content(2, 50));
    fs::create_dir(folder.path().join("d")).expect("make d");
    (folder, model)
}

fn write(root: &Path, name: &str, bytes: &[u8]) {
    fs::write(root.join(name), bytes).expect("write");
}

#[test]
fn what_was_acknowledged_has_to_be_there() {
    let (folder, model) = folder();
    let root = folder.path();
    assert_eq!(model.check(root, None).expect("all right"), model);
    write(root, "a", &content(1, 99));
    assert!(model.check(root, None).is_err(), "a byte less");
    let mut flipped = content(1, 100);
    flipped[57] ^= 1;
    write(root, "a", &flipped);
    assert!(model.check(root, None).is_err(), "a bit flipped");
    write(root, "a", &content(1, 100));
    write(root, "c", b"");
    assert!(model.check(root, None).is_err(), "a name that nobody made");
    fs::remove_file(root.join("c")).expect("remove");
    fs::remove_dir(root.join("d")).expect("remove");
    assert!(model.check(root, None).is_err(), "a folder lost");
    fs::create_dir(root.join("d")).expect("make");
    fs::remove_file(root.join("b")).expect("remove");
    assert!(model.check(root, None).is_err(), "a file lost");
    fs::hard_link(root.join("a"), root.join("b")).expect("link");
    assert!(model.check(root, None).is_err(), "a link where a file was");
}

#[test]
fn a_step_in_flight_may_have_happened_in_part() {
    let (folder, model) = folder();
    let root = folder.path();
    let append = Step::Append { name: "a".into(), seed: 9, len: 40 };
    assert_eq!(model.check(root, Some(&append)).expect("not at all"), model);
    let mut part = content(1, 100);
    part.extend(&content(9, 40)[..20]);
    part.extend([0; 5]);
    write(root, "a", &part);
    let now = model.check(root, Some(&append)).expect("in part");
    assert_eq!(*now.files[&1], part, "the model is what is there");
    assert!(now.check(root, None).is_ok());
    part[90] = 0;
    write(root, "a", &part);
    assert!(model.check(root, Some(&append)).is_err(), "what was acknowledged is not in flight");
}

#[test]
fn overwrites_leave_old_or_new_bytes() {
    let (folder, model) = folder();
    let root = folder.path();
    let step = Step::Overwrite { name: "a".into(), at: 10, seed: 8, len: 20 };
    let mut bytes = content(1, 100);
    bytes[10..20].copy_from_slice(&content(8, 20)[..10]);
    write(root, "a", &bytes);
    assert!(model.check(root, Some(&step)).is_ok());
    bytes[12] = 0;
    write(root, "a", &bytes);
    assert!(model.check(root, Some(&step)).is_err(), "neither old nor new");
}

#[test]
fn names_change_at_once_or_not_at_all() {
    let (folder, model) = folder();
    let root = folder.path();
    let step = Step::Rename { from: "a".into(), to: "b".into() };
    assert_eq!(model.check(root, Some(&step)).expect("not yet"), model);
    fs::rename(root.join("a"), root.join("b")).expect("rename");
    let now = model.check(root, Some(&step)).expect("done");
    assert_eq!(now.names.len(), 1);
    assert_eq!(*now.files[&1], content(1, 100));
    assert!(model.check(root, None).is_err(), "nobody asked for it");
    write(root, "b", &content(2, 50));
    assert!(
        model.check(root, Some(&step)).is_err(),
        "the old name is gone and the new one holds the old file"
    );
    fs::remove_file(root.join("b")).expect("remove");
    assert!(model.check(root, Some(&step)).is_err(), "both are gone");
}

#[test]
fn links_share_their_file() {
    let (folder, mut model) = folder();
    let root = folder.path();
    let step = Step::Link { from: "a".into(), to: "d/l".into() };
    fs::hard_link(root.join("a"), root.join("d/l")).expect("link");
    assert!(model.check(root, Some(&step)).is_ok());
    model.apply(&step);
    assert!(model.check(root, None).is_ok());
    fs::remove_file(root.join("d/l")).expect("remove");
    write(root, "d/l", &content(1, 100));
    assert!(model.check(root, None).is_err(), "equal, but not the same");
}
