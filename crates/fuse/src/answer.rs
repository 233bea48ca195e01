//! Outcomes as replies.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{FileHandle, FopenFlags, Generation, INodeNo};
use namespace::{Attr, DirEntry, FileKind};
use types::{Errno, Ino};
use vfs::{Handle, Listed, Op, Outcome};

use crate::convert::{errno, file_attr, file_type};
use crate::listing::Estimate;
use crate::resident;
use crate::server::Server;

/// Inode numbers are never reused, so a node never has a second generation.
const GENERATION: Generation = Generation(0);

/// A reply that waits for its outcome. Sending it answers what the figures count: bytes moved, or the error told.
pub(crate) trait Answer: Send + 'static {
    /// The operation does not end at once. May be told twice.
    fn waits(&mut self) {}

    /// Tells the kernel that it worked; an outcome of the wrong kind is a bug of the filesystem and told as `EIO`.
    fn succeed(self, outcome: Outcome) -> Result<u64, Errno>;

    /// Tells the kernel that it failed.
    fn fail(self, error: Errno);
}

/// Logs an outcome that does not answer its operation. Only its kind: outcomes hold people's data.
pub(crate) fn mismatch(outcome: &Outcome) -> Errno {
    let kind = match outcome {
        Outcome::Done => "Done",
        Outcome::Entry { .. } => "Entry",
        Outcome::NoEntry { .. } => "NoEntry",
        Outcome::Attr { .. } => "Attr",
        Outcome::Created { .. } => "Created",
        Outcome::Opened { .. } => "Opened",
        Outcome::Bytes(_) => "Bytes",
        Outcome::Written(_) => "Written",
        Outcome::Offset(_) => "Offset",
        Outcome::Entries(_) => "Entries",
        Outcome::StatFs(_) => "StatFs",
        Outcome::Names(_) => "Names",
    };
    tracing::error!(outcome = kind, "an operation was answered with an outcome of another kind");
    Errno::EIO
}

macro_rules! answer {
    ($reply:ty, |$self:ident| { $($pattern:pat => $told:expr),* $(,)? }) => {
        impl Answer for $reply {
            fn succeed(self, outcome: Outcome) -> Result<u64, Errno> {
                let $self = self;
                match outcome {
                    $($pattern => $told,)*
                    other => {
                        let error = mismatch(&other);
                        $self.fail(error);
                        Err(error)
                    }
                }
            }

            fn fail(self, error: Errno) {
                self.error(errno(error));
            }
        }
    };
}

answer!(fuser::ReplyEmpty, |reply| {
    Outcome::Done => { reply.ok(); Ok(0) }
});

answer!(fuser::ReplyEntry, |reply| {
    Outcome::Entry { attr, ttl } => {
        reply.entry_with_ttls(&ttl.attr, &ttl.entry, &file_attr(&attr), GENERATION);
        Ok(0)
    },
    // Node id 0: the kernel remembers that there is nothing.
    Outcome::NoEntry { ttl } => {
        reply.entry_with_ttls(&Duration::ZERO, &ttl, &file_attr(&blank(Ino(0))), GENERATION);
        Ok(0)
    }
});

answer!(fuser::ReplyAttr, |reply| {
    Outcome::Attr { attr, ttl } => { reply.attr(&ttl, &file_attr(&attr)); Ok(0) }
});

answer!(fuser::ReplyCreate, |reply| {
    Outcome::Created { attr, ttl, handle, keep_cache, direct } => {
        let ttl = ttl.entry.min(ttl.attr); // fuser has one for both here
        reply.created(&ttl, &file_attr(&attr), GENERATION, FileHandle(handle.0), open_flags(handle, keep_cache, direct));
        Ok(0)
    }
});

answer!(fuser::ReplyOpen, |reply| {
    Outcome::Opened { handle, keep_cache, direct } => {
        reply.opened(FileHandle(handle.0), open_flags(handle, keep_cache, direct));
        Ok(0)
    }
});

answer!(fuser::ReplyData, |reply| {
    Outcome::Bytes(mut bytes) => {
        resident::settle(&mut bytes);
        reply.data(&bytes);
        Ok(bytes.len() as u64)
    }
});

answer!(fuser::ReplyWrite, |reply| {
    Outcome::Written(bytes) => { reply.written(bytes); Ok(u64::from(bytes)) }
});

answer!(fuser::ReplyLseek, |reply| {
    Outcome::Offset(offset) => { reply.offset(offset as i64); Ok(0) }
});

answer!(fuser::ReplyStatfs, |reply| {
    Outcome::StatFs(space) => {
        let names = (space.files, space.files_free);
        reply.statfs(space.blocks, space.free, space.free, names.0, names.1, 4096, 255, 4096);
        Ok(0)
    }
});

/// How an open file behaves.
pub(crate) fn open_flags(handle: Handle, keep_cache: bool, direct: bool) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    // Nothing was written through it of which its close could hear, so the kernel need not ask (Linux 5.16).
    flags.set(FopenFlags::FOPEN_NOFLUSH, !handle.writes());
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, direct);
    flags
}

/// FORGET has no reply.
pub(crate) struct NoReply;

