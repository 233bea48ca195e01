//! Maps of many rows, and maps that share extents.

use alloc::vec;
use types::{Errno, Ino};

use super::{Pair, VOLUME, pick};
use crate::{Answer, Command, Content, FileKind, Query, Reply, Segment};

impl Pair {
    /// More map rows than a truncate deletes at once.
    pub(super) fn shatter(&mut self, a: u64, b: u64, c: u64) {
        let ino = self.some(FileKind::File, a);
        if self.model.get(ino).kind != FileKind::File {
            return;
        }
        let extent = self.world.new_extent(8_192);
        let first = 4096 + b % 10_000;
        let (count, step) = (200 + c % 150, 3 + c % 60);
        let segments = (0..count)
            .map(|i| {
                let len = (1 + (i + c) % 3) as u32;
                Segment { start: first + i * step, len, extent: extent.id, offset: i as u32 }
            })
            .collect();
        let size = self.model.get(ino).data.len().max((first + count * step) as usize);
        let content = Content::Segments { extents: vec![extent], segments };
        assert_eq!(self.write(ino, content, size, false), Ok(()));
    }

    /// Bytes that lie in a row beside the inode and not in an extent.
    fn inline_len(&self, ino: u64) -> u64 {
        let whole = Query::Map { volume: VOLUME, ino: Ino(ino), start: 0, end: 1, max: 1 };
        match self.world.ask(whole) {
            Answer::Inline { bytes, .. } => bytes.len() as u64,
            Answer::Map { prefix, .. } => prefix.len() as u64,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn copy(&mut self, a: u64, b: u64, c: u64) {
        let (from, to) = (self.some(FileKind::File, a), self.some(FileKind::File, b));
        let place = |seed: u64| pick(&[0, seed % 5_000, 4096, 8192, seed % 20_000], seed / 32);
        let (from_offset, to_offset) = (place(c), place(c / 7));
        let len = pick(&[0, 1 + b % 9_000, 4096, 30_000], b / 64);
        let kill_priv = c.is_multiple_of(3);
        let command =
            Command::CopyRange { from: Ino(from), from_offset, to: Ino(to), to_offset, len, kill_priv };
        let reply = self.run(command);
        for ino in [from, to] {
            match self.model.get(ino).kind {
                FileKind::File => {}
                FileKind::Directory => return assert_eq!(reply, Reply::Failed(Errno::EISDIR)),
                _ => return assert_eq!(reply, Reply::Failed(Errno::EINVAL)),
            }
        }
        let size = self.model.get(from).data.len() as u64;
        let len = len.min(size.saturating_sub(from_offset));
        if from == to && from_offset < to_offset + len && to_offset < from_offset + len {
            return assert_eq!(reply, Reply::Failed(Errno::EINVAL));
        }
        let Reply::Copied { bytes, .. } = reply else { panic!("{reply:?}") };
        assert!(bytes <= len);
        if bytes == 0 {
            let here = self.inline_len(from) > 0 && from_offset < 4096;
            let there = self.inline_len(to) > 0 && to_offset < 4096;
            return assert!(len == 0 || here || there, "nothing was copied, and nothing stood in the way");
        }
        let part = self.model.get(from).data[from_offset as usize..(from_offset + bytes) as usize].to_vec();
        let node = self.model.at(to);
        let (start, end) = (to_offset as usize, (to_offset + bytes) as usize);
        if node.data.len() < end {
            node.data.resize(end, 0);
        }
        node.data[start..end].copy_from_slice(&part);
        self.model.modified(to);
        if kill_priv {
            self.model.kill_priv(to);
        }
    }
}
