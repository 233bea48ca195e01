//! A reply that waits for its outcome.

use std::sync::Arc;

use types::{Errno, Ino};
use vfs::{Op, Outcome};

use super::connection::Connection;
use super::header::Header;
use super::reply::{Shape, Told, encode};
use super::waiting::{Mode, Waiter};
use crate::answer::{Answer, NoReply, forget};
use crate::resident;
use crate::server::nobody;

/// What becomes of an operation whose caller was killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// It is finished first.
    Finish,
    /// It has no effect but those that its outcome shows.
    Look,
    /// It opens the inode.
    Open(Ino),
    /// It opens the directory.
    OpenDir(Ino),
    /// It may tell its caller of an error that nobody hears of again.
    Sync,
    /// It knows itself whether it has an effect yet.
    Write,
}

impl From<&Op> for Manner {
    fn from(op: &Op) -> Manner {
        match op {
            Op::Lookup { .. }
            | Op::GetAttr { .. }
            | Op::ReadLink { .. }
            | Op::Read { .. }
            | Op::ReadDir { .. }
            | Op::StatFs { .. }
            | Op::GetXattr { .. }
            | Op::ListXattr { .. }
            | Op::Seek { .. } => Manner::Look,
            Op::Open { ino, flags } if !flags.truncate => Manner::Open(*ino),
            Op::OpenDir { ino } => Manner::OpenDir(*ino),
            Op::Fsync { .. } | Op::FsyncDir { .. } => Manner::Sync,
            Op::Write { .. } => Manner::Write,
            _ => Manner::Finish,
        }
    }
}

/// The reply to one request. If it is dropped unanswered the request stays the kernel's, which gives it to the next reader
/// of the connection that asks for it, or ends it with the connection.
pub(super) struct Reply {
    connection: Arc<Connection>,
    unique: u64,
    request: u64,
    pid: u32,
    shape: Shape,
    manner: Manner,
    waits: bool,
}

impl Reply {
    pub(super) fn new(connection: &Arc<Connection>, header: &Header, op: &Op, shape: Shape) -> Reply {
        Reply {
            connection: Arc::clone(connection),
            unique: header.unique,
            request: header.request(),
            pid: header.pid,
            shape,
            manner: Manner::from(op),
            waits: false,
        }
    }

    /// Whether nobody else has answered.
    fn is_ours(&self) -> bool {
        !self.waits || self.connection.waiting.end(self.request)
    }

    /// Takes back what the kernel was not told of.
    fn undo(&self, outcome: Outcome) {
        let server = &self.connection.server;
        let op = match (self.manner, outcome) {
            (_, Outcome::Entry { attr, .. }) => Op::Forget { ino: attr.ino, count: 1 },
            (Manner::Open(ino), Outcome::Opened { handle, .. }) => Op::Release { ino, handle },
            (Manner::OpenDir(ino), Outcome::Opened { handle, .. }) => Op::ReleaseDir { ino, handle },
            (_, Outcome::Entries(entries)) => return forget(server, &entries),
            _ => return,
        };
        server.run(nobody(), op, NoReply);
    }

    /// Lets the next listing ask for as many names as fit. An error if not even one did: an empty answer would be the end.
    fn learn(&self, listed: &Told) -> Result<(), Errno> {
        let server = &self.connection.server;
        let (got, told) = (listed.entries.len() as u32, listed.told as u32);
        match self.shape {
            Shape::Listing { asked, .. } => server.names_fit.learn(asked, got, told),
            Shape::ListingPlus { asked, .. } => server.plus_fit.learn(asked, got, told),
            _ => {}
        }
        if got > 0 && told == 0 { Err(Errno::EIO) } else { Ok(()) }
    }
}

impl Answer for Reply {
    fn waits(&mut self) {
        if self.waits || self.manner == Manner::Finish {
            return;
        }
        self.waits = true;
        let mode = match self.manner {
            Manner::Sync => Mode::IfKilled,
            Manner::Write => Mode::Ask,
            _ => Mode::Answer,
        };
        let waiter = Waiter { unique: self.unique, pid: self.pid, mode };
        self.connection.waiting.begin(self.request, waiter);
    }

    fn succeed(self, outcome: Outcome) -> Result<u64, Errno> {
        if !self.is_ours() {
            self.undo(outcome);
            return Err(Errno::EINTR);
        }
        let body = encode(self.shape, outcome);
        let told = match &body {
            Ok(body) => body.listed.as_ref().map_or(Ok(()), |listed| self.learn(listed)),
            Err(error) => Err(*error),
        };
        let Ok(mut body) = body else {
            self.connection.reply(self.unique, told.map(|()| &[][..]));
            return told.map(|()| 0);
        };
        resident::settle(&mut body.bytes);
        self.connection.reply(self.unique, told.map(|()| &body.bytes[..]));
        if let Some(listed) = body.listed {
            forget(&self.connection.server, &listed.entries[listed.told..]);
        }
        told.map(|()| body.moved)
    }

    fn fail(self, error: Errno) {
        if self.is_ours() {
            self.connection.reply(self.unique, Err(error));
        }
    }
}
