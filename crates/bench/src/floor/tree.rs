//! A file tree in memory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use fuser::{Errno, FileAttr, FileType};

use super::attr::fresh;

/// Content is kept in pieces of this size, so that a file that grows is never copied.
const PIECE: usize = 1 << 20;

/// The first cookies of a listing are those of `.` and `..`.
pub(super) const COOKIE_FIRST: u64 = 3;

/// Bytes of a file; what was never written is zero.
#[derive(Default)]
pub(super) struct Content(Vec<Vec<u8>>);

impl Content {
    /// The bytes from `offset` on, at most `len` and not beyond `size`.
    pub(super) fn read(&self, offset: u64, len: u32, size: u64) -> Vec<u8> {
        let end = size.min(offset.saturating_add(u64::from(len)));
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let (piece, from) = (at as usize / PIECE, at as usize % PIECE);
            let part = (PIECE - from).min((end - at) as usize);
            match self.0.get(piece).and_then(|piece| piece.get(from..from + part)) {
                Some(there) => bytes.extend_from_slice(there),
                None => bytes.resize(bytes.len() + part, 0),
            }
            at += part as u64;
        }
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = offset as usize + done;
            let (piece, from) = (at / PIECE, at % PIECE);
            let part = (PIECE - from).min(data.len() - done);
            if self.0.len() <= piece {
                self.0.resize_with(piece + 1, Vec::new);
            }
            if self.0[piece].is_empty() {
                self.0[piece] = vec![0; PIECE];
            }
            self.0[piece][from..from + part].copy_from_slice(&data[done..done + part]);
            done += part;
        }
    }

    fn truncate(&mut self, size: u64) {
        self.0.truncate((size as usize).div_ceil(PIECE));
        let kept = size as usize % PIECE;
        if let Some(last) = self.0.get_mut(size as usize / PIECE).filter(|piece| !piece.is_empty()) {
            last[kept..].fill(0);
        }
    }
}

pub(super) type Shared = Arc<Mutex<Content>>;

/// The names of a directory, and the order in which they are listed.
#[derive(Default)]
pub(super) struct Names {
    by_name: HashMap<OsString, u64>,
    cookies: HashMap<OsString, u64>,
    by_cookie: BTreeMap<u64, (OsString, u64)>,
    next: u64,
}

enum Body {
    File(Shared),
    Directory(Names),
}

struct Node {
    attr: FileAttr,
    body: Body,
    /// How often the kernel was told of it and has not forgotten.
    told: u64,
}

/// All nodes.
pub(super) struct Tree {
    nodes: HashMap<u64, Node>,
    next: u64,
}

impl Tree {
    pub(super) fn new() -> Tree {
        let root = fresh(1, FileType::Directory, 0o755, 0, 0);
        let root = Node { attr: root, body: Body::Directory(Names::default()), told: 1 };
        Tree { nodes: HashMap::from([(1, root)]), next: 2 }
    }

    pub(super) fn attr(&self, ino: u64) -> Result<FileAttr, Errno> {
        self.nodes.get(&ino).map(|node| node.attr).ok_or(Errno::ENOENT)
    }

