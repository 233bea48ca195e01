//! Random commands, against the reference after each.

mod lists;
mod maps;

use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use types::{Errno, Ino, Nanos, VolumeId};

use super::reference::Reference;
use super::{World, attr_of, done, plain};
use crate::{
    Answer, Attr, Command, Commit, Content, Cred, Entry, FallocateMode, FileKind, NewKind, Query, RenameMode,
    Reply, Segment, SetAttr, SetTime, apply,
};

const VOLUME: VolumeId = VolumeId(1);

/// Numbers that an operation is made of.
type Seed = (u8, u64, u64, u64);

struct Pair {
    world: World,
    model: Reference,
    gone: Vec<u64>,
    /// What a compactor read, some while ago.
    read: Option<(u64, Vec<Segment>)>,
}

fn pick<T: Copy>(from: &[T], seed: u64) -> T {
    from[(seed % from.len() as u64) as usize]
}

fn name(seed: u64) -> Vec<u8> {
    vec![b'a' + (seed % 5) as u8]
}

fn cred(seed: u64) -> Cred {
    pick(&[Cred { uid: 0, gid: 0 }, Cred { uid: 1000, gid: 100 }, Cred { uid: 1001, gid: 101 }], seed)
}

impl Pair {
    fn new(hash_bits: u8) -> Pair {
        let mut world = World::new();
        world.set_hash_bits(hash_bits);
        let Attr { mode, ctime, .. } = world.attr(Ino::ROOT).unwrap();
        let mut root = Reference::node(FileKind::Directory, mode, super::ROOT, ctime);
        root.parent = 1;
        let model = Reference { nodes: [(1, root)].into(), now: ctime };
        Pair { world, model, gone: Vec::new(), read: None }
    }

    fn any(&self, seed: u64) -> u64 {
        let all: Vec<u64> = self.model.nodes.keys().copied().collect();
        pick(&all, seed)
    }

    /// Mostly one of the kind, now and then anything.
    fn some(&self, kind: FileKind, seed: u64) -> u64 {
        let of_kind: Vec<u64> =
            self.model.nodes.iter().filter(|(_, node)| node.kind == kind).map(|(ino, _)| *ino).collect();
        if of_kind.is_empty() || seed % 16 == 15 { self.any(seed / 16) } else { pick(&of_kind, seed / 16) }
    }

    fn dir(&self, seed: u64) -> u64 {
        self.some(FileKind::Directory, seed)
    }

    /// Runs a command; the model's clock then shows the time at which it was applied.
    fn run(&mut self, command: Command) -> Reply {
        let reply = self.world.run(command);
        self.model.now = self.world.time;
        reply
    }

    fn step(&mut self, (op, a, b, c): Seed) {
        let before: Vec<u64> = self.model.nodes.keys().copied().collect();
        match op % 17 {
            0..3 => self.create(a, b, c),
            3 => self.link(a, b, c),
            4 => self.remove(false, a, b, c),
            5 => self.remove(true, a, b, c),
            6 | 7 => self.rename(a, b, c),
            8 => self.set_attr(a, b, c),
            9 => self.truncate(a, b),
            10 | 11 => self.commit(a, b, c),
            12 => self.shatter(a, b, c),
            13 => self.fallocate(a, b, c),
            14 => self.xattr(a, b, c),
            15 => self.copy(a, b, c),
            _ => self.rest(a, b),
        }
        self.gone.extend(before.into_iter().filter(|ino| !self.model.nodes.contains_key(ino)));
    }

    fn create(&mut self, a: u64, b: u64, c: u64) {
        let (dir, name, cred) = (self.dir(a), name(b), cred(c / 8));
        let (kind, is) = match c % 8 {
            0..3 => (NewKind::File, FileKind::File),
            3 | 4 => (NewKind::Directory, FileKind::Directory),
            5 => (NewKind::Symlink(b"to/somewhere".to_vec()), FileKind::Symlink),
            6 => (NewKind::Fifo, FileKind::Fifo),
            _ => (NewKind::BlockDevice(77), FileKind::BlockDevice),
        };
        let mode = (b / 8) as u32 & 0o7777;
        let command =
            Command::Create { parent: Ino(dir), name: name.clone(), kind, mode, umask: 0o027, cred };
        let got = attr_of(self.run(command));
        let want = self.model.can_create(dir, &name);
        assert_eq!(got.map(|_| ()), want);
        if let Ok(attr) = got {
            let mut node = Reference::node(is, mode, cred, self.model.now);
            lists::inherit(&self.model.get(dir).xattrs, &mut node, 0o027);
            match is {
                FileKind::Symlink => node.data = b"to/somewhere".to_vec(),
                FileKind::BlockDevice => node.rdev = 77,
                _ => {}
            }
            assert!(!self.model.nodes.contains_key(&attr.ino.0) && !self.gone.contains(&attr.ino.0));
            self.model.create(dir, &name, attr.ino.0, node);
        }
    }

