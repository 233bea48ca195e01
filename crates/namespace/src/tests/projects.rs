//! Quotas of directories: counted, limited, set and removed under use.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use types::{BLOCK, Errno, Ino, VolumeId};

use super::{ROOT, World, attr_of, done};
use crate::{
    Answer, Command, Content, FallocateMode, FileKind, NewKind, Query, QuotaInfo, QuotaState, RenameMode,
    Reply,
};

const VOLUME: VolumeId = VolumeId(1);

fn set(world: &mut World, dir: Ino, bytes: Option<u64>, inodes: Option<u64>) -> Reply {
    world.run(Command::SetQuota { dir, bytes, inodes })
}

fn make(world: &mut World, dir: Ino, name: &str) -> Result<Ino, Errno> {
    world.create_as(dir, name, NewKind::File, 0o644, ROOT).map(|attr| attr.ino)
}

fn rename(world: &mut World, from: (Ino, &str), to: (Ino, &str)) -> Result<(), Errno> {
    let command = Command::Rename {
        parent: from.0,
        name: from.1.into(),
        new_parent: to.0,
        new_name: to.1.into(),
        mode: RenameMode::Replace,
        pinned: false,
        cred: ROOT,
    };
    done(world.run(command))
}

fn link(world: &mut World, ino: Ino, parent: Ino, name: &str) -> Result<(), Errno> {
    done(world.run(Command::Link { ino, parent, name: name.into() }))
}

fn unlink(world: &mut World, parent: Ino, name: &str, pinned: bool) -> Result<(), Errno> {
    done(world.run(Command::Unlink { parent, name: name.into(), pinned, cred: ROOT }))
}

fn count(world: &mut World, steps: u32) -> u32 {
    match world.run(Command::CountQuota { steps }) {
        Reply::Left(left) => left,
        other => panic!("{other:?}"),
    }
}

fn quotas(world: &World) -> Vec<QuotaInfo> {
    match world.ask(Query::Quotas { volume: VOLUME, after: Ino(0), max: 1000 }) {
        Answer::Quotas(quotas) => quotas,
        other => panic!("{other:?}"),
    }
}

/// Bytes and inodes of a directory's quota.
fn used(world: &World, dir: Ino) -> (u64, u64) {
    let quotas = quotas(world);
    let quota = quotas.iter().find(|quota| quota.dir == dir).unwrap();
    (quota.used_bytes, quota.inodes)
}

fn label(world: &World, ino: Ino) -> Ino {
    world.attr(ino).unwrap().project
}

#[test]
fn what_lies_below_counts_once_in_each_quota_around_it() {
    let mut world = World::new();
    let outer = world.dir(Ino::ROOT, "outer");
    let inner = world.dir(outer, "inner");
    let (a, b) = (make(&mut world, outer, "a").unwrap(), make(&mut world, inner, "b").unwrap());
    done(world.write(a, &[(0, 8192)])).unwrap();
    done(world.commit(b, Content::Inline(vec![1; 10]), 10)).unwrap();
    // In either order the same comes of it.
    assert_eq!(set(&mut world, inner, Some(1 << 30), None), Reply::Left(0));
    assert_eq!(set(&mut world, outer, Some(1 << 30), Some(100)), Reply::Left(0));
    assert_eq!(used(&world, inner), (BLOCK, 2));
    assert_eq!(used(&world, outer), (3 * BLOCK, 4));
    let around = Query::QuotasOf { volume: VOLUME, ino: b };
    let Answer::Quotas(chain) = world.ask(around) else { panic!("no quotas") };
    assert_eq!(chain.iter().map(|quota| quota.dir).collect::<Vec<_>>(), [inner, outer]);
    assert_eq!(world.ask(Query::Path { volume: VOLUME, ino: inner }), Answer::Bytes(b"/outer/inner".into()));

    done(world.write(b, &[(0, 8192)])).unwrap();
    assert_eq!((used(&world, inner).0, used(&world, outer).0), (2 * BLOCK, 4 * BLOCK));
    unlink(&mut world, inner, "b", false).unwrap();
    assert_eq!(used(&world, inner), (2 * BLOCK, 2), "what waits for reclaim counts");
    while world.reclaim(1000) > 0 {}
    assert_eq!((used(&world, inner), used(&world, outer)), ((0, 1), (2 * BLOCK, 3)));

    assert_eq!(world.run(Command::RemoveQuota { dir: outer }), Reply::Left(0));
    assert_eq!(quotas(&world).len(), 1);
    assert_eq!((label(&world, a), label(&world, outer), quotas(&world)[0].outer), (Ino(0), Ino(0), Ino(0)));
    assert_eq!(world.run(Command::RemoveQuota { dir: outer }), Reply::Failed(Errno::ENODATA));
    world.assert_sound();
}

