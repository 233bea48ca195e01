//! The other side of the holder's socket: an engine, or a second keeper.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::kept::{Change, Item, KeptMount, Name, Taken};
use crate::socket::{self, ReceiveError, Wait};
use crate::wire::{BadMessage, Message, Role};

/// Why a holder did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It has closed the socket, most likely because it is dead. What was asked may have been done.
    #[error("the holder is gone")]
    Gone,
    /// Another one has taken its place: connect anew.
    #[error("another holder has taken the holder's place")]
    Succeeded,
    /// It says no.
    #[error("the holder refuses: {0}")]
    Refused(String),
    /// What it says cannot be understood.
    #[error("the holder's answer cannot be understood")]
    Bad(#[from] BadMessage),
    /// It says what does not answer the question.
    #[error("the holder's answer belongs to another question")]
    Unexpected,
    /// A system call failed.
    #[error("{call} failed on the way to the holder")]
    System {
        /// What failed.
        call: &'static str,
        /// How.
        #[source]
        source: std::io::Error,
    },
}

fn failed(call: &'static str) -> impl Fn(Errno) -> KeeperError {
    move |error| match error {
        Errno::PIPE | Errno::CONNRESET => KeeperError::Gone,
        error => KeeperError::System { call, source: error.into() },
    }
}

/// A connection to a holder.
///
/// Every call blocks until the holder has answered. One that fails leaves the connection in an unknown state: it is
/// then good for nothing but to be dropped.
#[derive(Debug)]
pub struct Keeper {
    socket: OwnedFd,
    start: u64,
}