    fn link(&mut self, a: u64, b: u64, c: u64) {
        let (ino, dir, name) = (self.any(a), self.dir(b), name(c));
        let got = done(self.run(Command::Link { ino: Ino(ino), parent: Ino(dir), name: name.clone() }));
        assert_eq!(got, self.model.link(ino, dir, &name));
    }

    fn remove(&mut self, is_rmdir: bool, a: u64, b: u64, c: u64) {
        let (dir, name, pinned, cred) = (self.dir(a), name(b), c.is_multiple_of(2), cred(c / 2));
        let parent = Ino(dir);
        let command = if is_rmdir {
            Command::Rmdir { parent, name: name.clone(), pinned, cred }
        } else {
            Command::Unlink { parent, name: name.clone(), pinned, cred }
        };
        let got = done(self.run(command));
        assert_eq!(got, self.model.remove(dir, &name, is_rmdir, pinned, cred));
    }

    fn rename(&mut self, a: u64, b: u64, c: u64) {
        let (dir, new_dir, old, new) = (self.dir(a), self.dir(b), name(c), name(c / 8));
        let modes = [
            RenameMode::Replace,
            RenameMode::NoReplace,
            RenameMode::Exchange,
            RenameMode::Whiteout,
            RenameMode::NoReplaceWhiteout,
        ];
        let (mode, pinned, cred) = (pick(&modes, c / 64), (c / 512).is_multiple_of(2), cred(c / 1024));
        let reply = self.run(Command::Rename {
            parent: Ino(dir),
            name: old.clone(),
            new_parent: Ino(new_dir),
            new_name: new.clone(),
            mode,
            pinned,
            cred,
        });
        let whiteout =
            self.world.lookup(Ino(dir), core::str::from_utf8(&old).unwrap()).map_or(0, |attr| attr.ino.0);
        let want = self.model.rename((dir, &old), (new_dir, &new), mode, pinned, cred, whiteout);
        assert_eq!(done(reply), want.map(|_| ()));
    }

    fn set_attr(&mut self, a: u64, b: u64, c: u64) {
        let ino = self.any(a);
        let set = SetAttr {
            mode: b.is_multiple_of(2).then_some((b / 2) as u32 & 0o7777),
            uid: c.is_multiple_of(3).then_some(1000),
            gid: c.is_multiple_of(5).then_some(100),
            atime: c.is_multiple_of(7).then_some(SetTime::To(Nanos(5))),
            mtime: c.is_multiple_of(11).then_some(SetTime::Now),
            ..SetAttr::default()
        };
        let kill_priv = c.is_multiple_of(2);
        let command = Command::SetAttr { ino: Ino(ino), set, kill_priv, applied: None, cred: super::ROOT };
        assert_eq!(done(self.run(command)), Ok(()));
        let now = self.model.now;
        let node = self.model.at(ino);
        node.mode = set.mode.unwrap_or(node.mode);
        lists::follow_mode(node);
        node.uid = set.uid.unwrap_or(node.uid);
        node.gid = set.gid.unwrap_or(node.gid);
        node.atime = if set.atime.is_some() { Nanos(5) } else { node.atime };
        node.mtime = if set.mtime.is_some() { now } else { node.mtime };
        if set != SetAttr::default() {
            node.ctime = now;
        }
        if kill_priv {
            self.model.kill_priv(ino);
        }
    }

