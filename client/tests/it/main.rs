//! Volumes mounted for real, over metadata and data in memory.
//!
//! As root with /dev/fuse; elsewhere each test says that it was skipped.

mod service;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use client::{Ended, Mount, MountOptions, StartError, UnmountError};
use clock::SystemClock;
use extents::memory::MemoryStore;
use extents::{FixedPlacement, Group};
use service::MemoryMeta;
use tokio::runtime::Runtime;

/// What outlives a mount.
struct World {
    meta: Arc<MemoryMeta>,
    groups: Vec<Group>,
    runtime: Runtime,
    starts: u64,
    dir: PathBuf,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Option<World> {
        if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root and /dev/fuse");
            return None;
        }
        let (meta, id) = MemoryMeta::new();
        let groups = vec![Group::numbered(id, vec![Arc::new(MemoryStore::new(1 << 30))])];
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("open to all");
        let dir = folder.path().canonicalize().expect("its path");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
        Some(World { meta, groups, runtime: runtime.expect("a runtime"), starts: 0, dir, _folder: folder })
    }

    fn options(&mut self) -> MountOptions {
        self.starts += 1;
        self.meta.register(1, self.starts);
        MountOptions {
            dir: self.dir.clone(),
            volume: "main".to_string(),
            arena_bytes: 64 << 20,
            service: self.meta.clone(),
            placement: FixedPlacement::of(self.groups.clone()),
            node: 1,
            incarnation: self.starts,
            clock: Arc::new(SystemClock::new()),
            threads: 2,
        }
    }

    fn mount(&mut self) -> Mount {
        let options = self.options();
        self.runtime.block_on(client::start(options)).expect("a mount")
    }

    fn stop(&self, mount: Mount) {
        self.runtime.block_on(async {
            mount.unmount().await.expect("nobody uses it");
            assert_eq!(mount.ended().await, Ended::Unmounted);
            mount.stop().await.expect("all is stored");
        });
    }
}

impl Drop for World {
    /// A test that failed leaves no dead mount behind; otherwise there is nothing to take away.
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        let _ = rustix::mount::unmount(&self.dir, flags);
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 4096 + seed) as u8).collect()
}

#[test]
fn what_was_written_is_there_after_the_next_mount() {
    let Some(mut world) = World::new() else { return };
    let mount = world.mount();
    fs::create_dir_all(world.dir.join("a/b")).expect("mkdir");
    for (name, len) in [("a/empty", 0), ("a/small", 100), ("a/b/large", 5 << 20), ("odd", 70_001)] {
        fs::write(world.dir.join(name), pattern(len, len)).expect(name);
    }
    let mut file = File::options().append(true).open(world.dir.join("a/small")).expect("open");
    file.write_all(b"more").expect("append");
    drop(file);
    std::os::unix::fs::symlink("odd", world.dir.join("link")).expect("symlink");
    fs::rename(world.dir.join("odd"), world.dir.join("a/odd")).expect("rename");
    fs::remove_file(world.dir.join("a/empty")).expect("unlink");
    let check = |dir: &Path| {
        let small = fs::read(dir.join("a/small")).expect("read");
        assert_eq!(small, [pattern(100, 100).as_slice(), b"more"].concat());
        assert!(fs::read(dir.join("a/b/large")).expect("read") == pattern(5 << 20, 5 << 20));
        assert!(fs::read(dir.join("a/odd")).expect("read") == pattern(70_001, 70_001));
        assert_eq!(fs::read_link(dir.join("link")).expect("readlink"), Path::new("odd"));
        let mut names: Vec<_> =
            fs::read_dir(dir.join("a")).expect("readdir").map(|e| e.expect("entry").file_name()).collect();
        names.sort();
        assert_eq!(names, ["b", "odd", "small"]);
    };
    check(&world.dir);
    world.stop(mount);
    assert_eq!(fs::read_dir(&world.dir).expect("the bare folder").count(), 0);
    let mount = world.mount();
    check(&world.dir);
    world.stop(mount);
}

