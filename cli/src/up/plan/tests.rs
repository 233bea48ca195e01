//! Which disks a start takes, and how large they become. Sizes are lengths of sparse files: nothing is reserved.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use types::ByteSize;
use uuid::Uuid;

use super::{
    BESIDE, CAPACITY_MIN, DiskPlan, bind, capacity_is_of_files, disk, free_bytes, known_disks, new_disks,
    not_within,
};
use crate::args::UpArgs;
use crate::data_dir::{DataDir, DiskRecord, State};

const MIB: u64 = 1 << 20;

fn args(data: &Path, capacity: Option<u64>, disks: &[&Path]) -> UpArgs {
    UpArgs {
        data: data.to_path_buf(),
        mount: PathBuf::from("/mnt"),
        capacity: capacity.map(ByteSize),
        redundancy: None,
        disks: disks.iter().map(|path| path.to_path_buf()).collect(),
        scrub_days: 7,
        metrics: None,
    }
}

fn file(path: &Path, bytes: u64) {
    File::create(path).and_then(|file| file.set_len(bytes)).expect("a file");
}

fn refusal<T: std::fmt::Debug>(done: anyhow::Result<T>, says: &str) {
    let text = format!("{:#}", done.expect_err("must be refused"));
    assert!(text.contains(says), "{text}");
}

/// A whole data directory with one disk in it and one beside it, both of `bytes`.
fn whole(tmp: &Path, bytes: u64) -> DataDir {
    let (inside, beside) = (tmp.join("data/disks/disk-0"), tmp.join("beside"));
    let mut dir = DataDir::create(&tmp.join("data"), 1).expect("made");
    std::fs::create_dir(dir.disks()).expect("a folder");
    file(&inside, bytes);
    file(&beside, bytes);
    let record = |path: &str| DiskRecord { uuid: Uuid::new_v4(), path: PathBuf::from(path) };
    dir.update(|identity| {
        identity.state = State::Ready;
        identity.disks = vec![record("disks/disk-0"), record(&beside.display().to_string())];
    })
    .expect("updated");
    dir
}

#[test]
fn a_first_start_makes_a_file_of_whole_blocks() {
    let tmp = tempfile::tempdir().expect("a folder");
    let data = tmp.path().join("data");
    let made = |capacity| new_disks(&args(&data, Some(capacity), &[]));
    let smallest = vec![DiskPlan::Make(PathBuf::from("disks/disk-0"), CAPACITY_MIN)];
    assert_eq!(made(CAPACITY_MIN.0).expect("the smallest"), smallest);
    assert_eq!(made(CAPACITY_MIN.0 + 4095).expect("whole blocks"), smallest);
    refusal(made(CAPACITY_MIN.0 - 1), "too small; give at least 256 MiB");
    refusal(made(u64::MAX), "there is no room for");
    let free = free_bytes(&data).expect("the space").0;
    refusal(made(free - BESIDE / 2), "stay for metadata");
    assert!(!data.exists(), "a plan changes nothing");
}

#[test]
fn disks_of_a_first_start_are_told_apart_by_what_is_there() {
    let tmp = tempfile::tempdir().expect("a folder");
    let (data, old, new) = (tmp.path().join("data"), tmp.path().join("old"), tmp.path().join("new"));
    file(&old, 300 * MIB);
    let plan = |capacity, disks: &[&Path]| new_disks(&args(&data, capacity, disks));
    assert_eq!(plan(None, &[&old]).expect("as it is"), [DiskPlan::File(old.clone(), None)]);
    let (grown, made) = (
        DiskPlan::File(old.clone(), Some(ByteSize(400 * MIB))),
        DiskPlan::Make(new.clone(), ByteSize(400 * MIB)),
    );
    assert_eq!(plan(Some(400 * MIB), &[&old, &new]).expect("both"), [grown, made]);
    refusal(plan(Some(280 * MIB), &[&old]), "disks do not shrink");
    refusal(plan(Some(300 * MIB), &[&old, &new, &old]), "given twice");
    refusal(plan(None, &[&tmp.path().join("no/where")]), "make it first");
    refusal(plan(None, &[tmp.path()]), "neither a file nor a block device");
    refusal(plan(None, &[Path::new("/dev/null")]), "neither a file nor a block device");
    assert!(!new.exists(), "a plan changes nothing");
}

