//! One that speaks to the holder, and what waits to be said to it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::kept::{ITEMS_MAX, Item, MOUNTS_MAX};
use crate::socket::{self, ReceiveError, Received, Wait};
use crate::wire::{Message, Role};

/// More than all that is kept, said once, and as many changes. One that lags further behind is let go.
const QUEUE_MAX: usize = 2 * (ITEMS_MAX + MOUNTS_MAX);

pub(crate) struct Peer {
    socket: OwnedFd,
    /// What it said that it is.
    pub(crate) role: Option<Role>,
    /// It took all, and is told of each change.
    pub(crate) follows: bool,
    /// It is let go as soon as it was told why.
    pub(crate) ends: bool,
    queue: VecDeque<(Message, Option<Arc<OwnedFd>>)>,
}

impl Peer {
    pub(crate) fn new(socket: OwnedFd) -> Peer {
        Peer { socket, role: None, follows: false, ends: false, queue: VecDeque::new() }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn hear(&self) -> Result<Received, ReceiveError> {
        socket::receive(self.socket.as_fd(), Wait::No)
    }

    pub(crate) fn has_more_to_hear(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn say(&mut self, message: Message) {
        self.queue.push_back((message, None));
    }

    pub(crate) fn say_put(&mut self, item: Item) {
        let Item { mount, name, descriptor } = item;
        self.queue.push_back((Message::Put { mount, name }, Some(descriptor)));
    }

    pub(crate) fn refuse(&mut self, why: impl ToString) {
        self.say(Message::Refused { why: why.to_string() });
    }

    /// Says what there is to say as far as the socket takes it. An error: it is gone, or too far behind.
    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        while let Some((message, descriptor)) = self.queue.front() {
            let beside = descriptor.as_ref().map(|descriptor| descriptor.as_fd());
            match socket::send(self.socket.as_fd(), message, beside, Wait::No) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(Errno::AGAIN) if self.queue.len() <= QUEUE_MAX => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if self.ends { Err(Errno::CONNABORTED) } else { Ok(()) }
    }
}
