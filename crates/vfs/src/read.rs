//! Data, read.

use std::ops::Range;
use std::sync::Arc;

use arena::Summary;
use extents::ReadExtentError;
use futures_util::future::join_all;
use namespace::{Answer, Attr, ExtentRow, MapSegment, Query};
use store::ReadError;
use types::{Errno, Ino};

use crate::errno;
use crate::node::Node;
use crate::op::{Handle, Outcome};
use crate::vfs::Vfs;

/// How many segments are asked for at once.
const SEGMENTS: u32 = 256;

/// How many extents are read at once for one call.
const READS: usize = 16;

/// How many segments are read ahead at once: those of a file that was written from front to back.
const AHEAD_SEGMENTS: u32 = 16;

/// How often a map is asked for anew because an extent that it named is not there any more.
const MAP_TRIES: u32 = 4;

/// How often a read starts again because records were freed under it, before it keeps them from being freed.
const READ_TRIES: u32 = 3;

impl Vfs {
    pub(crate) async fn read(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        len: u32,
    ) -> Result<Outcome, Errno> {
        let node = self.node(ino);
        let attr = self.known_attr(&node).await?;
        self.check_data(&attr, handle.reads())?;
        let ahead = node.state().stream.note(offset, u64::from(len));
        if let Some(range) = ahead.clone().filter(|range| range.start < Vfs::size_shown(&attr, None)) {
            self.read_ahead(ino, range).await;
        }
        let bytes = self.read_shown(&node, offset, len, ahead.is_some()).await?;
        self.touch(&node);
        Ok(Outcome::Bytes(bytes))
    }

    /// The bytes of a file as a caller sees them: records over rows.
    ///
    /// A flush brings records into the rows and then frees them. A read that asked the rows before and the records
    /// after would miss both, so it looks whether any were freed meanwhile.
    async fn read_shown(
        &self,
        node: &Node,
        offset: u64,
        len: u32,
        sequential: bool,
    ) -> Result<Vec<u8>, Errno> {
        for _ in 0..READ_TRIES {
            let before = node.state().mapped;
            let bytes = self.read_once(node, offset, len, sequential).await?;
            if node.state().mapped == before {
                return Ok(bytes);
            }
        }
        let _no_flush = node.flush.lock().await;
        self.read_once(node, offset, len, sequential).await
    }

    async fn read_once(
        &self,
        node: &Node,
        offset: u64,
        len: u32,
        sequential: bool,
    ) -> Result<Vec<u8>, Errno> {
        let attr = self.known_attr(node).await?;
        let dirty: Option<Summary> = self.arena.summary(node.ino);
        let size = Vfs::size_shown(&attr, dirty.as_ref());
        let len = u64::from(len).min(size.saturating_sub(offset));
        let mut bytes = vec![0; len as usize];
        if len == 0 {
            return Ok(bytes);
        }
        if dirty.is_none() || !self.arena.covers(node.ino, offset, len) {
            self.read_mapped(node.ino, offset, &mut bytes, sequential).await?;
        }
        if dirty.is_some() {
            let laid = self.arena.overlay(node.ino, offset, &mut bytes);
            laid.map_err(|failed| errno::of_memory(&failed))?;
        }
        Ok(bytes)
    }

    /// Fills `bytes`, which are zeros, with what the rows have of the file from `offset` on. What is behind its end
    /// stays zero.
    pub(crate) async fn read_rows(&self, ino: Ino, offset: u64, bytes: &mut [u8]) -> Result<Attr, Errno> {
        self.read_mapped(ino, offset, bytes, false).await
    }

    /// As [`Vfs::read_rows`]; extents that a sequential reader meets are read whole, for its next reads.
    async fn read_mapped(
        &self,
        ino: Ino,
        offset: u64,
        bytes: &mut [u8],
        sequential: bool,
    ) -> Result<Attr, Errno> {
        let mut tries = 0;
        loop {
            match self.read_rows_once(ino, offset, bytes, sequential).await {
                Err(RowsError::Moved(_)) if tries < MAP_TRIES => tries += 1,
                // The same map again and again: the extent is lost, and not replaced.
                Err(RowsError::Moved(error)) => {
                    tracing::error!(ino = ino.0, %error, "a file cannot be read");
                    return Err(errno::of_read(&error));
                }
                Err(RowsError::Failed(errno)) => return Err(errno),
                Ok(attr) => return Ok(attr),
            }
            bytes.fill(0);
        }
    }

