//! Which chunks are in use, and where the next record goes.

use crate::layout::{Geometry, PAGE};

/// The chunks of an arena. Records are laid behind one another in the open chunk; another one is free again when no
/// record in it is live. The open one is kept: the next record goes there, and giving pages back to take them anew costs
/// more than the record.
#[derive(Debug)]
pub(crate) struct Chunks {
    geometry: Geometry,
    /// Bytes laid into each chunk; 0 for a free one.
    tails: Vec<u64>,
    /// Live records in each chunk.
    live: Vec<u32>,
    free: Vec<u32>,
    open: Option<u32>,
    /// Pages behind all tails, in bytes.
    used: u64,
}

impl Chunks {
    pub(crate) fn new(geometry: Geometry) -> Chunks {
        let count = geometry.chunks();
        Chunks {
            geometry,
            tails: vec![0; count as usize],
            live: vec![0; count as usize],
            free: (0..count).rev().collect(),
            open: None,
            used: 0,
        }
    }

    /// Bytes of pages that records take, freed ones in chunks with live ones included.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Where a record of `size` bytes can be written, if there is room. Nothing is taken until [`Chunks::laid`].
    pub(crate) fn place(&mut self, size: u64) -> Option<u64> {
        let fits = |chunk: &u32| self.tails[*chunk as usize] + size <= self.geometry.stride();
        let chunk = self.open.filter(fits).or_else(|| self.free.last().copied())?;
        let tail = self.tails[chunk as usize];
        let grows = pages(tail + size) - pages(tail);
        (self.used + grows <= self.geometry.capacity).then(|| self.geometry.chunk_at(chunk) + tail)
    }

    /// A live record of `size` bytes was written where [`Chunks::place`] said.
    pub(crate) fn laid(&mut self, at: u64, size: u64) {
        let chunk = self.geometry.chunk_of(at);
        if self.open != Some(chunk) {
            assert_eq!(
                self.free.pop(),
                Some(chunk),
                "a record was laid into a chunk that is neither open nor free"
            );
            self.open = Some(chunk);
        }
        self.extend(chunk, size);
        self.live[chunk as usize] += 1;
    }

    /// Something of at most `size` bytes may have been written where [`Chunks::place`] said: nothing is laid behind
    /// it, because a walk over the chunk would meet it.
    pub(crate) fn spoilt(&mut self, at: u64, size: u64) -> Option<u32> {
        self.laid(at, size);
        self.open = None;
        self.drop_record(at)
    }

    /// A chunk is found in use, with records in its first `tail` bytes. Nothing more is laid into it.
    pub(crate) fn found(&mut self, chunk: u32, tail: u64, live: u32) {
        self.free.retain(|free| *free != chunk);
        self.extend(chunk, tail);
        self.live[chunk as usize] = live;
    }

    /// A record is live no more. Answers its chunk if nothing is left there and nothing more will be laid there: it must
    /// be punched, then [`Chunks::punched`].
    pub(crate) fn drop_record(&mut self, at: u64) -> Option<u32> {
        let chunk = self.geometry.chunk_of(at);
        self.live[chunk as usize] -= 1;
        (!self.is_kept(at)).then_some(chunk)
    }

    /// Whether a place is in a chunk that keeps its memory.
    pub(crate) fn is_kept(&self, at: u64) -> bool {
        let chunk = self.geometry.chunk_of(at);
        self.live[chunk as usize] > 0 || self.open == Some(chunk)
    }

    /// Whether a place is in the open chunk.
    pub(crate) fn is_open(&self, at: u64) -> bool {
        self.open == Some(self.geometry.chunk_of(at))
    }

    /// Closes the open chunk if no live record is in it: it must be punched, then [`Chunks::punched`].
    pub(crate) fn retire(&mut self) -> Option<u32> {
        self.open.take_if(|open| self.live[*open as usize] == 0)
    }

    /// A chunk reads as zeros again.
    pub(crate) fn punched(&mut self, chunk: u32) {
        self.used -= pages(self.tails[chunk as usize]);
        self.tails[chunk as usize] = 0;
        self.free.push(chunk);
    }

    fn extend(&mut self, chunk: u32, size: u64) {
        let tail = &mut self.tails[chunk as usize];
        self.used += pages(*tail + size) - pages(*tail);
        *tail += size;
    }
}

fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE)
}