    fn truncate(&mut self, a: u64, b: u64) {
        let ino = self.some(FileKind::File, a);
        let size = pick(&[0, 100, 3000, 4096, 4097, 9000, 30_000], b) + b / 8 % 50;
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        let command =
            Command::SetAttr { ino: Ino(ino), set, kill_priv: false, applied: None, cred: super::ROOT };
        let got = done(self.run(command));
        assert_eq!(got, self.model.truncate(ino, size as usize));
    }

    /// Commits content, and has the model's bytes follow.
    fn write(&mut self, ino: u64, content: Content, size: usize, kill_priv: bool) -> Result<(), Errno> {
        if let Content::Inline(bytes) = &content {
            assert_eq!(bytes.len(), size);
        }
        let (grant, applied) = self.world.grant(Ino(ino));
        // Some were written before their times were set.
        let mtime = (!size.is_multiple_of(5)).then_some(Nanos(self.world.time.0 + 500));
        let commit = Commit { ino: Ino(ino), grant, applied, content, size: size as u64, mtime, kill_priv };
        done(self.run(Command::Commit(commit.clone())))?;
        let now = self.model.now;
        let node = self.model.at(ino);
        node.data.resize(size, 0);
        match commit.content {
            Content::Inline(bytes) => node.data = bytes,
            Content::Segments { segments, .. } => {
                for segment in segments {
                    for i in 0..segment.len {
                        let byte = plain(segment.extent, segment.offset + i);
                        node.data[segment.start as usize + i as usize] = byte;
                    }
                }
            }
        }
        if let Some(mtime) = mtime {
            node.mtime = mtime.max(node.mtime).min(now);
            node.ctime = mtime.min(now).max(node.ctime);
        }
        if kill_priv {
            self.model.kill_priv(ino);
        }
        Ok(())
    }