impl Keeper {
    /// For an engine that a holder has started: by descriptor 0, which this takes a copy of.
    pub fn inherited() -> Result<Keeper, KeeperError> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned();
        let socket = socket.map_err(|source| KeeperError::System { call: "fcntl(2)", source })?;
        Keeper::greet(socket, Role::Engine)
    }

    /// By the holder's socket. [`Role::Engine`]: for an engine whose holder is dead, to the next one, which wants to
    /// be [given](Keeper::give) everything. Other users than the holder's own and root may not connect.
    pub fn connect(path: &Path, role: Role) -> Result<Keeper, KeeperError> {
        let address = SocketAddrUnix::new(path).map_err(failed("bind(2)"))?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let socket = socket.map_err(failed("socket(2)"))?;
        rustix::net::connect(&socket, &address).map_err(failed("connect(2)"))?;
        Keeper::greet(socket, role)
    }

    fn greet(socket: OwnedFd, role: Role) -> Result<Keeper, KeeperError> {
        let mut keeper = Keeper { socket, start: 0 };
        match keeper.ask(&Message::Hello { role }, None)? {
            Message::Welcome { start } => keeper.start = start,
            _ => return Err(KeeperError::Unexpected),
        }
        Ok(keeper)
    }

    /// How many engines the holder has started, this one included: 1 for the first.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Fetches all that is kept; to be called once. A keeper is told of each later change: see [`Keeper::next_change`].
    pub fn take(&mut self) -> Result<Taken, KeeperError> {
        self.send(&Message::Take, None)?;
        let mut taken = Taken::default();
        loop {
            match self.receive()? {
                (Message::Mount(mount), None) => taken.mounts.push(mount),
                (Message::Put { mount, name }, Some(descriptor)) => {
                    taken.items.push(Item { mount, name, descriptor: Arc::new(descriptor) });
                }
                (Message::End { mounts, items }, None) => {
                    let there = (taken.mounts.len(), taken.items.len());
                    return if there == (mounts as usize, items as usize) {
                        Ok(taken)
                    } else {
                        Err(KeeperError::Unexpected)
                    };
                }
                _ => return Err(KeeperError::Unexpected),
            }
        }
    }

    /// Has a descriptor kept, in the place of one of the same name. Only for the engine. `mount` is 0 for what belongs to
    /// none.
    ///
    /// When it returns the descriptor outlives this process. A clone of a device is put *before* anything is read from it:
    /// the kernel ends the requests of a clone whose last copy closes.
    pub fn put(&mut self, mount: u32, name: &Name, descriptor: BorrowedFd<'_>) -> Result<(), KeeperError> {
        self.order(&Message::Put { mount, name: name.clone() }, Some(descriptor))
    }

    /// Has a mount let go, with all that belongs to it. Only for the engine, when the mount is gone and nothing that was
    /// accepted waits in its arena.
    pub fn drop_mount(&mut self, number: u32) -> Result<(), KeeperError> {
        self.order(&Message::Drop { mount: number }, None)
    }

    /// Gives a new holder all that the old one kept. Only for an engine whose holder is dead. The new one watches this
    /// process from then on.
    pub fn give(&mut self, all: &Taken) -> Result<(), KeeperError> {
        for mount in &all.mounts {
            self.order(&Message::Mount(KeptMount::clone(mount)), None)?;
        }
        for item in &all.items {
            self.put(item.mount, &item.name, item.descriptor.as_fd())?;
        }
        let end = Message::End { mounts: all.mounts.len() as u32, items: all.items.len() as u32 };
        self.order(&end, None)
    }

    /// Tells that the engine serves all mounts: if it dies from now on the next one is started at once.
    pub fn ready(&mut self) -> Result<(), KeeperError> {
        self.order(&Message::Ready, None)
    }

    /// Tells that the engine ends for good: no other one is started once it is dead, and the holder ends too. `failed`
    /// says why, if something failed; what is kept then is lost.
    pub fn bye(mut self, failed: Option<String>) -> Result<(), KeeperError> {
        self.order(&Message::Bye { failed }, None)
    }

    /// Waits for the next change of what is kept. Only after [`Keeper::take`] as a keeper.
    ///
    /// [`KeeperError::Gone`]: it is for this one to [hold](crate::hold) what was taken, if no other keeper is quicker.
    pub fn next_change(&mut self) -> Result<Change, KeeperError> {
        Keeper::change(self.receive()?)
    }

    fn change(received: socket::Received) -> Result<Change, KeeperError> {
        match received {
            (Message::Put { mount, name }, Some(descriptor)) => {
                Ok(Change::Put(Item { mount, name, descriptor: Arc::new(descriptor) }))
            }
            (Message::Drop { mount }, None) => Ok(Change::Drop(mount)),
            _ => Err(KeeperError::Unexpected),
        }
    }

    /// Takes the holder's place: `taken` and all changes since are answered, and the holder has let go. Whoever calls
    /// [holds](crate::hold) them at once, on the same socket: the engine that serves comes there. Only after
    /// [`Keeper::take`] as a keeper.
    pub fn succeed(self, mut taken: Taken) -> Result<Taken, KeeperError> {
        self.send(&Message::Succeed, None)?;
        loop {
            match self.receive()? {
                (Message::Done, None) => break,
                change => taken.apply(Keeper::change(change)?),
            }
        }
        // Its socket is gone from the file system before it hangs up.
        match self.receive() {
            Err(KeeperError::Gone) => Ok(taken),
            Err(error) => Err(error),
            Ok(_) => Err(KeeperError::Unexpected),
        }
    }

    /// Has an engine of another program, with the same arguments, take the place of the one that serves; later ones are of
    /// that program too. `program` is a path from the root on. Only for a keeper that has not taken anything.
    ///
    /// When it returns the new one serves. Refused: the old program serves on, or does again soon.
    pub fn replace(&mut self, program: &Path) -> Result<(), KeeperError> {
        self.order(&Message::Replace { program: program.to_path_buf() }, None)
    }

    /// A copy of the connection, only to wait on: it hangs up, `POLLHUP` of poll(2), when the holder is dead.
    pub fn life(&self) -> Result<OwnedFd, KeeperError> {
        self.socket.try_clone().map_err(|source| KeeperError::System { call: "fcntl(2)", source })
    }

    fn order(&mut self, message: &Message, beside: Option<BorrowedFd<'_>>) -> Result<(), KeeperError> {
        match self.ask(message, beside)? {
            Message::Done => Ok(()),
            _ => Err(KeeperError::Unexpected),
        }
    }

    fn ask(&mut self, message: &Message, beside: Option<BorrowedFd<'_>>) -> Result<Message, KeeperError> {
        self.send(message, beside)?;
        self.receive().map(|(answer, _)| answer)
    }

    fn send(&self, message: &Message, beside: Option<BorrowedFd<'_>>) -> Result<(), KeeperError> {
        socket::send(self.socket.as_fd(), message, beside, Wait::Yes).map_err(failed("sendmsg(2)"))
    }

    fn receive(&self) -> Result<socket::Received, KeeperError> {
        match socket::receive(self.socket.as_fd(), Wait::Yes) {
            Ok((Message::Refused { why }, _)) => Err(KeeperError::Refused(why)),
            Ok((Message::Succeed, _)) => Err(KeeperError::Succeeded),
            Ok(received) => Ok(received),
            Err(ReceiveError::Closed) => Err(KeeperError::Gone),
            Err(ReceiveError::Bad(bad)) => Err(bad.into()),
            Err(ReceiveError::System(error)) => Err(failed("recvmsg(2)")(error)),
        }
    }
}
