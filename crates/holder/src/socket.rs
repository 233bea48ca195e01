//! The way of messages: a SOCK_SEQPACKET socket of unix(7), with at most one descriptor beside each.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::wire::{BadMessage, MESSAGE_MAX, Message};

/// A message and its descriptor, if it has one.
pub(crate) type Received = (Message, Option<OwnedFd>);

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The other side is gone.
    #[error("the other side has closed the socket")]
    Closed,
    /// What came is no message; what came beside it is closed.
    #[error(transparent)]
    Bad(#[from] BadMessage),
    /// recvmsg(2) failed: `EAGAIN` if nothing is there and it was not to block.
    #[error("receiving failed")]
    System(#[from] Errno),
}

/// Whether a call waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    No,
}

pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &Message,
    descriptor: Option<BorrowedFd<'_>>,
    wait: Wait,
) -> Result<(), Errno> {
    let bytes = message.encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let beside: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !beside.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&beside)) {
        return Err(Errno::NOBUFS);
    }
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, wait == Wait::No);
    rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags)).map(|_| ())
}

pub(crate) fn receive(socket: BorrowedFd<'_>, wait: Wait) -> Result<Received, ReceiveError> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    flags.set(RecvFlags::DONTWAIT, wait == Wait::No);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
    })?;
    let mut beside: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(BadMessage::Length.into());
    }
    if received.bytes == 0 && beside.is_empty() {
        return Err(ReceiveError::Closed); // no message is empty
    }
    // Those that found no room are closed already.
    let got = beside.len() + usize::from(received.flags.contains(ReturnFlags::CTRUNC));
    let message = Message::decode(&bytes[..received.bytes], got)?;
    Ok((message, beside.pop()))
}

/// A pair of sockets: one for the holder, one for the engine that it starts.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

#[cfg(test)]
mod tests {
    use super::{ReceiveError, Wait, pair, receive, send};
    use crate::kept::Name;
    use crate::wire::{BadMessage, Message, Role};
    use rustix::io::Errno;
    use rustix::net::SendFlags;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_arrives_and_is_the_same_file() {
        let (here, there) = pair().expect("sockets");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"kept").expect("written");
        let put = Message::Put { mount: 0, name: Name::new("file").expect("a name") };
        send(here.as_fd(), &put, Some(file.as_fd()), Wait::No).expect("sent");
        let (message, descriptor) = receive(there.as_fd(), Wait::No).expect("received");
        assert_eq!(message, put);
        let mut same = File::from(descriptor.expect("a descriptor"));
        let mut text = String::new();
        same.rewind().and_then(|()| same.read_to_string(&mut text)).expect("read");
        assert_eq!(text, "kept");
    }

    #[test]
    fn too_few_and_too_many_descriptors_are_refused_and_closed() {
        let (here, there) = pair().expect("sockets");
        let put = Message::Put { mount: 0, name: Name::new("file").expect("a name") };
        send(here.as_fd(), &put, None, Wait::No).expect("sent");
        let refused = receive(there.as_fd(), Wait::No);
        assert!(matches!(refused, Err(ReceiveError::Bad(BadMessage::Descriptors { got: 0, wanted: 1 }))));
        let (end, other) = pair().expect("sockets");
        send(here.as_fd(), &Message::Take, Some(other.as_fd()), Wait::No).expect("sent");
        drop(other);
        let refused = receive(there.as_fd(), Wait::No);
        assert!(matches!(refused, Err(ReceiveError::Bad(BadMessage::Descriptors { got: 1, wanted: 0 }))));
        let closed = receive(end.as_fd(), Wait::No);
        assert!(matches!(closed, Err(ReceiveError::Closed)), "the one that did not belong is closed");
    }

    #[test]
    fn an_end_is_no_message_and_a_long_one_is_refused() {
        let (here, there) = pair().expect("sockets");
        assert!(matches!(receive(there.as_fd(), Wait::No), Err(ReceiveError::System(Errno::AGAIN))));
        rustix::net::send(&here, &[7; 20_000], SendFlags::NOSIGNAL).expect("sent");
        assert!(matches!(receive(there.as_fd(), Wait::No), Err(ReceiveError::Bad(BadMessage::Length))));
        send(here.as_fd(), &Message::Hello { role: Role::Keeper }, None, Wait::No).expect("sent");
        drop(here);
        receive(there.as_fd(), Wait::No).expect("what was said before the end");
        assert!(matches!(receive(there.as_fd(), Wait::No), Err(ReceiveError::Closed)));
    }
}
