//! Where long runs of blocks are missing, what should be one extent becomes several shorter ones.

use namespace::NewExtent;
use types::BLOCK;

use crate::extents::{Extents, SealError};

/// Extents that are sealed and not yet handed to the caller: given up if the rest cannot be.
struct Sealed<'a> {
    extents: &'a Extents,
    pieces: Vec<NewExtent>,
}

impl Drop for Sealed<'_> {
    fn drop(&mut self) {
        for piece in &self.pieces {
            self.extents.abandoned(piece.id);
        }
    }
}

impl Extents {
    /// As [`Extents::seal`], in several extents if there is space but no run of blocks that one would need: they hold
    /// the plaintext's parts in order, none but the last shorter than `least` bytes, which is at least a block.
    ///
    /// A disk that is full of holes takes smaller extents until compaction has made long runs again, instead of none.
    pub async fn seal_in_pieces(&self, plaintext: &[u8], least: usize) -> Result<Vec<NewExtent>, SealError> {
        let least = least.max(BLOCK as usize);
        let mut sealed = Sealed { extents: self, pieces: Vec::new() };
        let (mut rest, mut len) = (plaintext, plaintext.len());
        loop {
            len = len.min(rest.len());
            match self.seal(&rest[..len]).await {
                Ok(piece) => sealed.pieces.push(piece),
                Err(SealError::NoSpace(_)) if len > least => {
                    len = (len / 2).next_multiple_of(BLOCK as usize).max(least);
                    continue;
                }
                Err(error) => {
                    for piece in &sealed.pieces {
                        self.discard(piece).await;
                    }
                    return Err(error);
                }
            }
            rest = &rest[len..];
            if rest.is_empty() {
                return Ok(std::mem::take(&mut sealed.pieces));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use types::{GroupId, SessionId, VolumeId};

    use crate::memory::MemoryStore;
    use crate::{Extents, FixedPlacement, Group, SealError};

    fn over(longest: u32, capacity: u64) -> Extents {
        let store = MemoryStore::new(capacity);
        store.set_longest(longest);
        let group = Group::numbered(GroupId(1), vec![Arc::new(store)]);
        Extents::new(VolumeId(1), SessionId(1), 1, FixedPlacement::of(vec![group]))
    }

    #[tokio::test]
    async fn short_runs_take_a_long_extent_in_order() {
        let bytes: Vec<u8> = (0..1_000_001_u32).map(|at| (at % 251) as u8).collect();
        for run in [4096, 5000, 100_000, 1 << 20] {
            let extents = over(run, 1 << 24);
            let pieces = extents.seal_in_pieces(&bytes, 4096).await.expect("there is space");
            let lens: Vec<u32> = pieces.iter().map(|piece| piece.plain_len).collect();
            assert!(lens.iter().all(|len| *len <= run), "{lens:?}");
            assert!(lens.iter().rev().skip(1).all(|len| len.is_multiple_of(4096)) || lens.len() == 1);
            assert_eq!(lens.iter().sum::<u32>(), 1_000_001);
            assert_eq!(extents.in_flight(), pieces.len());
        }
    }

    #[tokio::test]
    async fn no_piece_is_too_small_and_none_is_left_behind() {
        let extents = over(4096, 1 << 24);
        let refused = extents.seal_in_pieces(&[1; 100_000], 8192).await;
        assert!(matches!(refused, Err(SealError::NoSpace(8192))), "{refused:?}");
        let extents = over(4096, 20 * 4096);
        let refused = extents.seal_in_pieces(&[1; 100_000], 4096).await;
        assert!(matches!(refused, Err(SealError::NoSpace(_))));
        assert_eq!(extents.in_flight(), 0, "those that were stored are given up");
        assert_eq!(extents.space().free, 20 * 4096, "and gone");
    }
}