#[test]
fn growth_over_a_limit_is_refused_and_nothing_else_is() {
    let mut world = World::new();
    let outer = world.dir(Ino::ROOT, "outer");
    let dir = world.dir(outer, "dir");
    set(&mut world, outer, None, Some(4));
    set(&mut world, dir, Some(4 * BLOCK), None);
    let file = make(&mut world, dir, "a").unwrap();
    make(&mut world, dir, "b").unwrap();
    assert_eq!(make(&mut world, dir, "c"), Err(Errno::EDQUOT), "the fifth inode of the outer one");
    let allocate = |world: &mut World, len| {
        let mode = FallocateMode::Allocate;
        done(world.run(Command::Fallocate { ino: file, mode, offset: 0, len, kill_priv: false }))
    };
    assert_eq!(allocate(&mut world, 4 * BLOCK + 1), Err(Errno::EDQUOT));
    assert_eq!(allocate(&mut world, 4 * BLOCK), Ok(()));
    // Below what is used: what is there stays, and can be rewritten.
    set(&mut world, dir, Some(BLOCK), Some(1));
    done(world.write(file, &[(0, 8192)])).unwrap();
    assert_eq!(allocate(&mut world, 5 * BLOCK), Err(Errno::EDQUOT));
    assert_eq!(used(&world, dir), (4 * BLOCK, 3));
    unlink(&mut world, dir, "b", false).unwrap();
    while world.reclaim(1000) > 0 {}
    assert_eq!(make(&mut world, dir, "c"), Err(Errno::EDQUOT));
    // Accepted before the limit came down.
    done(world.write(file, &[(4 * BLOCK, 4096)])).unwrap();
    assert_eq!(used(&world, dir), (5 * BLOCK, 2));
    let renamed = rename(&mut world, (dir, "a"), (dir, "z"));
    assert_eq!(renamed, Ok(()));
    assert_eq!(set(&mut world, dir, None, None), Reply::Failed(Errno::EINVAL));
    assert_eq!(set(&mut world, file, Some(1), None), Reply::Failed(Errno::ENOTDIR));
    world.assert_sound();
}

#[test]
fn the_volume_has_limits_of_its_own() {
    let mut world = World::new();
    assert_eq!(world.run(Command::RemoveQuota { dir: Ino::ROOT }), Reply::Failed(Errno::ENODATA));
    assert_eq!(set(&mut world, Ino::ROOT, Some(BLOCK), Some(2)), Reply::Left(0));
    let file = world.file("a");
    assert_eq!(make(&mut world, Ino::ROOT, "b"), Err(Errno::ENOSPC));
    let allocate = |world: &mut World, len| {
        let mode = FallocateMode::Allocate;
        done(world.run(Command::Fallocate { ino: file, mode, offset: 0, len, kill_priv: false }))
    };
    assert_eq!(allocate(&mut world, BLOCK + 1), Err(Errno::ENOSPC));
    // The size that follows from the disks is set at each start, and does not take the limit away.
    let limit = 1 << 30;
    assert_eq!(world.service(Command::SetLimit { volume: VOLUME, limit }), Reply::Done);
    assert_eq!(allocate(&mut world, BLOCK + 1), Err(Errno::ENOSPC));
    assert_eq!(world.run(Command::RemoveQuota { dir: Ino::ROOT }), Reply::Left(0));
    assert_eq!(allocate(&mut world, BLOCK + 1), Ok(()));
    assert_eq!(allocate(&mut world, limit + 1), Err(Errno::ENOSPC));
    world.assert_sound();
}