    async fn read_rows_once(
        &self,
        ino: Ino,
        offset: u64,
        bytes: &mut [u8],
        sequential: bool,
    ) -> Result<Attr, RowsError> {
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        loop {
            let query = Query::Map { volume: self.volume(), ino, start: at, end, max: SEGMENTS };
            let (prefix, segments, attr) = match self.ask(query).await? {
                Answer::Inline { bytes, attr } => (bytes, Vec::new(), attr),
                Answer::Map { prefix, segments, attr } => (prefix, segments, attr),
                other => return Err(RowsError::Failed(errno::of_wrong_answer(&other))),
            };
            let shown = at..end.min(attr.size);
            if let Some(part) = common(&(0..prefix.len() as u64), &shown) {
                let from = &prefix[part.start as usize..part.end as usize];
                bytes[(part.start - offset) as usize..(part.end - offset) as usize].copy_from_slice(from);
            }
            let parts: Vec<Part> = segments.iter().filter_map(|segment| Part::of(segment, &shown)).collect();
            for parts in parts.chunks(READS) {
                // Each into its own piece of the buffer, so that what is kept is copied once.
                let mut rest = &mut *bytes;
                let mut taken = offset;
                let reads: Vec<_> = parts
                    .iter()
                    .map(|part| {
                        let (_, behind) = std::mem::take(&mut rest).split_at_mut((part.at - taken) as usize);
                        let (to, behind) = behind.split_at_mut(part.within.len());
                        taken = part.at + part.within.len() as u64;
                        rest = behind;
                        self.read_part(part, to, sequential)
                    })
                    .collect();
                for read in join_all(reads).await {
                    read.map_err(|error| self.not_read(ino, &error))?;
                }
            }
            match segments.last() {
                Some(last) if segments.len() == SEGMENTS as usize && last.start + last.len < end => {
                    at = last.start + last.len;
                }
                _ => return Ok(attr),
            }
        }
    }

    async fn read_part(&self, part: &Part, to: &mut [u8], sequential: bool) -> Result<(), ReadExtentError> {
        let kept = match sequential {
            true => Some(self.kept.keep(&part.extent).0),
            false => self.kept.find(part.extent.id),
        };
        let within = part.within.start as usize..part.within.end as usize;
        if let Some(slot) = kept {
            match slot.get(&self.extents).await {
                Ok(bytes) => to.copy_from_slice(&bytes[within]),
                // A block of it that nobody asked for may be the bad one.
                Err(_) => to.copy_from_slice(&self.extents.read(&part.extent, part.within.clone()).await?),
            }
            return Ok(());
        }
        to.copy_from_slice(&self.extents.read(&part.extent, part.within.clone()).await?);
        Ok(())
    }

    /// Begins to read the extents of a range. Nobody waits for them, and what fails is told to who reads them later.
    async fn read_ahead(&self, ino: Ino, range: Range<u64>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if range.is_empty() {
            return;
        }
        let query = Query::Map {
            volume: self.volume(),
            ino,
            start: range.start,
            end: range.end,
            max: AHEAD_SEGMENTS,
        };
        let Ok(Answer::Map { segments, .. }) = self.ask(query).await else { return };
        for (extent, _) in segments.iter().filter_map(|segment| segment.data) {
            let (slot, fresh) = self.kept.keep(&extent);
            if fresh {
                let extents = Arc::clone(&self.extents);
                runtime.spawn(async move { slot.get(&extents).await.map(drop) });
            }
        }
    }

    fn not_read(&self, ino: Ino, error: &ReadExtentError) -> RowsError {
        if matches!(error, ReadExtentError::Damaged { source: Some(ReadError::NotFound(_)), .. }) {
            return RowsError::Moved(Box::new(error.clone()));
        }
        tracing::error!(ino = ino.0, %error, "a file cannot be read");
        RowsError::Failed(errno::of_read(error))
    }
}

/// Why the rows did not give a file's bytes.
enum RowsError {
    /// An extent is not there: the file was changed after its map was read.
    Moved(Box<ReadExtentError>),
    Failed(Errno),
}

impl From<Errno> for RowsError {
    fn from(errno: Errno) -> RowsError {
        RowsError::Failed(errno)
    }
}

/// A part of an extent that is to be read.
struct Part {
    /// Where it lies in the file.
    at: u64,
    extent: ExtentRow,
    within: Range<u32>,
}

impl Part {
    fn of(segment: &MapSegment, shown: &Range<u64>) -> Option<Part> {
        let (extent, offset) = segment.data?;
        let range = common(&(segment.start..segment.start + segment.len), shown)?;
        let from = offset + (range.start - segment.start) as u32;
        Some(Part { at: range.start, extent, within: from..from + (range.end - range.start) as u32 })
    }
}

fn common(one: &Range<u64>, other: &Range<u64>) -> Option<Range<u64>> {
    let both = one.start.max(other.start)..one.end.min(other.end);
    (!both.is_empty()).then_some(both)
}
