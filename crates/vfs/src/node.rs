//! What the mount remembers of one inode.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arena::Summary;
use meta_client::Place;
use namespace::{Attr, FileKind};
use types::{BLOCK, Dseq, Errno, Grant, Ino, Nanos};

use crate::ahead::Stream;
use crate::space::Charge;

/// An inode that the kernel refers to, or that has work left.
///
/// Locks are taken in this order: names, `pins`, `size`, `flush`, `state`; those of two inodes in ino order.
pub(crate) struct Node {
    pub(crate) ino: Ino,
    /// Shared by who opens it; alone by who may take its last name or its last pin.
    pub(crate) pins: tokio::sync::RwLock<()>,
    /// Shared by who writes; alone by who changes its size or its attributes otherwise.
    pub(crate) size: tokio::sync::RwLock<()>,
    /// Held by the one flush, and by who needs that there is none.
    pub(crate) flush: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// The part of a node behind a short lock.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// References that the kernel has, as far as they were counted since the node was made.
    pub(crate) lookups: u64,
    /// The kernel may have references that an earlier node of the inode counted.
    pub(crate) may_be_referred_to: bool,
    /// Open files and directories.
    pub(crate) opens: u32,
    attr: Option<Attr>,
    /// When the last change ended whose outcome for this inode was not told: what was asked before may be old.
    pub(crate) unsure: Asked,
    /// Such changes in flight.
    pub(crate) changing: u32,
    /// It has no row any more: what is remembered is all there is, until the kernel forgets it.
    gone: bool,
    /// It has no name any more.
    nameless: bool,
    /// Under which the mount may write it.
    pub(crate) grant: Option<Grant>,
    /// Somebody without the right to keep set-id bits has written since the last flush.
    /// The last record of such a write.
    pub(crate) kill_priv: Option<Dseq>,
    /// Where the last commit of its data has its place.
    pub(crate) committed: Option<Place>,
    /// The mtime was set after this record was written: it stays when that is committed.
    times_set: Option<Dseq>,
    /// What accepted writes may take.
    pub(crate) charge: Charge,
    /// The blocks of the last charged writes, one after the other: written again they are not charged again.
    pub(crate) charged_run: (u64, u64),
    /// How often records were freed: a read that saw it move reads again.
    pub(crate) mapped: u64,
    /// What was accepted for it can never be stored, and whoever has it open was told.
    pub(crate) lost: bool,
    pub(crate) failing: Option<Failing>,
    /// Read since the last atime was stored: the atime to show.
    pub(crate) touched: Option<Nanos>,
    /// Where it is read.
    pub(crate) stream: Stream,
    /// Handles that were told of late errors after they were opened: serial and count.
    pub(crate) told: Vec<(u32, u32)>,
}

/// The last flush failed, and the data is still in the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failing {
    pub(crate) errno: Errno,
    /// When to try again.
    pub(crate) next: Duration,
    /// How long to wait after the next failure.
    pub(crate) delay: Duration,
}

/// A moment of the mount, taken before something is asked that answers attributes: the count of events after which an
/// earlier answer may be old: changes whose outcome for some inode was not told, and nodes that were forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Asked(pub(crate) u64);

impl Node {
    pub(crate) fn new(ino: Ino) -> Node {
        Node {
            ino,
            pins: tokio::sync::RwLock::new(()),
            size: tokio::sync::RwLock::new(()),
            flush: tokio::sync::Mutex::new(()),
            state: Mutex::new(State::default()),
        }
    }

    /// Never held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The attributes of the rows, if they are known.
    pub(crate) fn attr(&self) -> Option<Attr> {
        self.attr
    }

    /// Remembers attributes that were answered, unless newer ones are known or may be on their way. Whether as new ones
    /// are known now.
    pub(crate) fn store(&mut self, asked: Asked, attr: Attr) -> bool {
        if self.gone {
            return true;
        }
        self.nameless |= attr.nlink == 0;
        let newest = match self.attr {
            Some(known) => attr.change >= known.change,
            None => self.unsure <= asked && self.changing == 0,
        };
        if newest {
            self.attr = Some(attr);
        }
        self.attr.is_some()
    }