#[test]
fn an_empty_file_becomes_a_disk_only_with_a_capacity() {
    let tmp = tempfile::tempdir().expect("a folder");
    let (data, empty) = (tmp.path().join("data"), tmp.path().join("empty"));
    file(&empty, 0);
    refusal(new_disks(&args(&data, None, &[&empty])), "too small (0 B); let it grow with --capacity");
    refusal(new_disks(&args(&data, Some(MIB), &[&empty])), "too small (1.0 MiB)");
    let grown = new_disks(&args(&data, Some(CAPACITY_MIN.0), &[&empty])).expect("large enough");
    assert_eq!(grown, [DiskPlan::File(empty, Some(CAPACITY_MIN))]);
}

#[test]
fn a_whole_directory_keeps_its_disks_and_only_grows_them() {
    let tmp = tempfile::tempdir().expect("a folder");
    let (data, beside) = (tmp.path().join("data"), tmp.path().join("beside"));
    let inside = data.join("disks/disk-0");
    let dir = whole(tmp.path(), 300 * MIB);
    let plan = |capacity, disks: &[&Path]| known_disks(&dir, &args(&data, capacity, disks));
    let grow = |path: &Path, to| DiskPlan::File(path.to_path_buf(), to);
    let as_they_are = [grow(&inside, None), grow(&beside, None)];
    assert_eq!(plan(None, &[]).expect("known"), as_they_are);
    // The file may have its size already, and the disk on it not yet.
    let same = Some(ByteSize(300 * MIB));
    let named = plan(Some(300 * MIB), &[&beside]).expect("named, and of this size");
    assert_eq!(named, [grow(&inside, same), grow(&beside, same)]);
    let larger = Some(ByteSize(310 * MIB));
    assert_eq!(plan(Some(310 * MIB), &[]).expect("grows"), [grow(&inside, larger), grow(&beside, larger)]);
    refusal(plan(Some(299 * MIB), &[]), "disks do not shrink");
    let another = tmp.path().join("another");
    let added = plan(Some(310 * MIB), &[&another]).expect("one more");
    assert_eq!(added[2], DiskPlan::Make(another, ByteSize(310 * MIB)));
    std::fs::remove_file(&beside).expect("removed");
    refusal(plan(None, &[]), "is missing; put it back");
    refusal(plan(None, &[&beside]), "is missing; put it back");
}

#[test]
fn a_mount_below_its_own_data_is_refused() {
    let refused = |mount: &str, data: &str| not_within(Path::new(mount), Path::new(data)).is_err();
    assert!(refused("/a", "/a") && refused("/a/b", "/a") && refused("/a", "/a/b"));
    assert!(!refused("/a", "/ab") && !refused("/a/b", "/a/c"));
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("its address");
    refusal(bind(at), &format!("--metrics {at} cannot be used; choose another port"));
}

#[test]
fn a_disk_that_is_asked_to_have_its_files_size_is_grown_to_it() {
    let tmp = tempfile::tempdir().expect("a folder");
    let path = tmp.path().join("disk");
    std::fs::File::create(&path).and_then(|file| file.set_len(1 << 20)).expect("a file");
    let plan = |capacity: Option<u64>| disk(&path, capacity.map(ByteSize)).expect("a plan");
    // A start that was cut off may have grown the file, and not the disk on it.
    for bytes in [1 << 20, 2 << 20] {
        assert_eq!(plan(Some(bytes)), DiskPlan::File(path.clone(), Some(ByteSize(bytes))));
    }
    assert_eq!(plan(None), DiskPlan::File(path.clone(), None));
    assert!(disk(&path, Some(ByteSize(1 << 19))).is_err());
}

#[test]
fn a_size_for_block_devices_alone_is_refused() {
    let device = || DiskPlan::Device(PathBuf::from("/dev/one"));
    let size = Some(ByteSize(1 << 30));
    refusal(capacity_is_of_files(&[device()], size), "leave it out");
    assert!(capacity_is_of_files(&[device()], None).is_ok());
    let mixed = [device(), DiskPlan::File(PathBuf::from("two"), size)];
    assert!(capacity_is_of_files(&mixed, size).is_ok());
}
