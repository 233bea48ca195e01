//! Bugs that tests plant on purpose, to see that they are caught.
//!
//! A suite that has never failed proves little. With the feature `planted-bugs` a run chooses one bug by [`plant`];
//! without it [`is`] is a constant `false`, and nothing of this is left in the program.

/// A mistake that one place in the code makes while it is planted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Bug {
    /// A flush that is asked for never reaches the disk.
    NoFlush = 1,
    /// A put is acknowledged when it is written, not when it is flushed.
    AckBeforeFlush = 2,
    /// Blocks of a deleted fragment are handed out before the delete's record is flushed.
    ReuseBeforeDeleteFlush = 3,
    /// The Raft log is purged past what the row store has synced.
    PurgePastSynced = 4,
    /// A read error in a log is taken for its end.
    EioIsEndOfLog = 5,
    /// Checksums are not compared.
    NoCrc = 6,
}

impl Bug {
    /// Every bug that can be planted.
    pub const ALL: [Bug; 6] = [
        Bug::NoFlush,
        Bug::AckBeforeFlush,
        Bug::ReuseBeforeDeleteFlush,
        Bug::PurgePastSynced,
        Bug::EioIsEndOfLog,
        Bug::NoCrc,
    ];
}

#[cfg(feature = "planted-bugs")]
static PLANTED: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0);

/// Plants `bug` for the rest of the process, or until another call; `None` removes it.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), core::sync::atomic::Ordering::Relaxed);
}

/// Whether `bug` is planted.
#[cfg(feature = "planted-bugs")]
pub fn is(bug: Bug) -> bool {
    PLANTED.load(core::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// Whether `bug` is planted: never, in this build.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}
