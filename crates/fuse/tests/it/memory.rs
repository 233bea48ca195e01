//! A file tree in memory that notes what it is asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fuse::{Filesystem, OpFuture};
use namespace::{Attr, DirEntry, FallocateMode, FileKind, NewKind, SetTime, XattrMode};
use tokio::sync::Semaphore;
use types::{Errno, Ino, Nanos};
use vfs::{Ctx, Handle, Listed, Op, Outcome, SeekTo, StatFs, TimeToLive};

/// Lookups of this name wait for [`Memory::gate`].
pub const SLOW: &[u8] = b"slow";

pub struct Node {
    pub attr: Attr,
    pub data: Vec<u8>,
    pub names: Vec<(Vec<u8>, Ino)>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub struct Tree {
    pub nodes: BTreeMap<u64, Node>,
    pub asked: Vec<(Op, Ctx)>,
}

pub struct Memory {
    tree: Mutex<Tree>,
    pub gate: Semaphore,
    stalled: Mutex<fn(&Op) -> bool>,
    interrupts: tokio::sync::watch::Sender<u64>,
    waiting: AtomicUsize,
}

fn attr(ino: u64, kind: FileKind, mode: u32) -> Attr {
    let then = Nanos(1_000_000_007);
    Attr { mode, nlink: 1, atime: then, mtime: then, ctime: then, btime: then, ..Attr::blank(Ino(ino), kind) }
}

impl Memory {
    pub fn new() -> Arc<Memory> {
        let mut tree = Tree { nodes: BTreeMap::new(), asked: Vec::new() };
        tree.add(attr(1, FileKind::Directory, 0o777));
        Arc::new(Memory {
            tree: Mutex::new(tree),
            gate: Semaphore::new(0),
            stalled: Mutex::new(|_| false),
            interrupts: tokio::sync::watch::channel(0).0,
            waiting: AtomicUsize::new(0),
        })
    }

    pub fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().expect("no test panics with the tree")
    }

    /// From now on such operations wait for [`Memory::gate`] before they are answered; those of this process itself never.
    pub fn stall(&self, stalled: fn(&Op) -> bool) {
        *self.stalled.lock().expect("no test panics with it") = stalled;
    }

    /// How many are waiting.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// The operations so far that `wanted` picks something from.
    pub fn asked<T>(&self, wanted: impl Fn(&Op, &Ctx) -> Option<T>) -> Vec<T> {
        self.tree().asked.iter().filter_map(|(op, ctx)| wanted(op, ctx)).collect()
    }
}

impl Tree {
    fn add(&mut self, attr: Attr) {
        let node = Node { attr, data: Vec::new(), names: Vec::new(), xattrs: BTreeMap::new() };
        self.nodes.insert(attr.ino.0, node);
    }

    /// Adds a file without a request.
    pub fn put(&mut self, name: &[u8], data: &[u8]) -> Ino {
        let ino = self.nodes.len() as u64 + 1;
        let mut attr = attr(ino, FileKind::File, 0o666);
        attr.size = data.len() as u64;
        self.add(attr);
        self.node(Ino(ino)).data = data.to_vec();
        self.node(Ino::ROOT).names.push((name.to_vec(), Ino(ino)));
        Ino(ino)
    }