#[test]
fn a_mount_in_use_names_its_holder_and_is_detached_without_loss() {
    let Some(mut world) = World::new() else { return };
    let mount = world.mount();
    let mut file = File::create(world.dir.join("f")).expect("create");
    file.write_all(&pattern(300_000, 1)).expect("write");
    let busy = world.runtime.block_on(mount.unmount()).expect_err("in use");
    let UnmountError::Busy { holders, .. } = busy else { panic!("{busy}") };
    assert!(
        holders.iter().any(|holder| holder.to_string().contains(&std::process::id().to_string())),
        "{holders:?}"
    );
    world.runtime.block_on(async {
        mount.detach().await.expect("detach");
        mount.stop().await.expect("all is stored");
    });
    let late = file.write_all(b"late").expect_err("nothing would store it");
    assert_eq!(late.raw_os_error(), Some(5));
    drop(file);
    let mount = world.mount();
    assert!(fs::read(world.dir.join("f")).expect("read") == pattern(300_000, 1));
    world.stop(mount);
}

#[test]
fn set_id_bits_do_not_outlive_a_new_owner_or_a_stranger() {
    use std::os::unix::process::CommandExt;
    let Some(mut world) = World::new() else { return };
    let mount = world.mount();
    let (path, other) = (world.dir.join("f"), world.dir.join("g"));
    let mode = |path: &Path| fs::metadata(path).expect("stat").mode() & 0o7777;
    let set_id = |path: &Path| {
        fs::set_permissions(path, PermissionsExt::from_mode(0o6777)).expect("chmod");
        assert_eq!(mode(path), 0o6777);
    };
    File::create(&path).expect("create");
    File::create(&other).expect("create");
    for owner in [(Some(5), Some(6)), (None, None)] {
        set_id(&path);
        std::os::unix::fs::chown(&path, owner.0, owner.1).expect("chown");
        assert_eq!(mode(&path), 0o777, "chown to {owner:?}");
    }
    for script in ["echo more >> f", "truncate -s 1 f", "truncate -s 0 f"] {
        set_id(&path);
        set_id(&other);
        let mut shell = Command::new("sh");
        let done = shell.args(["-ec", script]).current_dir(&world.dir).uid(65534).gid(65534).status();
        assert!(done.expect("sh").success());
        assert_eq!((mode(&path), mode(&other)), (0o777, 0o6777), "{script}");
    }
    world.stop(mount);
    let mount = world.mount();
    assert_eq!((mode(&path), mode(&other)), (0o777, 0o6777), "stored");
    world.stop(mount);
}

#[test]
fn figures_say_what_was_done() {
    let Some(mut world) = World::new() else { return };
    let mount = world.mount();
    fs::write(world.dir.join("f"), pattern(10_000, 2)).expect("write");
    let file = File::open(world.dir.join("f")).expect("open");
    file.sync_all().expect("fsync");
    // An operation is counted after its answer was sent.
    while mount.figures().running > 0 {
        std::thread::yield_now();
    }
    let figures = mount.figures();
    let count = |kind| figures.operations.iter().find(|op| op.kind == kind).expect("its figures").succeeded;
    assert_eq!((count(client::OpKind::Create), count(client::OpKind::Fsync)), (1, 1));
    assert_eq!((figures.files.dirty_bytes, figures.arena_capacity), (0, 64 << 20));
    assert!(figures.files.nodes >= 1);
    drop(file);
    world.stop(mount);
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let Some(mut world) = World::new() else { return };
    let refused = |world: &mut World, change: &dyn Fn(&mut MountOptions)| {
        let mut options = world.options();
        change(&mut options);
        world.runtime.block_on(client::start(options)).err().expect("refused")
    };
    let error = refused(&mut world, &|options| options.volume = "other".to_string());
    assert_eq!(error.to_string(), "there is no volume named 'other'");
    let error = refused(&mut world, &|options| options.dir = PathBuf::from("/nowhere/at/all"));
    assert!(matches!(error, StartError::Mount(client::MountError::NoMountPoint(_))), "{error}");
    let error = refused(&mut world, &|options| options.arena_bytes = 1);
    assert!(matches!(error, StartError::Arena(_)), "{error}");
    let first = world.mount();
    let busy = refused(&mut world, &|_| {});
    assert!(matches!(busy, StartError::Mount(client::MountError::Busy { .. })), "{busy}");
    world.runtime.block_on(first.unmount()).expect("unmount");
    // The refused start has registered anew and so closed the first one's session, which had nothing to store.
    world.runtime.block_on(first.stop()).expect("stop");
    let mount = world.mount();
    world.stop(mount);
}
