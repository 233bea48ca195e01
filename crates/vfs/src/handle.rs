//! The bits of an open file: `mode 4 | error sample 28 | serial 32`.

use crate::op::{Handle, OpenFlags};

const READ: u64 = 1;
const WRITE: u64 = 2;
const APPEND: u64 = 4;
const SYNC: u64 = 8;

/// Late errors are counted in as many bits as a handle has for them; the count wraps around.
pub(crate) const SAMPLE_MASK: u32 = (1 << 28) - 1;

impl Handle {
    /// A handle opened as `flags` say, when the inode's count of late errors was `sample`.
    pub(crate) fn new(flags: OpenFlags, sample: u32, serial: u32) -> Handle {
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        let mode = bit(flags.read, READ)
            | bit(flags.write, WRITE)
            | bit(flags.append, APPEND)
            | bit(flags.sync, SYNC);
        Handle(mode << 60 | u64::from(sample & SAMPLE_MASK) << 32 | u64::from(serial))
    }

    pub(crate) fn reads(self) -> bool {
        self.0 >> 60 & READ != 0
    }

    /// Whether data can be written through it.
    pub fn writes(self) -> bool {
        self.0 >> 60 & WRITE != 0
    }

    /// Whether each write is durable before it returns.
    pub(crate) fn is_sync(self) -> bool {
        self.0 >> 60 & SYNC != 0
    }

    /// The count of late errors that its opener knows of.
    pub(crate) fn sample(self) -> u32 {
        (self.0 >> 32) as u32 & SAMPLE_MASK
    }

    /// Tells it from the mount's other handles.
    pub(crate) fn serial(self) -> u32 {
        self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::{Handle, OpenFlags, SAMPLE_MASK};

    #[test]
    fn the_bits_are_where_the_design_has_them() {
        let flags = OpenFlags { read: true, write: false, append: false, sync: true, ..OpenFlags::default() };
        let handle = Handle::new(flags, 0x1234_5678, 0x9abc_def0);
        assert_eq!(handle.0, 0x9234_5678_9abc_def0, "the sample loses what is above its 28 bits");
        assert!(handle.reads() && !handle.writes() && handle.is_sync());
        assert_eq!((handle.sample(), handle.serial()), (0x1234_5678 & SAMPLE_MASK, 0x9abc_def0));
    }
}
