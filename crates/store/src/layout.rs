//! Where the regions of a disk lie, as a function of its size.

use types::{BLOCK, ByteSize};

/// Bytes kept for superblocks at each end of a disk.
pub const ENDS: u64 = 1 << 20;

/// How a disk is cut up. The defaults are those of the format page; tests shrink them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FormatOptions {
    /// The cluster that the disk will belong to.
    pub cluster: ClusterId,
    /// The disk's own identity; never used for another one.
    pub disk: DiskId,
    /// Bytes of the journal; `None`: 1/512 of the disk, 32 to 512 MiB.
    pub journal_bytes: Option<u64>,
    /// Bytes of the intent log; `None`: 1/64 of the disk, 64 MiB to 8 GiB.
    pub intent_bytes: Option<u64>,
    /// Bytes of each of the two checkpoint areas; `None`: 1/128 of the disk, at least 4 MiB.
    pub checkpoint_bytes: Option<u64>,
    /// Bytes of a journal segment, a power of two of 8 KiB to 4 MiB.
    pub segment_bytes: u32,
}

impl FormatOptions {
    /// The sizes of the format page.
    pub fn new(cluster: ClusterId, disk: DiskId) -> FormatOptions {
        FormatOptions {
            cluster,
            disk,
            journal_bytes: None,
            intent_bytes: None,
            checkpoint_bytes: None,
            segment_bytes: SEGMENT_BYTES,
        }
    }
}

/// A checkpoint area is this part of the disk: room for the entries of a disk that is full of extents of one block, each
/// with its header, so that bytes end before the index does.
const CHECKPOINT_PART: u64 = 128;
/// A journal has at least so many segments.
const SEGMENTS_MIN: u64 = 4;
/// Bytes of a journal segment unless a test wants less.
pub const SEGMENT_BYTES: u32 = 4 << 20;

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                for (at, byte) in self.0.iter().enumerate() {
                    let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

uuid!(/// A cluster's UUID.
    ClusterId);
uuid!(/// A disk's UUID.
    DiskId);

/// A run of bytes on a disk, both numbers multiples of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Region {
    /// Where it starts.
    pub at: u64,
    /// How long it is.
    pub len: u64,
}

impl Region {
    /// The byte behind its last one.
    pub fn end(&self) -> u64 {
        self.at + self.len
    }
}

/// Where everything but the superblocks lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Layout {
    /// Changes of the index.
    pub journal: Region,
    /// Reserved for intents: drawn, and untouched until its first use.
    pub intents: Region,
    /// The two checkpoint areas.
    pub checkpoints: [Region; 2],
    /// Fragments.
    pub data: Region,
}

/// A disk is too small for its regions.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a disk of {have} is too small: it needs at least {need}")]
pub struct TooSmall {
    /// The disk's size.
    pub have: ByteSize,
    /// The smallest size with these options.
    pub need: ByteSize,
}

impl Layout {
    /// Cuts a disk of `bytes` up; a rest that is no whole block stays unused.
    pub fn of(bytes: u64, options: &FormatOptions) -> Result<Layout, TooSmall> {
        let segment = u64::from(options.segment_bytes);
        let whole = |n: u64, unit: u64| n.div_ceil(unit) * unit;
        let bytes = bytes / BLOCK * BLOCK;
        let journal =
            whole(options.journal_bytes.unwrap_or_else(|| (bytes / 512).clamp(32 << 20, 512 << 20)), segment)
                .max(SEGMENTS_MIN * segment);
        let intents =
            whole(options.intent_bytes.unwrap_or_else(|| (bytes / 64).clamp(64 << 20, 8 << 30)), segment);
        let checkpoint =
            whole(options.checkpoint_bytes.unwrap_or_else(|| (bytes / CHECKPOINT_PART).max(4 << 20)), BLOCK);
        let mut at = ENDS;
        let mut next = |len: u64| {
            let region = Region { at, len };
            at += len;
            region
        };
        let (journal, intents) = (next(journal), next(intents));
        let checkpoints = [next(checkpoint), next(checkpoint)];
        // The least that makes sense: one fragment of the largest size.
        let need = checkpoints[1].end() + ENDS + u64::from(crate::header::BLOCKS_MAX) * BLOCK;
        if bytes < need {
            return Err(TooSmall { have: ByteSize(bytes), need: ByteSize(need) });
        }
        let at = checkpoints[1].end();
        let data = Region { at, len: bytes - ENDS - at };
        Ok(Layout { journal, intents, checkpoints, data })
    }

    /// The same disk grown to `bytes`: only the data region changes.
    pub fn grown(&self, bytes: u64) -> Layout {
        let end = bytes / BLOCK * BLOCK - ENDS;
        Layout { data: Region { at: self.data.at, len: end - self.data.at }, ..*self }
    }

    /// Whether the regions are whole blocks, lie between the ends of a disk of `bytes`, in order, and do not overlap.
    pub fn is_sound(&self, bytes: u64) -> bool {
        let regions = [self.journal, self.intents, self.checkpoints[0], self.checkpoints[1], self.data];
        let mut from = ENDS;
        for region in regions {
            let Some(end) = region.at.checked_add(region.len) else { return false };
            if region.at < from || !region.at.is_multiple_of(BLOCK) || !region.len.is_multiple_of(BLOCK) {
                return false;
            }
            from = end;
        }
        self.data.len > 0 && from.checked_add(ENDS).is_some_and(|end| end <= bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{ClusterId, DiskId, ENDS, FormatOptions, Layout};

    fn options() -> FormatOptions {
        FormatOptions::new(ClusterId([1; 16]), DiskId([2; 16]))
    }

    #[test]
    fn a_disk_of_one_gib_has_the_smallest_regions() {
        let layout = Layout::of(1 << 30, &options()).expect("fits");
        assert_eq!((layout.journal.at, layout.journal.len), (1 << 20, 32 << 20));
        assert_eq!(layout.intents.len, 64 << 20);
        assert_eq!(layout.checkpoints.map(|c| c.len), [8 << 20; 2]);
        assert_eq!(layout.data.end(), (1 << 30) - ENDS);
        assert!(layout.is_sound(1 << 30) && !layout.is_sound((1 << 30) - 4096));
    }

    #[test]
    fn a_disk_of_one_tib_scales() {
        let layout = Layout::of(1 << 40, &options()).expect("fits");
        assert_eq!((layout.journal.len, layout.intents.len), (512 << 20, 8 << 30));
        assert_eq!(layout.checkpoints.map(|c| c.len), [8 << 30; 2]);
        assert!(layout.is_sound(1 << 40));
    }

    #[test]
    fn a_small_disk_is_refused_with_the_size_it_needs() {
        let error = Layout::of(64 << 20, &options()).expect_err("too small");
        assert!(Layout::of(error.need.0, &options()).is_ok());
        assert!(Layout::of(error.need.0 - 4096, &options()).is_err());
    }

    #[test]
    fn growing_moves_only_the_end_of_the_data() {
        let layout = Layout::of(1 << 30, &options()).expect("fits");
        let grown = layout.grown((2 << 30) + 17);
        assert_eq!(grown.data.end(), (2 << 30) - ENDS);
        assert_eq!(Layout { data: layout.data, ..grown }, layout);
    }
}