    fn names(&self, ino: u64) -> Result<&Names, Errno> {
        match &self.nodes.get(&ino).ok_or(Errno::ENOENT)?.body {
            Body::Directory(names) => Ok(names),
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn names_mut(&mut self, ino: u64) -> Result<&mut Names, Errno> {
        let node = self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        match &mut node.body {
            Body::Directory(names) => {
                node.attr.mtime = SystemTime::now();
                node.attr.ctime = node.attr.mtime;
                Ok(names)
            }
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn lookup(&mut self, parent: u64, name: &OsStr) -> Result<FileAttr, Errno> {
        let ino = *self.names(parent)?.by_name.get(name).ok_or(Errno::ENOENT)?;
        self.tell(ino)
    }

    /// The kernel is told of a node.
    pub(super) fn tell(&mut self, ino: u64) -> Result<FileAttr, Errno> {
        let node = self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        node.told += 1;
        Ok(node.attr)
    }

    pub(super) fn forget(&mut self, ino: u64, count: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.told = node.told.saturating_sub(count);
            if node.told == 0 && node.attr.nlink == 0 {
                self.nodes.remove(&ino);
            }
        }
    }

    pub(super) fn make(
        &mut self,
        parent: u64,
        name: &OsStr,
        kind: FileType,
        perm: u16,
        owner: (u32, u32),
    ) -> Result<FileAttr, Errno> {
        if self.names(parent)?.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        let attr = fresh(ino, kind, perm, owner.0, owner.1);
        let body = match kind {
            FileType::Directory => Body::Directory(Names::default()),
            _ => Body::File(Shared::default()),
        };
        self.nodes.insert(ino, Node { attr, body, told: 1 });
        self.names_mut(parent)?.add(name, ino);
        Ok(attr)
    }

    pub(super) fn remove(&mut self, parent: u64, name: &OsStr, directory: bool) -> Result<(), Errno> {
        let ino = *self.names(parent)?.by_name.get(name).ok_or(Errno::ENOENT)?;
        match (directory, self.names(ino)) {
            (true, Ok(names)) if !names.by_name.is_empty() => return Err(Errno::ENOTEMPTY),
            (true, Err(_)) => return Err(Errno::ENOTDIR),
            (false, Ok(_)) => return Err(Errno::EISDIR),
            _ => {}
        }
        self.names_mut(parent)?.take(name);
        self.drop_link(ino);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Errno> {
        let ino = *self.names(from.0)?.by_name.get(from.1).ok_or(Errno::ENOENT)?;
        match self.names(to.0)?.by_name.get(to.1) {
            Some(there) if *there == ino => return Ok(()),
            Some(_) => self.remove(to.0, to.1, self.names(ino).is_ok())?,
            None => {}
        }
        self.names_mut(from.0)?.take(from.1);
        self.names_mut(to.0)?.add(to.1, ino);
        Ok(())
    }

    fn drop_link(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.attr.nlink = 0;
            if node.told == 0 {
                self.nodes.remove(&ino);
            }
        }
    }

    /// Changes attributes; a new size is the content's too.
    pub(super) fn change(&mut self, ino: u64, change: impl FnOnce(&mut FileAttr)) -> Result<FileAttr, Errno> {
        let node = self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        let before = node.attr.size;
        change(&mut node.attr);
        node.attr.ctime = SystemTime::now();
        node.attr.blocks = node.attr.size.div_ceil(512);
        if let (Body::File(content), true) = (&node.body, node.attr.size < before) {
            lock(content).truncate(node.attr.size);
        }
        Ok(node.attr)
    }

    /// A file's content and size.
    pub(super) fn content(&self, ino: u64) -> Result<(Shared, u64), Errno> {
        let node = self.nodes.get(&ino).ok_or(Errno::ENOENT)?;
        match &node.body {
            Body::File(content) => Ok((Arc::clone(content), node.attr.size)),
            Body::Directory(_) => Err(Errno::EISDIR),
        }
    }

    /// The next names behind a cookie, each with its own, for as long as `take` wants more.
    pub(super) fn list(
        &self,
        ino: u64,
        after: u64,
        mut take: impl FnMut(u64, &OsStr, u64, FileType) -> bool,
    ) -> Result<(), Errno> {
        let names = self.names(ino)?;
        for (cookie, name) in [(1, "."), (2, "..")] {
            if after < cookie && !take(cookie, OsStr::new(name), ino, FileType::Directory) {
                return Ok(());
            }
        }
        for (cookie, (name, ino)) in names.by_cookie.range(after.max(COOKIE_FIRST - 1) + 1..) {
            if !take(*cookie, name, *ino, self.attr(*ino)?.kind) {
                break;
            }
        }
        Ok(())
    }
}

impl Names {
    fn add(&mut self, name: &OsStr, ino: u64) {
        let cookie = COOKIE_FIRST + self.next;
        self.next += 1;
        self.by_name.insert(name.to_owned(), ino);
        self.by_cookie.insert(cookie, (name.to_owned(), ino));
        self.cookies.insert(name.to_owned(), cookie);
    }

    fn take(&mut self, name: &OsStr) {
        self.by_name.remove(name);
        if let Some(cookie) = self.cookies.remove(name) {
            self.by_cookie.remove(&cookie);
        }
    }
}

/// What a thread that panicked left is as good as before: nothing here is half done.
pub(super) fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Content, PIECE, Tree};
    use fuser::FileType;
    use std::ffi::{OsStr, OsString};

    #[test]
    fn content_is_what_was_written_and_zeros_elsewhere() {
        let mut content = Content::default();
        content.write(PIECE as u64 - 2, b"abcd");
        let size = PIECE as u64 + 2;
        assert_eq!(content.read(PIECE as u64 - 4, 100, size), b"\0\0abcd");
        assert_eq!(content.read(0, 3, size), [0; 3]);
        content.truncate(PIECE as u64 - 1);
        assert_eq!(content.read(PIECE as u64 - 2, 4, size), b"a\0\0\0");
    }

    #[test]
    fn a_listing_goes_on_where_it_was_cut_off_whatever_was_removed() {
        let mut tree = Tree::new();
        for number in 0..10 {
            let name = OsString::from(format!("f{number}"));
            tree.make(1, &name, FileType::RegularFile, 0o644, (0, 0)).expect("made");
        }
        let mut last = 0;
        let mut seen = Vec::new();
        let listed = tree.list(1, 0, |cookie, name, _, _| {
            seen.push(name.to_owned());
            last = cookie;
            seen.len() < 5
        });
        listed.expect("listed");
        tree.remove(1, OsStr::new("f2"), false).expect("removed");
        tree.rename((1, OsStr::new("f3")), (1, OsStr::new("f9"))).expect("renamed");
        tree.list(1, last, |_, name, _, _| {
            seen.push(name.to_owned());
            true
        })
        .expect("listed");
        let names: Vec<&str> = seen.iter().filter_map(|name| name.to_str()).collect();
        assert_eq!(names, [".", "..", "f0", "f1", "f2", "f4", "f5", "f6", "f7", "f8", "f9"]);
    }
}