    pub fn node(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino.0).expect("the kernel asks only for what it was told of")
    }

    pub fn find(&mut self, name: &str) -> Option<Ino> {
        let names = &self.node(Ino::ROOT).names;
        names.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, ino)| *ino)
    }

    fn resize(&mut self, ino: Ino, size: u64) {
        let node = self.node(ino);
        node.data.resize(size as usize, 0);
        node.attr.size = size;
    }

    fn entry(&mut self, ino: Ino) -> Outcome {
        let long = Duration::from_secs(60);
        Outcome::Entry { attr: self.node(ino).attr, ttl: TimeToLive { entry: long, attr: long } }
    }

    fn answer(&mut self, op: Op, ctx: Ctx) -> Result<Outcome, Errno> {
        self.asked.push((op.clone(), ctx));
        let long = Duration::from_secs(60);
        let opened = Outcome::Opened { handle: Handle(7), keep_cache: true, direct: false };
        Ok(match op {
            Op::Lookup { parent, name } => {
                let dir = self.node(parent);
                match dir.names.iter().find(|(known, _)| *known == name) {
                    Some((_, found)) => {
                        let found = *found;
                        self.entry(found)
                    }
                    None => Outcome::NoEntry { ttl: long },
                }
            }
            Op::GetAttr { ino } => Outcome::Attr { attr: self.node(ino).attr, ttl: long },
            Op::SetAttr { ino, set, .. } => {
                if let Some(size) = set.size {
                    self.resize(ino, size);
                }
                let attr = &mut self.node(ino).attr;
                attr.mode = set.mode.unwrap_or(attr.mode);
                attr.uid = set.uid.unwrap_or(attr.uid);
                attr.gid = set.gid.unwrap_or(attr.gid);
                if let Some(SetTime::To(time)) = set.atime {
                    attr.atime = time;
                }
                if let Some(SetTime::To(time)) = set.mtime {
                    attr.mtime = time;
                }
                Outcome::Attr { attr: *attr, ttl: long }
            }
            Op::ReadLink { ino } => Outcome::Bytes(self.node(ino).data.clone()),
            Op::Create { parent, name, kind, mode, umask, open } => {
                let ino = self.nodes.len() as u64 + 1;
                let (kind, rdev, data) = match kind {
                    NewKind::File => (FileKind::File, 0, Vec::new()),
                    NewKind::Directory => (FileKind::Directory, 0, Vec::new()),
                    NewKind::Symlink(target) => (FileKind::Symlink, 0, target),
                    NewKind::Fifo => (FileKind::Fifo, 0, Vec::new()),
                    NewKind::Socket => (FileKind::Socket, 0, Vec::new()),
                    NewKind::CharDevice(rdev) => (FileKind::CharDevice, rdev, Vec::new()),
                    NewKind::BlockDevice(rdev) => (FileKind::BlockDevice, rdev, Vec::new()),
                };
                let mut attr = attr(ino, kind, mode & !umask);
                (attr.rdev, attr.size, attr.uid) = (rdev, data.len() as u64, ctx.cred.uid);
                self.add(attr);
                self.node(Ino(ino)).data = data;
                self.node(parent).names.push((name, Ino(ino)));
                let ttl = TimeToLive { entry: long, attr: long };
                match open {
                    Some(_) => {
                        Outcome::Created { attr, ttl, handle: Handle(7), keep_cache: true, direct: false }
                    }
                    None => Outcome::Entry { attr, ttl },
                }
            }
            Op::Unlink { parent, name } | Op::Rmdir { parent, name } => {
                self.node(parent).names.retain(|(known, _)| *known != name);
                Outcome::Done
            }
            Op::Rename { parent, name, new_parent, new_name, flags } => {
                let at =
                    |names: &[(Vec<u8>, Ino)], name: &[u8]| names.iter().position(|(known, _)| known == name);
                let from = at(&self.node(parent).names, &name).ok_or(Errno::ENOENT)?;
                if flags.exchange || flags.whiteout {
                    return Err(Errno::EXDEV); // noted, and refused with an errno of its own
                }
                let (_, moved) = self.node(parent).names.remove(from);
                self.node(new_parent).names.retain(|(known, _)| *known != new_name);
                self.node(new_parent).names.push((new_name, moved));
                Outcome::Done
            }
            Op::Link { ino, parent, name } => {
                self.node(parent).names.push((name, ino));
                self.node(ino).attr.nlink += 1;
                self.entry(ino)
            }
            Op::Open { .. } | Op::OpenDir { .. } => opened,
            Op::Read { ino, offset, len, .. } => {
                let data = &self.node(ino).data;
                let from = data.len().min(offset as usize);
                Outcome::Bytes(data[from..data.len().min(from + len as usize)].to_vec())
            }
            Op::Write { ino, offset, data, .. } => {
                let end = offset + data.len() as u64;
                if end > self.node(ino).attr.size {
                    self.resize(ino, end);
                }
                self.node(ino).data[offset as usize..end as usize].copy_from_slice(&data);
                Outcome::Written(data.len() as u32)
            }
            Op::ReadDir { ino, after, max, plus, .. } => {
                let dots = [(b".".to_vec(), ino), (b"..".to_vec(), Ino::ROOT)];
                let names = dots.into_iter().chain(self.node(ino).names.clone());
                let listed: Vec<_> = (1..).zip(names).skip(after as usize).take(max as usize).collect();
                let entries = listed
                    .into_iter()
                    .map(|(cookie, (name, ino))| {
                        let attr = self.node(ino).attr;
                        let known = (plus && cookie > 2).then_some(attr);
                        let entry = DirEntry { cookie, ino, kind: attr.kind, name, attr: known };
                        Listed { entry, ttl: TimeToLive { entry: long, attr: long } }
                    })
                    .collect();
                Outcome::Entries(entries)
            }
            Op::StatFs { .. } => {
                Outcome::StatFs(StatFs { blocks: 1000, free: 600, files: 50, files_free: 40 })
            }
            Op::SetXattr { ino, name, value, mode } => {
                let there = self.node(ino).xattrs.contains_key(&name);
                match mode {
                    XattrMode::Create if there => return Err(Errno::EEXIST),
                    XattrMode::Replace if !there => return Err(Errno::ENODATA),
                    _ => {}
                }
                self.node(ino).xattrs.insert(name, value);
                Outcome::Done
            }
            Op::GetXattr { ino, name } => {
                Outcome::Bytes(self.node(ino).xattrs.get(&name).cloned().ok_or(Errno::ENODATA)?)
            }
            Op::ListXattr { ino } => Outcome::Names(self.node(ino).xattrs.keys().cloned().collect()),
            Op::RemoveXattr { ino, name } => {
                self.node(ino).xattrs.remove(&name).ok_or(Errno::ENODATA)?;
                Outcome::Done
            }
            // All is data.
            Op::Seek { ino, offset, to, .. } => match self.node(ino).attr.size {
                size if offset >= size => return Err(Errno::ENXIO),
                _ if to == SeekTo::Data => Outcome::Offset(offset),
                size => Outcome::Offset(size),
            },
            Op::CopyRange { ino, offset, to, to_offset, len, .. } => {
                let data = &self.node(ino).data;
                let from = data.len().min(offset as usize);
                let part = data[from..data.len().min(from.saturating_add(len as usize))].to_vec();
                let end = to_offset + part.len() as u64;
                if end > self.node(to).attr.size {
                    self.resize(to, end);
                }
                self.node(to).data[to_offset as usize..end as usize].copy_from_slice(&part);
                Outcome::Written(part.len() as u32)
            }
            Op::Fallocate { ino, mode, offset, len, .. } => {
                let grows = matches!(mode, FallocateMode::Allocate | FallocateMode::Zero);
                if grows && offset + len > self.node(ino).attr.size {
                    self.resize(ino, offset + len);
                }
                Outcome::Done
            }
            Op::Forget { .. }
            | Op::Flush { .. }
            | Op::Release { .. }
            | Op::Fsync { .. }
            | Op::ReleaseDir { .. }
            | Op::FsyncDir { .. } => Outcome::Done,
        })
    }
}

impl Filesystem for Memory {
    fn handle(self: Arc<Self>, op: Op, ctx: Ctx) -> OpFuture {
        Box::pin(async move {
            if matches!(&op, Op::Lookup { name, .. } if name == SLOW) {
                self.tree().asked.push((op, ctx));
                self.gate.acquire().await.map_err(|_| Errno::EIO)?.forget();
                return Err(Errno::EACCES); // so that an answer from here cannot be taken for another
            }
            let stalled = *self.stalled.lock().expect("no test panics with it");
            if ctx.unique != 0 && stalled(&op) {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let mut interrupts = self.interrupts.subscribe();
                let opened = tokio::select! {
                    opened = self.gate.acquire() => opened,
                    _ = interrupts.wait_for(|unique| *unique == ctx.unique) => {
                        self.waiting.fetch_sub(1, Ordering::SeqCst);
                        return Err(Errno::EINTR);
                    }
                };
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                opened.map_err(|_| Errno::EIO)?.forget();
            }
            self.tree().answer(op, ctx)
        })
    }

    fn interrupt(&self, unique: u64) {
        self.interrupts.send_replace(unique);
    }
}
