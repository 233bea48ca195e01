//! Serving a mount that another process keeps, after whoever served it before is dead.
//!
//! fuser begins every session with FUSE_INIT, which a live mount does not send again. So it begins on a socket, where
//! it is asked what the kernel was answered long ago, and then finds the device in the socket's place. In between each
//! of its threads is held for a moment, with a request that no kernel sends: its read buffer is made resident
//! (docs/decisions/2026-11-21-live-descriptors.md), and none of them is left waiting on the socket.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mounts::{Agreed, Place};
use rustix::io::DupFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use tokio::sync::watch;

use crate::resident;
use crate::session::{Ended, run};

/// The `unique` of the request that holds a thread. The kernel's are even.
pub(crate) const GATHERING: u64 = 1;

/// A mount whose device another process keeps open.
#[derive(Debug)]
pub struct Kept {
    /// A copy of the device, or of one of its clones.
    pub device: OwnedFd,
    /// Where the mount is.
    pub place: Place,
    /// What its kernel was answered.
    pub agreed: Agreed,
}

/// Why a kept mount cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// What a dead process had read would never be answered.
    #[error("this kernel's FUSE does not send requests again whose reader is gone; Linux 6.9 and later do")]
    NoResend,
    /// fuser would speak otherwise than the kernel was told.
    #[error("this program would not agree with the kernel on what the mount was begun with")]
    Disagrees,
    /// fuser did not begin.
    #[error("the protocol could not be begun")]
    Handshake(#[source] io::Error),
    /// A system call on the device or the socket failed.
    #[error("{call} failed on a kept mount")]
    System {
        /// What failed.
        call: &'static str,
        /// How.
        #[source]
        source: io::Error,
    },
    /// The threads ended before they began.
    #[error("the threads that serve the mount could not be started: {0:?}")]
    Threads(Ended),
}

/// Where the threads that read requests wait until the device is in place.
#[derive(Default)]
pub(crate) struct Gathering {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    arrived: usize,
    /// They may go on, with the device or without.
    open: bool,
    /// They are gone, and why.
    ended: Option<Ended>,
}

impl Gathering {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called by a thread that reads requests, with what it just read. Blocks until the device is in place.
    pub(crate) fn hold(&self, read: &[u8]) {
        if let Err(error) = resident::settle_read_buffer(read) {
            tracing::warn!(%error, "a read buffer is not resident: a kill may end a request with an error");
        }
        let mut state = self.lock();
        state.arrived += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.open));
    }

    fn wait_for(&self, threads: usize) -> Result<(), ResumeError> {
        let state = self
            .changed
            .wait_while(self.lock(), |state| state.arrived < threads && state.ended.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match &state.ended {
            Some(ended) => Err(ResumeError::Threads(ended.clone())),
            None => Ok(()),
        }
    }

    fn open(&self) {
        self.lock().open = true;
        self.changed.notify_all();
    }

    fn end(&self, ended: Ended) {
        self.lock().ended = Some(ended);
        self.changed.notify_all();
    }
}

/// Serves a kept mount with `threads` threads. `filesystem` calls [`Gathering::hold`] of `gathering` at each request
/// with [`GATHERING`] as its `unique`.
///
/// The device is neither closed for others nor unmounted, whatever becomes of this. After an error nothing was read
/// from it.
pub(crate) fn take_over(
    filesystem: impl fuser::Filesystem,
    kept: &Kept,
    config: fuser::Config,
    gathering: &Arc<Gathering>,
) -> Result<watch::Receiver<Option<Ended>>, ResumeError> {
    if !kept.agreed.resends() {
        return Err(ResumeError::NoResend);
    }
    let threads = config.n_threads.unwrap_or(1);
    let failed = |call| move |error: rustix::io::Errno| ResumeError::System { call, source: error.into() };
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(failed("socketpair(2)"))?;
    send(&ours, &kept.agreed.request(), SendFlags::NOSIGNAL).map_err(failed("send(2)"))?;
    let session = fuser::Session::from_fd(filesystem, theirs, fuser::SessionACL::All, config)
        .map_err(ResumeError::Handshake)?;
    let mut reply = [0; 256];
    let (length, _) = recv(&ours, &mut reply, RecvFlags::empty()).map_err(failed("recv(2)"))?;
    if !kept.agreed.is_confirmed_by(&reply[..length]) {
        return Err(ResumeError::Disagrees);
    }
    for _ in 0..threads {
        send(&ours, &gathering_request(), SendFlags::NOSIGNAL).map_err(failed("send(2)"))?;
    }
    let place = session.as_fd().as_raw_fd();
    let told = Arc::clone(gathering);
    let device = kept.device.try_clone().map_err(ResumeError::Handshake)?;
    let ended = run(session, device, move |ended| told.end(ended.clone())).map_err(ResumeError::Handshake)?;
    gathering.wait_for(threads)?;
    // SAFETY: the descriptor belongs to the session, whose threads are all held with it open until `open` below; it
    // is replaced and not closed, so it stays theirs.
    #[allow(unsafe_code)]
    let mut theirs = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(place) });
    let placed = rustix::io::dup3(&kept.device, &mut theirs, DupFlags::CLOEXEC)
        .map_err(failed("dup3(2)"))
        .and_then(|()| mounts::ask_for_resend(kept.device.as_fd()).map_err(failed("FUSE_NOTIFY_RESEND")));
    // Without the device they find the end of the socket.
    drop(ours);
    gathering.open();
    placed.map(|()| ended)
}

/// A WRITE of one byte: the request whose handler is told where its bytes lie.
fn gathering_request() -> Vec<u8> {
    const OPCODE_WRITE: u32 = 16;
    const LENGTH: usize = 40 + 40 + 1;
    let mut request = vec![0; LENGTH];
    request[0..4].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
    request[4..8].copy_from_slice(&OPCODE_WRITE.to_ne_bytes());
    request[8..16].copy_from_slice(&GATHERING.to_ne_bytes());
    request[40 + 16..40 + 20].copy_from_slice(&1_u32.to_ne_bytes()); // its size
    request
}
