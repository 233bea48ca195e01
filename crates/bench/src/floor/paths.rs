//! Which node the kernel was told of has which path.
//!
//! Numbers are never used again: the disk's own inode numbers are, at once, and a late FORGET of the old file would then
//! take the new one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

struct Node {
    path: PathBuf,
    told: u64,
}

/// The nodes that the kernel knows.
pub(super) struct Paths {
    by_ino: HashMap<u64, Node>,
    by_path: HashMap<PathBuf, u64>,
    next: u64,
}

impl Paths {
    /// With `root` as node 1.
    pub(super) fn new(root: PathBuf) -> Paths {
        Paths {
            by_path: HashMap::from([(root.clone(), 1)]),
            by_ino: HashMap::from([(1, Node { path: root, told: 1 })]),
            next: 2,
        }
    }

    pub(super) fn path(&self, ino: u64) -> Option<&Path> {
        self.by_ino.get(&ino).map(|node| node.path.as_path())
    }

    /// The kernel is told of what has this path.
    pub(super) fn tell(&mut self, path: PathBuf) -> u64 {
        if let Some(ino) = self.by_path.get(&path) {
            if let Some(node) = self.by_ino.get_mut(ino) {
                node.told += 1;
            }
            return *ino;
        }
        let ino = self.next;
        self.next += 1;
        self.by_path.insert(path.clone(), ino);
        self.by_ino.insert(ino, Node { path, told: 1 });
        ino
    }

    pub(super) fn forget(&mut self, ino: u64, count: u64) {
        let Some(node) = self.by_ino.get_mut(&ino) else { return };
        node.told = node.told.saturating_sub(count);
        if node.told == 0 && ino != 1 {
            if self.by_path.get(&node.path) == Some(&ino) {
                self.by_path.remove(&node.path);
            }
            self.by_ino.remove(&ino);
        }
    }

    /// Nothing has this path any more.
    pub(super) fn remove(&mut self, path: &Path) {
        self.by_path.remove(path);
    }

    /// What had the path `from` has the path `to`.
    pub(super) fn rename(&mut self, from: &Path, to: PathBuf) {
        self.by_path.remove(&to);
        if let Some(ino) = self.by_path.remove(from) {
            if let Some(node) = self.by_ino.get_mut(&ino) {
                node.path.clone_from(&to);
            }
            self.by_path.insert(to, ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Paths;
    use std::path::{Path, PathBuf};

    #[test]
    fn a_path_that_is_used_again_is_another_node() {
        let mut paths = Paths::new(PathBuf::from("/r"));
        let first = paths.tell(PathBuf::from("/r/a"));
        assert_eq!(paths.tell(PathBuf::from("/r/a")), first);
        paths.remove(Path::new("/r/a"));
        let second = paths.tell(PathBuf::from("/r/a"));
        assert_ne!(first, second);
        paths.forget(first, 2);
        assert_eq!((paths.path(first), paths.path(second)), (None, Some(Path::new("/r/a"))));
        paths.rename(Path::new("/r/a"), PathBuf::from("/r/b"));
        assert_eq!(paths.path(second), Some(Path::new("/r/b")));
        assert_eq!(paths.tell(PathBuf::from("/r/b")), second);
        paths.forget(1, 100);
        assert_eq!(paths.path(1), Some(Path::new("/r")), "the root stays");
    }
}