    /// A change ended at `now` whose outcome for this inode was not told.
    pub(crate) fn forget_attr(&mut self, now: Asked) {
        self.unsure = self.unsure.max(now);
        if !self.gone {
            self.attr = None;
        }
    }

    /// The inode's rows are gone, and these were its last attributes.
    pub(crate) fn set_gone(&mut self, attr: Attr) {
        self.attr = Some(Attr { nlink: 0, ..attr });
        if std::mem::take(&mut self.may_be_referred_to) {
            // Who takes the last name away has looked it up. What is remembered is all there is, so it stays until the
            // kernel forgets it.
            self.lookups = self.lookups.max(1);
        }
        self.gone = true;
        self.touched = None;
        self.kill_priv = None;
    }

    pub(crate) fn is_nameless(&self) -> bool {
        self.nameless
    }

    /// Its last name went.
    pub(crate) fn set_nameless(&mut self) {
        self.nameless = true;
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Neither the kernel refers to it nor is there work left for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.lookups == 0 && !self.has_work()
    }

    /// All that is remembered can be asked for again, or is worth nothing.
    pub(crate) fn is_unused(&self) -> bool {
        !self.gone && !self.nameless && !self.has_work()
    }

    /// It is open, or there is something to be done for it.
    fn has_work(&self) -> bool {
        self.opens > 0
            || !self.charge.is_nothing()
            || self.kill_priv.is_some()
            || self.touched.is_some()
            || self.failing.is_some()
    }

    /// The attributes as a caller sees them: those of the rows, with what was accepted since.
    ///
    /// What was accepted will be stored by the rules of a commit, so it is shown by them.
    pub(crate) fn shown(&self, attr: Attr, dirty: Option<&Summary>, now: Nanos) -> Attr {
        let mut shown = attr;
        if let Some(dirty) = dirty {
            shown.size = attr.size.max(dirty.end);
            if !self.has_times_set_after(dirty.last) {
                shown.mtime = dirty.newest.max(attr.mtime).min(now);
            }
            shown.ctime = dirty.newest.max(attr.ctime);
            shown.allocated = (attr.allocated + self.charge.growth).min(shown.size.next_multiple_of(BLOCK));
            shown.allocated = shown.allocated.max(attr.allocated);
        }
        if self.kill_priv.is_some() {
            shown.mode = without_set_id(shown.mode);
        }
        if let Some(touched) = self.touched {
            shown.atime = attr.atime.max(touched);
        }
        shown
    }

    /// The mtime was set, when the records up to this one were not committed yet.
    pub(crate) fn set_times(&mut self, last: Dseq) {
        self.times_set = Some(last);
    }

    /// Whether the mtime was set after this record was written.
    pub(crate) fn has_times_set_after(&self, record: Dseq) -> bool {
        self.times_set.is_some_and(|last| record <= last)
    }

    /// Everything up to this record is committed, or nobody's.
    pub(crate) fn flushed(&mut self, through: Dseq) {
        self.failing = None;
        self.times_set = self.times_set.filter(|last| *last > through);
    }

    /// Whether the attributes will change by themselves: the kernel must not remember them.
    pub(crate) fn is_settled(&self, dirty: Option<&Summary>) -> bool {
        // An atime that is not stored yet will be stored as it is shown.
        self.changing == 0 && dirty.is_none() && self.kill_priv.is_none()
    }

    /// Whether a read moves the atime (relatime): it is not after the last change, or a day old.
    pub(crate) fn is_due_for_touch(&self, shown: &Attr, now: Nanos) -> bool {
        const DAY_NANOS: i64 = 86_400_000_000_000;
        let stale = shown.atime <= shown.mtime || shown.atime <= shown.ctime;
        !self.gone && (stale || now.0.saturating_sub(shown.atime.0) >= DAY_NANOS)
    }
}

/// A mode after somebody without the right to keep set-id bits has written: set-group-id of a file that its group
/// cannot execute means mandatory locking, not privilege, and stays.
pub(crate) fn without_set_id(mode: u32) -> u32 {
    let mode = mode & !0o4000;
    if mode & 0o010 != 0 { mode & !0o2000 } else { mode }
}

/// Whether a kind has data that is read and written here.
pub(crate) fn has_data(kind: FileKind) -> bool {
    kind == FileKind::File
}