#[test]
fn no_name_crosses_a_quota() {
    let mut world = World::new();
    let (one, two) = (world.dir(Ino::ROOT, "one"), world.dir(Ino::ROOT, "two"));
    let below = world.dir(one, "below");
    set(&mut world, one, Some(1 << 20), None);
    set(&mut world, two, Some(1 << 20), None);
    let (file, outside) = (make(&mut world, below, "f").unwrap(), world.file("outside"));
    assert_eq!(rename(&mut world, (below, "f"), (two, "f")), Err(Errno::EXDEV));
    assert_eq!(rename(&mut world, (one, "below"), (Ino::ROOT, "below")), Err(Errno::EXDEV));
    assert_eq!(rename(&mut world, (Ino::ROOT, "outside"), (one, "f")), Err(Errno::EXDEV));
    assert_eq!(link(&mut world, file, Ino::ROOT, "g"), Err(Errno::EXDEV));
    assert_eq!(link(&mut world, outside, one, "g"), Err(Errno::EXDEV));
    assert_eq!(rename(&mut world, (below, "f"), (one, "f")), Ok(()));
    assert_eq!(link(&mut world, file, below, "g"), Ok(()));
    // The directory of a quota itself is a name like any other around it.
    assert_eq!(rename(&mut world, (Ino::ROOT, "one"), (Ino::ROOT, "1")), Ok(()));
    assert_eq!(rename(&mut world, (Ino::ROOT, "1"), (two, "1")), Err(Errno::EXDEV));
    let exchange = Command::Rename {
        parent: Ino::ROOT,
        name: b"outside".to_vec(),
        new_parent: two,
        new_name: b"x".to_vec(),
        mode: RenameMode::Exchange,
        pinned: false,
        cred: ROOT,
    };
    make(&mut world, two, "x").unwrap();
    assert_eq!(world.run(exchange), Reply::Failed(Errno::EXDEV));
    world.assert_sound();
}

#[test]
fn a_file_with_a_name_outside_counts_outside() {
    let mut world = World::new();
    let dir = world.dir(Ino::ROOT, "dir");
    let below = world.dir(dir, "below");
    let (both, inside) = (make(&mut world, dir, "both").unwrap(), make(&mut world, dir, "in").unwrap());
    link(&mut world, both, Ino::ROOT, "both").unwrap();
    link(&mut world, inside, below, "in").unwrap();
    set(&mut world, dir, Some(1 << 20), None);
    assert_eq!((label(&world, both), label(&world, inside), used(&world, dir).1), (Ino(0), dir, 3));
    assert_eq!(rename(&mut world, (dir, "both"), (below, "both")), Ok(()));
    assert_eq!(link(&mut world, both, dir, "again"), Err(Errno::EXDEV));
    assert_eq!(unlink(&mut world, Ino::ROOT, "both", false), Ok(()));
    world.assert_sound();
    assert_eq!(world.run(Command::RemoveQuota { dir }), Reply::Left(0));
    assert_eq!(quotas(&world), []);
    world.assert_sound();
}

#[test]
fn a_quota_goes_with_its_directory_and_what_was_open() {
    let mut world = World::new();
    let dir = world.dir(Ino::ROOT, "dir");
    set(&mut world, dir, Some(1 << 20), None);
    let file = make(&mut world, dir, "f").unwrap();
    done(world.write(file, &[(0, 4096)])).unwrap();
    unlink(&mut world, dir, "f", true).unwrap();
    let rmdir = Command::Rmdir { parent: Ino::ROOT, name: b"dir".to_vec(), pinned: false, cred: ROOT };
    done(world.run(rmdir)).unwrap();
    while world.reclaim(1000) > 0 {}
    assert_eq!(quotas(&world), []);
    world.assert_sound();
    // A quota that is removed and set again finds what was open meanwhile.
    done(world.run(Command::Unpin { ino: file })).unwrap();
    while world.reclaim(1000) > 0 {}
    let rows = world.rows.0.keys().filter(|key| key[5] == crate::keys::kind::PROJECT).count();
    assert_eq!(rows, 0);
    let dir = world.dir(Ino::ROOT, "dir");
    set(&mut world, dir, Some(1 << 20), None);
    let file = make(&mut world, dir, "f").unwrap();
    unlink(&mut world, dir, "f", true).unwrap();
    assert_eq!(world.run(Command::RemoveQuota { dir }), Reply::Left(0));
    world.assert_sound();
    set(&mut world, dir, Some(1 << 20), None);
    assert_eq!(used(&world, dir).1, 2);
    done(world.run(Command::Unpin { ino: file })).unwrap();
    while world.reclaim(1000) > 0 {}
    assert_eq!(used(&world, dir).1, 1);
    world.assert_sound();
}