    fn commit(&mut self, a: u64, b: u64, c: u64) {
        let ino = self.some(FileKind::File, a);
        let node = self.model.get(ino);
        if node.kind != FileKind::File {
            return;
        }
        let (old, kill_priv) = (node.data.clone(), c.is_multiple_of(4));
        let start = (b % 20_000) as usize;
        let len = (c % 9_000 + 1) as usize;
        if start < 4096 && old.len() <= 4096 && !b.is_multiple_of(3) {
            let mut bytes = old;
            let end = (start + len).min(4096);
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].fill(b as u8 | 1);
            let size = bytes.len();
            return assert_eq!(self.write(ino, Content::Inline(bytes), size, kill_priv), Ok(()));
        }
        // What an inline row holds must be in the segments; whoever leaves it out is refused.
        let whole = Query::Map { volume: VOLUME, ino: Ino(ino), start: 0, end: 1, max: 1 };
        let inline = match self.world.ask(whole) {
            Answer::Inline { bytes, .. } => bytes.len(),
            Answer::Map { prefix, .. } => prefix.len(),
            other => panic!("{other:?}"),
        };
        let (start, len) = if start < 4096 && inline > 0 { (0, len.max(inline)) } else { (start, len) };
        let size = old.len().max(start + len);
        let extent = self.world.new_extent(len as u32);
        let mut segments =
            vec![Segment { start: start as u64, len: len as u32, extent: extent.id, offset: 0 }];
        if len > 10 && c.is_multiple_of(2) {
            // The same extent, its halves in the other order.
            let half = (len / 2) as u32;
            let rest = len as u32 - half;
            segments = vec![
                Segment { start: start as u64, len: half, extent: extent.id, offset: rest },
                Segment { start: start as u64 + u64::from(half), len: rest, extent: extent.id, offset: 0 },
            ];
        }
        let content = Content::Segments { extents: vec![extent], segments };
        assert_eq!(self.write(ino, content, size, kill_priv), Ok(()));
    }

    fn fallocate(&mut self, a: u64, b: u64, c: u64) {
        let ino = self.some(FileKind::File, a);
        let modes = [
            FallocateMode::Allocate,
            FallocateMode::AllocateKeepSize,
            FallocateMode::PunchHole,
            FallocateMode::Zero,
            FallocateMode::ZeroKeepSize,
        ];
        let (mode, offset, len) = (pick(&modes, c), pick(&[0, b % 4096, b % 20_000], b), 1 + c % 15_000);
        let got = done(self.run(Command::Fallocate { ino: Ino(ino), mode, offset, len, kill_priv: false }));
        assert_eq!(got, self.model.fallocate(ino, mode, offset as usize, len as usize));
    }

    fn rest(&mut self, a: u64, b: u64) {
        match a % 7 {
            0 => {
                self.world.reclaim((b % 200) as u32);
            }
            1 => {
                let ino = self.any(b);
                assert_eq!(done(self.run(Command::Unpin { ino: Ino(ino) })), Ok(()));
                if self.model.get(ino).nlink == 0 {
                    self.model.nodes.remove(&ino);
                }
            }
            2 => {
                let ino = self.any(b);
                // Read now, or at a moment that was.
                let at = Nanos(if b.is_multiple_of(2) { i64::MAX } else { self.model.now.0 / 2 });
                assert_eq!(done(self.run(Command::Touch { ino: Ino(ino), at })), Ok(()));
                let at = at.min(self.model.now);
                let node = self.model.at(ino);
                if at > node.atime && (node.atime <= node.mtime || node.atime <= node.ctime) {
                    node.atime = at;
                }
            }
            3 => {
                let ino = self.some(FileKind::File, b);
                self.read = Some((ino, self.world.rows_of(Ino(ino))));
            }
            4 => self.rewrite(),
            5 => {
                self.world.restored();
                self.model.nodes.retain(|_, node| node.nlink > 0);
            }
            _ => {
                let ids = self.world.dead();
                assert_eq!(self.world.service(Command::DropExtents { ids }), Reply::Done);
                assert_eq!(self.world.dead(), []);
            }
        }
    }

    /// Each row in halves, which stay where they are: extents here hold what follows from their id.
    fn rewrite(&mut self) {
        let Some((ino, from)) = self.read.take() else { return };
        if from.is_empty() || from.len() > 4_000 {
            return;
        }
        let unchanged = |now: &[Segment]| from.iter().all(|row| now.contains(row));
        let is_there = self.model.nodes.contains_key(&ino);
        let want = match is_there {
            true if unchanged(&self.world.rows_of(Ino(ino))) => Ok(()),
            true => Err(Errno::EAGAIN),
            false => Err(Errno::ESTALE),
        };
        let halves = from.iter().flat_map(|row| {
            let half = row.len / 2;
            let (start, offset) = (row.start + u64::from(half), row.offset + half);
            [Segment { len: half, ..*row }, Segment { start, offset, len: row.len - half, ..*row }]
        });
        let to = halves.filter(|row| row.len > 0).collect();
        let command = Command::Rewrite { ino: Ino(ino), from, extents: vec![], to };
        assert_eq!(done(self.run(command)), want);
    }

    fn compare(&self) {
        for (ino, node) in &self.model.nodes {
            let attr = self.world.attr(Ino(*ino)).unwrap();
            let got = (attr.kind, attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev);
            assert_eq!(got, (node.kind, node.mode, node.nlink, node.uid, node.gid, node.rdev), "inode {ino}");
            assert_eq!(
                (attr.atime, attr.mtime, attr.ctime),
                (node.atime, node.mtime, node.ctime),
                "inode {ino}"
            );
            match node.kind {
                FileKind::File => {
                    assert_eq!(attr.size, node.data.len() as u64);
                    let same = self.world.bytes(Ino(*ino)) == node.data;
                    assert!(same, "inode {ino} has other bytes");
                }
                FileKind::Directory => self.compare_names(*ino, &node.names),
                FileKind::Symlink => {
                    let target = self.world.ask(Query::ReadLink { volume: VOLUME, ino: Ino(*ino) });
                    assert_eq!(target, Answer::Bytes(node.data.clone()));
                }
                _ => {}
            }
            let names = self.world.ask(Query::ListXattr { volume: VOLUME, ino: Ino(*ino) });
            assert_eq!(names, Answer::Names(node.xattrs.keys().cloned().collect()));
            for (name, value) in &node.xattrs {
                let get = Query::GetXattr { volume: VOLUME, ino: Ino(*ino), name: name.clone() };
                assert_eq!(self.world.ask(get), Answer::Bytes(value.clone()));
            }
        }
        for ino in &self.gone {
            assert_eq!(self.world.attr(Ino(*ino)), Err(Errno::ESTALE));
        }
        self.world.assert_sound();
    }

    fn compare_names(&self, dir: u64, names: &alloc::collections::BTreeMap<Vec<u8>, u64>) {
        let list = Query::ReadDir { volume: VOLUME, ino: Ino(dir), after: 2, max: 1000, attrs: true };
        let Answer::Entries(entries) = self.world.ask(list) else { panic!("no entries") };
        assert!(entries.is_sorted_by(|a, b| a.cookie < b.cookie));
        let listed: alloc::collections::BTreeMap<Vec<u8>, u64> =
            entries.iter().map(|entry| (entry.name.clone(), entry.ino.0)).collect();
        assert_eq!(&listed, names);
        assert_eq!(listed.len(), entries.len(), "a name twice");
        for entry in &entries {
            assert!(entry.cookie > 2 && i64::try_from(entry.cookie).is_ok());
            assert_eq!(entry.attr.map(|attr| attr.ino), Some(entry.ino));
            let found = Query::Lookup { volume: VOLUME, parent: Ino(dir), name: entry.name.clone() };
            assert_eq!(self.world.ask(found), Answer::Attr(entry.attr.unwrap()));
        }
    }

    /// Everything is deleted and reclaimed: nothing is left but the root and dead extents.
    fn reclaim_all(&mut self) {
        while self.world.reclaim(50) > 0 {}
        self.compare();
        let Answer::Volume(volume) = self.world.ask(Query::Volume { volume: VOLUME }) else { panic!() };
        assert_eq!(volume.inodes, self.model.nodes.len() as u64);
        let allocated = |ino: &u64| self.world.attr(Ino(*ino)).unwrap().allocated;
        assert_eq!(volume.used, self.model.nodes.keys().map(allocated).sum::<u64>());
    }
}

