//! What is measured.

/// Something that does the work of a row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// The mount of a volume.
    Mount,
    /// A directory of the disk's own filesystem.
    Plain,
    /// A FUSE filesystem that keeps everything in memory.
    Memory,
    /// A FUSE filesystem that passes each call on to a file of the same disk.
    File,
    /// The disk's flush: one block of a preallocated file, overwritten with O_DSYNC.
    Raw,
}

impl Subject {
    /// All, as columns of a table.
    pub const ALL: [Subject; 5] =
        [Subject::Mount, Subject::Plain, Subject::Memory, Subject::File, Subject::Raw];

    /// Those that hold files.
    pub(crate) const TREES: &'static [Subject] =
        &[Subject::Mount, Subject::Plain, Subject::Memory, Subject::File];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Mount => "mount",
            Subject::Plain => "plain",
            Subject::Memory => "memory",
            Subject::File => "file",
            Subject::Raw => "raw",
        }
    }

    /// As a sentence names it.
    pub(crate) fn phrase(self) -> &'static str {
        match self {
            Subject::Mount => "the mount",
            Subject::Plain => "the plain directory",
            Subject::Memory => "the memory floor",
            Subject::File => "the pass-to-file floor",
            Subject::Raw => "the raw flush",
        }
    }
}