impl Answer for NoReply {
    fn succeed(self, outcome: Outcome) -> Result<u64, Errno> {
        match outcome {
            Outcome::Done => Ok(0),
            other => Err(mismatch(&other)),
        }
    }

    fn fail(self, _error: Errno) {}
}

/// A value, or the list of names, of extended attributes; with `size` 0 only its length is asked for.
pub(crate) struct XattrAnswer {
    pub(crate) reply: fuser::ReplyXattr,
    pub(crate) size: u32,
}

impl XattrAnswer {
    fn tell(self, value: &[u8]) -> Result<u64, Errno> {
        if self.size == 0 {
            self.reply.size(value.len() as u32);
        } else if value.len() <= self.size as usize {
            self.reply.data(value);
        } else {
            self.reply.error(fuser::Errno::ERANGE);
            return Err(Errno::ERANGE);
        }
        Ok(0)
    }
}

impl Answer for XattrAnswer {
    fn succeed(self, outcome: Outcome) -> Result<u64, Errno> {
        match outcome {
            Outcome::Bytes(value) => self.tell(&value),
            Outcome::Names(names) => {
                let list: Vec<u8> = names.iter().flat_map(|name| name.iter().copied().chain([0])).collect();
                self.tell(&list)
            }
            other => {
                let error = mismatch(&other);
                self.fail(error);
                Err(error)
            }
        }
    }

    fn fail(self, error: Errno) {
        self.reply.error(errno(error));
    }
}

/// Names without attributes.
pub(crate) struct ListAnswer {
    pub(crate) reply: fuser::ReplyDirectory,
    pub(crate) server: Arc<Server>,
    pub(crate) asked: u32,
}

impl Answer for ListAnswer {
    fn succeed(mut self, outcome: Outcome) -> Result<u64, Errno> {
        let Outcome::Entries(entries) = outcome else {
            let error = mismatch(&outcome);
            self.fail(error);
            return Err(error);
        };
        let fitted = entries
            .iter()
            .take_while(|Listed { entry, .. }| {
                let name = std::ffi::OsStr::from_bytes(&entry.name);
                !self.reply.add(INodeNo(entry.ino.0), entry.cookie, file_type(entry.kind), name)
            })
            .count();
        self.reply.ok();
        learn(&self.server.names_fit, self.asked, entries.len(), fitted);
        Ok(0)
    }

    fn fail(self, error: Errno) {
        self.reply.error(errno(error));
    }
}

/// Names with attributes, each of which is a lookup of its own.
pub(crate) struct ListPlusAnswer {
    pub(crate) reply: fuser::ReplyDirectoryPlus,
    pub(crate) server: Arc<Server>,
    pub(crate) asked: u32,
}

impl Answer for ListPlusAnswer {
    fn succeed(mut self, outcome: Outcome) -> Result<u64, Errno> {
        let Outcome::Entries(entries) = outcome else {
            let error = mismatch(&outcome);
            self.fail(error);
            return Err(error);
        };
        let mut fitted = 0;
        for Listed { entry, ttl } in &entries {
            let Some(attr) = entry.attr.or_else(|| placeholder(entry)) else {
                // Without attributes it cannot be told here; skipped, it would be missing. The rest is asked for
                // again behind the last one told, as plain names if the kernel likes.
                tracing::error!(ino = entry.ino.0, "a directory entry came without the attributes asked for");
                if fitted == 0 {
                    forget(&self.server, &entries);
                    self.fail(Errno::EIO);
                    return Err(Errno::EIO);
                }
                break;
            };
            let name = std::ffi::OsStr::from_bytes(&entry.name);
            let node = INodeNo(entry.ino.0);
            let ttl = ttl.entry.min(ttl.attr); // fuser has one for both here
            if self.reply.add(node, entry.cookie, name, &ttl, &file_attr(&attr), GENERATION) {
                break;
            }
            fitted += 1;
        }
        self.reply.ok();
        learn(&self.server.plus_fit, self.asked, entries.len(), fitted);
        forget(&self.server, &entries[fitted..]);
        Ok(0)
    }

    fn fail(self, error: Errno) {
        self.reply.error(errno(error));
    }
}

fn learn(estimate: &Estimate, asked: u32, got: usize, fitted: usize) {
    estimate.learn(asked, got as u32, fitted as u32);
}

/// Gives back the references of entries that the kernel was not told of.
pub(crate) fn forget(server: &Arc<Server>, untold: &[Listed]) {
    let untold = untold.iter().map(|listed| &listed.entry);
    for entry in untold.filter(|entry| !is_dot(entry) && entry.attr.is_some()) {
        server.run(crate::server::nobody(), Op::Forget { ino: entry.ino, count: 1 }, NoReply);
    }
}

fn is_dot(entry: &DirEntry) -> bool {
    matches!(entry.name.as_slice(), b"." | b"..")
}

/// What stands for the attributes of `.` and `..`: the kernel takes only number and type of these, and no reference.
pub(crate) fn placeholder(entry: &DirEntry) -> Option<Attr> {
    is_dot(entry).then(|| blank(entry.ino))
}

/// Attributes that nobody looks at.
fn blank(ino: Ino) -> Attr {
    Attr::blank(ino, FileKind::Directory)
}
