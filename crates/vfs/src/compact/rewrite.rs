//! One window: read, sealed into new extents, and committed by comparing its rows.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use namespace::{Answer, Command, NewExtent, Query, Reply, Scattered, Segment};
use types::Errno;

use crate::errno;
use crate::pack;
use crate::vfs::Vfs;

/// Map rows that one rewrite replaces at most.
const ROWS: u32 = 8192;

/// A rewrite that finds only runs shorter than this gives back too little.
const PIECE_MIN: usize = 128 << 10;

impl Vfs {
    /// Writes what lies in a window into new extents; `false` if it was changed meanwhile, or cannot be read or written.
    pub(super) async fn rewrite(&self, window: &Scattered) -> Result<bool, Errno> {
        let ino = window.ino;
        let query =
            Query::Map { volume: self.volume(), ino, start: window.start, end: window.end, max: ROWS };
        let segments = match self.ask(query).await {
            Ok(Answer::Map { segments, .. }) => segments,
            Ok(_) | Err(Errno::ESTALE) => return Ok(self.lose()),
            Err(errno) => return Err(errno),
        };
        let rows: Vec<_> = segments
            .into_iter()
            .filter(|row| row.start >= window.start && row.start + row.len <= window.end)
            .filter_map(|row| row.data.map(|(extent, offset)| (row.start, row.len as u32, extent, offset)))
            .collect();
        let bytes: u64 = rows.iter().map(|(_, len, ..)| u64::from(*len)).sum();
        if rows.is_empty() || bytes > 2 * types::EXTENT_MAX {
            return Ok(self.lose());
        }
        // What was accepted has its room: compaction takes none of it, and is in nobody's way when it waits for its own.
        let takes = bytes.next_multiple_of(types::BLOCK) + (bytes / PIECE_MIN as u64 + 2) * types::BLOCK;
        let Some(_lent) = self.space.lend(takes, || self.extents.space()) else {
            self.compaction.failed.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        };
        let mut plain = Vec::with_capacity(bytes as usize);
        for rows in rows.chunks(16) {
            let reads = rows
                .iter()
                .map(|(_, len, extent, offset)| self.extents.read(extent, *offset..*offset + *len));
            for read in join_all(reads).await {
                match read {
                    Ok(read) => plain.extend_from_slice(&read),
                    Err(error) => {
                        // Overwritten since the map was read, or damaged: then whoever reads the file is told.
                        tracing::debug!(ino = ino.0, %error, "a window was not compacted");
                        self.compaction.failed.fetch_add(1, Ordering::Relaxed);
                        return Ok(false);
                    }
                }
            }
        }
        let mut extents = Vec::new();
        for part in plain.chunks(types::EXTENT_MAX as usize) {
            match self.extents.seal_in_pieces(part, PIECE_MIN).await {
                Ok(sealed) => extents.extend(sealed),
                Err(error) => {
                    tracing::debug!(ino = ino.0, %error, "a window was not compacted");
                    self.discard(&extents).await;
                    self.compaction.failed.fetch_add(1, Ordering::Relaxed);
                    return Ok(false);
                }
            }
        }
        let from: Vec<Segment> = rows
            .iter()
            .map(|(start, len, extent, offset)| Segment {
                start: *start,
                len: *len,
                extent: extent.id,
                offset: *offset,
            })
            .collect();
        let ranges: Vec<_> = from.iter().map(|row| row.start..row.start + u64::from(row.len)).collect();
        let to = pack::segments(&ranges, &extents);
        let command = Command::Rewrite { ino, from, extents: extents.clone(), to };
        match self.session.call(command).await {
            Ok(Reply::Attr(_)) => {
                extents.iter().for_each(|extent| self.extents.committed(extent.id));
                self.compaction.windows.fetch_add(1, Ordering::Relaxed);
                self.compaction.bytes.fetch_add(bytes, Ordering::Relaxed);
                // What it gives back comes with reclaim.
                self.space.shrank();
                Ok(true)
            }
            Ok(Reply::Failed(Errno::EAGAIN | Errno::ESTALE)) => {
                self.discard(&extents).await;
                Ok(self.lose())
            }
            Ok(refused @ Reply::Failed(_)) => {
                self.discard(&extents).await;
                Err(errno::of_wrong_reply(&refused))
            }
            // From here on it is unknown whether rows name them: they stay in flight, and nothing is deleted.
            Ok(unknown) => Err(errno::of_wrong_reply(&unknown)),
            Err(error) => Err(self.no_answer(&error)),
        }
    }

    /// Takes back extents of a rewrite that did not come about: a busy file must not fill the disk with them.
    async fn discard(&self, extents: &[NewExtent]) {
        for extent in extents {
            self.extents.discard(extent).await;
        }
    }

    /// Somebody changed a window first.
    fn lose(&self) -> bool {
        self.compaction.lost.fetch_add(1, Ordering::Relaxed);
        false
    }
}