#[test]
fn a_large_tree_is_counted_in_steps_while_it_is_used() {
    let mut world = World::new();
    let dir = world.dir(Ino::ROOT, "dir");
    let dirs: Vec<Ino> = (0..30).map(|i| world.dir(dir, &format!("d{i}"))).collect();
    for (i, dir) in (0..2_500).zip(dirs.iter().cycle()) {
        make(&mut world, *dir, &format!("f{i}")).unwrap();
    }
    let Reply::Left(left) = set(&mut world, dir, Some(1 << 30), None) else { panic!("refused") };
    assert!(left > 0);
    assert_eq!(quotas(&world)[0].state, QuotaState::Counting);
    let other = world.dir(Ino::ROOT, "other");
    assert_eq!(set(&mut world, other, Some(1), None), Reply::Failed(Errno::EBUSY));
    assert_eq!(world.run(Command::RemoveQuota { dir }), Reply::Failed(Errno::EBUSY));
    // From where the walk has been to where it comes to, back, and out.
    let (was, comes) = (label(&world, dirs[0]), *dirs.last().unwrap());
    assert_eq!(was, dir);
    rename(&mut world, (dirs[0], "f0"), (comes, "f0")).unwrap();
    rename(&mut world, (comes, "f29"), (dirs[0], "f29")).unwrap();
    rename(&mut world, (dirs[0], "f30"), (Ino::ROOT, "f30")).unwrap();
    make(&mut world, dirs[0], "new").unwrap();
    make(&mut world, comes, "new").unwrap();
    world.assert_sound();
    let mut steps = 0;
    while count(&mut world, 400) > 0 {
        steps += 1;
        world.assert_sound();
    }
    assert!(steps >= 3, "{steps} steps");
    assert_eq!(quotas(&world)[0].state, QuotaState::Set);
    assert_eq!(used(&world, dir).1, 1 + 30 + 2_500 - 1 + 2);
    assert!(matches!(world.run(Command::RemoveQuota { dir }), Reply::Left(1..)));
    while count(&mut world, 1000) > 0 {}
    assert_eq!(quotas(&world), []);
    world.assert_sound();
}

/// Numbers that an operation is made of.
type Seed = (u8, u64, u64, u64);

/// A random tree under random quotas, with an idea of its own of what counts where.
struct Forest {
    world: World,
    quotas: BTreeSet<Ino>,
    dirs: Vec<Ino>,
}

impl Forest {
    fn dir(&self, seed: u64) -> Ino {
        self.dirs[seed as usize % self.dirs.len()]
    }

    fn parent(&self, dir: Ino) -> Ino {
        match self.world.ask(Query::Parent { volume: VOLUME, ino: dir }) {
            Answer::Parent(parent) => parent,
            other => panic!("{other:?}"),
        }
    }

    /// The nearest directory with a quota, by the way up.
    fn nearest(&self, dir: Ino) -> Ino {
        let mut at = dir;
        while at != Ino::ROOT {
            if self.quotas.contains(&at) {
                return at;
            }
            at = self.parent(at);
        }
        Ino(0)
    }

    fn walks(&self) -> bool {
        match self.world.ask(Query::Volume { volume: VOLUME }) {
            Answer::Volume(volume) => volume.counting != Ino(0),
            other => panic!("{other:?}"),
        }
    }

