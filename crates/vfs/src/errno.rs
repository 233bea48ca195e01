//! Errors as the error numbers that a system call answers: nowhere else.

use arena::{AcceptError, MemoryFailed};
use extents::{ReadExtentError, SealError};
use meta_client::{CallError, SessionError};
use namespace::{Answer, Reply};
use store::PutError;
use types::Errno;

/// What a caller is told when the metadata service does not answer.
pub(crate) fn of_session(error: &SessionError) -> Errno {
    match error {
        // Nothing can grow any more, and it may pass: programs know how to live with a full disk.
        SessionError::Call(CallError::ReadOnly(_)) => Errno::ENOSPC,
        SessionError::Fenced
        | SessionError::Closed
        | SessionError::SlotMisuse
        | SessionError::Diverged(_)
        | SessionError::Call(CallError::Stopped(_) | CallError::Lost(_)) => Errno::EIO,
    }
}

/// Whether the session can still be used after the error.
pub(crate) fn session_goes_on(error: &SessionError) -> bool {
    matches!(error, SessionError::Call(CallError::ReadOnly(_)))
}

pub(crate) fn of_seal(error: &SealError) -> Errno {
    match error {
        SealError::NoSpace(_) | SealError::Put { source: PutError::NoSpace(_), .. } => Errno::ENOSPC,
        SealError::Length(_) | SealError::NoGroup | SealError::NoIds | SealError::Put { .. } => Errno::EIO,
    }
}

pub(crate) fn of_read(error: &ReadExtentError) -> Errno {
    match error {
        ReadExtentError::OutOfRange { .. }
        | ReadExtentError::UnknownGroup { .. }
        | ReadExtentError::UnknownCodec { .. }
        | ReadExtentError::Damaged { .. }
        | ReadExtentError::Io { .. } => Errno::EIO,
    }
}

/// `None`: the arena is full, and the write waits.
pub(crate) fn of_accept(error: &AcceptError) -> Option<Errno> {
    match error {
        AcceptError::ArenaFull => None,
        AcceptError::Length(_) => Some(Errno::EINVAL),
        AcceptError::Offset(_) => Some(Errno::EFBIG),
        AcceptError::Memory(failed) => Some(of_memory(failed)),
    }
}

pub(crate) fn of_memory(_failed: &MemoryFailed) -> Errno {
    Errno::ENOMEM
}

/// The service answered something that does not answer what it was asked.
pub(crate) fn of_wrong_reply(reply: &Reply) -> Errno {
    match reply {
        Reply::Failed(errno) => *errno,
        other => {
            tracing::error!(reply = ?std::mem::discriminant(other), "the metadata service answered another command");
            Errno::EIO
        }
    }
}

/// As [`of_wrong_reply`], for a read.
pub(crate) fn of_wrong_answer(answer: &Answer) -> Errno {
    match answer {
        Answer::Failed(errno) => *errno,
        other => {
            tracing::error!(answer = ?std::mem::discriminant(other), "the metadata service answered another query");
            Errno::EIO
        }
    }
}