/// Replies without what depends on when their entry was applied.
fn timeless(mut reply: Reply) -> Reply {
    let strip = |attr: &mut Attr| {
        (attr.atime, attr.mtime, attr.ctime, attr.btime) = Default::default();
    };
    match &mut reply {
        Reply::Attr(attr) | Reply::Removed(attr) | Reply::Copied { attr, .. } => strip(attr),
        Reply::Renamed { moved, other } => {
            strip(moved);
            other.iter_mut().for_each(strip);
        }
        _ => {}
    }
    reply
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_commands_do_what_the_reference_does(
        seeds in prop::collection::vec(any::<Seed>(), 1..120),
        hash_bits in prop::sample::select(vec![1u8, 2, 55]),
    ) {
        let mut pair = Pair::new(hash_bits);
        for (at, seed) in seeds.into_iter().enumerate() {
            pair.step(seed);
            if at % 10 == 9 {
                pair.compare();
            }
        }
        pair.compare();
        pair.reclaim_all();
    }

    #[test]
    fn a_replay_from_any_prefix_gives_equal_rows_and_grouping_changes_no_reply(
        seeds in prop::collection::vec(any::<Seed>(), 1..60),
        cut in any::<prop::sample::Index>(),
        group in 1usize..20,
    ) {
        let mut pair = Pair::new(55);
        for seed in seeds {
            pair.step(seed);
        }
        let log = pair.world.log;
        let run = |rows: &mut crate::memory::MemoryRows, entries: &[Entry]| {
            let mut replies = Vec::new();
            for entry in entries {
                let (batch, more) = apply(rows, entry).unwrap();
                rows.commit(&batch);
                replies.extend(more.into_iter().map(timeless));
            }
            replies
        };
        let cut = cut.index(log.len());
        let mut rows = crate::memory::MemoryRows::default();
        let mut replies = run(&mut rows, &log[..cut]);
        let mut rows = rows.clone();
        replies.extend(run(&mut rows, &log[cut..]));
        assert!(rows == pair.world.rows, "a replay gave other rows");

        let grouped: Vec<Entry> = log
            .chunks(group)
            .map(|entries| Entry {
                time: entries[0].time,
                commands: entries.iter().flat_map(|entry| entry.commands.clone()).collect(),
            })
            .collect();
        let mut rows = crate::memory::MemoryRows::default();
        assert_eq!(run(&mut rows, &grouped), replies);
        assert!(rows.0.keys().eq(pair.world.rows.0.keys()), "grouping made other rows");
    }
}