    fn step(&mut self, (op, a, b, c): Seed) {
        let (dir, to) = (self.dir(a), self.dir(b));
        let name = |seed: u64| format!("{}", seed % 4);
        match op % 12 {
            0 | 1 => {
                let made = self.world.create_as(dir, &name(c), NewKind::Directory, 0o755, ROOT);
                self.dirs.extend(made.map(|attr| attr.ino));
            }
            2 | 3 => {
                if let Ok(file) = make(&mut self.world, dir, &name(c)) {
                    done(self.world.commit(file, Content::Inline(vec![1; 9]), 9)).unwrap();
                }
            }
            4..7 => self.rename(dir, &name(c), to, &name(c / 4), c),
            7 => {
                if let Ok(attr) = self.world.lookup(dir, &name(c)) {
                    let got = link(&mut self.world, attr.ino, to, &name(c / 4));
                    if got == Err(Errno::EXDEV) {
                        assert_ne!(attr.project, label(&self.world, to));
                    }
                }
            }
            8 => {
                let parent = dir;
                let (name, pinned) = (name(c).into_bytes(), c % 8 < 4);
                let found = self.world.lookup(parent, core::str::from_utf8(&name).unwrap());
                let rmdir = Command::Rmdir { parent, name: name.clone(), pinned, cred: ROOT };
                if done(self.world.run(rmdir)).is_ok() {
                    let ino = found.unwrap().ino;
                    self.dirs.retain(|dir| *dir != ino);
                    self.quotas.remove(&ino);
                } else {
                    let _ = attr_of(self.world.run(Command::Unlink { parent, name, pinned, cred: ROOT }));
                }
            }
            9 => {
                let new = !self.quotas.contains(&dir) && dir != Ino::ROOT;
                match set(&mut self.world, dir, Some(c), Some(c)) {
                    Reply::Left(_) if dir != Ino::ROOT => drop(self.quotas.insert(dir)),
                    Reply::Failed(errno) => assert!(new && errno == Errno::EBUSY, "{errno}"),
                    _ => {}
                }
                // Only counted here: what limits do is tested apart.
                set(&mut self.world, dir, Some(u64::MAX), Some(u64::MAX));
            }
            10 => match self.world.run(Command::RemoveQuota { dir }) {
                Reply::Left(_) => drop(self.quotas.remove(&dir)),
                Reply::Failed(Errno::EBUSY) => {}
                Reply::Failed(Errno::ENODATA) => assert!(!self.quotas.contains(&dir)),
                other => panic!("{other:?}"),
            },
            _ => {
                count(&mut self.world, (c % 3) as u32);
                self.world.reclaim((c % 20) as u32);
            }
        }
    }

    fn rename(&mut self, dir: Ino, name: &str, to: Ino, new_name: &str, c: u64) {
        let mode = [RenameMode::Replace, RenameMode::Exchange, RenameMode::Whiteout][c as usize / 16 % 3];
        let there = self.world.lookup(to, new_name);
        let found = self.world.lookup(dir, name);
        let command = Command::Rename {
            parent: dir,
            name: name.into(),
            new_parent: to,
            new_name: new_name.into(),
            mode,
            pinned: false,
            cred: ROOT,
        };
        let got = done(self.world.run(command));
        let moved = found.map(|attr| attr.ino) != there.map(|attr| attr.ino);
        if got.is_ok()
            && moved
            && mode != RenameMode::Exchange
            && let Ok(replaced) = there
        {
            self.dirs.retain(|dir| *dir != replaced.ino);
            self.quotas.remove(&replaced.ino);
        }
        if self.walks() {
            return;
        }
        match got {
            // Only a file that counts outside may go there.
            Ok(()) if found.unwrap().nlink == 1 && found.unwrap().kind == FileKind::Directory => {
                assert_eq!(self.nearest(dir), self.nearest(to));
            }
            Err(Errno::EXDEV) => assert_ne!(self.nearest(dir), self.nearest(to)),
            _ => {}
        }
    }

    /// Every directory counts for the nearest quota, every file there or, having had a name outside, further out.
    fn compare(&mut self) {
        while count(&mut self.world, 7) > 0 {
            self.world.assert_sound();
        }
        self.world.assert_sound();
        let known: BTreeSet<Ino> = quotas(&self.world).iter().map(|quota| quota.dir).collect();
        assert_eq!(known, self.quotas);
        for dir in &self.dirs {
            let nearest = self.nearest(*dir);
            assert_eq!(label(&self.world, *dir), nearest);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_right_whatever_happens_while_they_are_taken(
        seeds in prop::collection::vec(any::<Seed>(), 1..150),
    ) {
        let mut forest = Forest { world: World::new(), quotas: BTreeSet::new(), dirs: vec![Ino::ROOT] };
        for (at, seed) in seeds.into_iter().enumerate() {
            forest.step(seed);
            if at % 5 == 4 {
                forest.world.assert_sound();
            }
        }
        forest.compare();
    }
}
