//! The threads of a connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use mounts::Agreed;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno as SystemErrno;
use tokio::sync::watch;
use types::Errno;
use vfs::Op;

use super::answer::Reply;
use super::buffer::{Buffer, HEAD};
use super::connection::Connection;
use super::header::Header;
use super::parse::{Asked, Call, request, write};
use super::waiting::look;
use super::wire::{HEADER_LEN, Malformed, opcode};
use crate::answer::NoReply;
use crate::resume::{Kept, ResumeError};
use crate::server::Server;
use crate::session::Ended;

/// Flags that other flags need, and that change no request.
const HARMLESS: u64 = 1 << 30; // FUSE_INIT_EXT

/// Serves a mount whose device another process keeps, and asks for what its last reader left unanswered. After an error
/// nothing was read.
pub(crate) fn take_over(
    server: Server,
    kept: &Kept,
    threads: usize,
) -> Result<watch::Receiver<Option<Ended>>, ResumeError> {
    let Agreed { flags, .. } = kept.agreed;
    if !kept.agreed.resends() {
        return Err(ResumeError::NoResend);
    }
    if flags & mounts::NEEDED != mounts::NEEDED || flags & !(mounts::NEEDED | mounts::WANTED | HARMLESS) != 0
    {
        return Err(ResumeError::Disagrees);
    }
    let failed = |call| move |source: io::Error| ResumeError::System { call, source };
    let device = kept.device.try_clone().map_err(failed("fcntl(2)"))?;
    let asked = mounts::ask_for_resend(device.as_fd());
    asked.map_err(io::Error::from).map_err(failed("FUSE_NOTIFY_RESEND"))?;
    serve(server, device, kept.agreed, threads).map_err(failed("clone(2)"))
}

/// Serves a connection on `threads` threads of its own, until no more requests come. The handshake is over, whoever did
/// it. After an error nothing was read.
pub(crate) fn serve(
    server: Server,
    device: OwnedFd,
    agreed: Agreed,
    threads: usize,
) -> io::Result<watch::Receiver<Option<Ended>>> {
    let connection = Arc::new(Connection::new(device, Arc::new(server)));
    let (tell, ended) = watch::channel(None);
    let end = Arc::new(End { connection: Arc::clone(&connection), why: Mutex::new(None), tell });
    let may_read = Arc::new(RwLock::new(false));
    // Until all threads are there nobody reads.
    let mut gate = may_read.write().unwrap_or_else(PoisonError::into_inner);
    for at in 0..threads.max(1) {
        let (connection, end, may_read) = (Arc::clone(&connection), Arc::clone(&end), Arc::clone(&may_read));
        thread(format!("fuse-{at}"), move || {
            if *may_read.read().unwrap_or_else(PoisonError::into_inner) {
                end.note(read_on(&connection, agreed));
            }
        })?;
    }
    thread("fuse-interrupts".to_string(), move || {
        let answer = |unique| connection.reply(unique, Err(Errno::EINTR));
        connection.waiting.watch(look, answer, |request| connection.server.interrupt(request));
    })?;
    *gate = true;
    Ok(ended)
}

fn thread(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name).spawn(run).map(drop)
}

/// Told when the last thread has ended, also if it panicked.
struct End {
    connection: Arc<Connection>,
    why: Mutex<Option<Ended>>,
    tell: watch::Sender<Option<Ended>>,
}

impl End {
    /// A thread ended. All see that the mount is gone; what only one of them saw comes first.
    fn note(&self, why: Ended) {
        if let Ended::Failed(error) = &why {
            tracing::error!(error, "a thread that serves a mount has ended");
        }
        let mut known = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*known, Some(Ended::Failed(_))) {
            *known = Some(why);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.connection.waiting.stop();
        let why = self.why.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let panicked = || Ended::Failed("a thread that serves the mount panicked".to_string());
        self.tell.send_replace(Some(why.unwrap_or_else(panicked)));
    }
}

/// Reads and runs requests.
fn read_on(connection: &Arc<Connection>, agreed: Agreed) -> Ended {
    let mut buffer = Buffer::new(agreed.max_write.max(mounts::TRANSFER_MAX));
    let mut aborted = false;
    loop {
        match buffer.read(connection.device()) {
            Ok(()) => take(connection, &mut buffer),
            // A signal, or a request that was taken back while it was read.
            Err(SystemErrno::INTR | SystemErrno::NOENT) => {}
            Err(SystemErrno::AGAIN) => {
                let device = connection.device();
                let waited = rustix::event::poll(&mut [PollFd::new(&device, PollFlags::IN)], None);
                tracing::trace!(?waited, "the device does not block");
            }
            Err(SystemErrno::NODEV) => return Ended::Unmounted,
            // So does a read that met the last request of a mount just as that was taken away: the next one tells.
            Err(SystemErrno::CONNABORTED) if !aborted => aborted = true,
            Err(SystemErrno::CONNABORTED) => return Ended::Aborted,
            Err(error) => return Ended::Failed(io::Error::from(error).to_string()),
        }
    }
}

fn take(connection: &Arc<Connection>, buffer: &mut Buffer) {
    let header = match Header::parse(buffer.head()) {
        Ok(header) => header,
        // Without a number it cannot be answered.
        Err(error) => {
            let bytes = buffer.received();
            return tracing::error!(bytes, %error, "what came from the kernel is no request");
        }
    };
    match call(connection, &header, buffer) {
        Ok(call) => run(connection, &header, call),
        Err(error) => {
            let (opcode, bytes) = (header.opcode, buffer.received());
            tracing::error!(opcode, bytes, %error, "the kernel sent an odd request");
            connection.reply(header.unique, Err(Errno::EIO));
        }
    }
}

fn call(connection: &Connection, header: &Header, buffer: &mut Buffer) -> Result<Call, Malformed> {
    let body = header.body(buffer.received())?;
    if header.opcode == opcode::WRITE {
        let head: [u8; HEAD] = buffer.head().try_into().map_err(|_| Malformed::Short)?;
        return write(header, &head[HEADER_LEN..], || buffer.take_data());
    }
    let server = &connection.server;
    let asked = Asked { names: server.names_fit.ask(), plus: server.plus_fit.ask() };
    request(header, &buffer.whole()[body], asked)
}

fn run(connection: &Arc<Connection>, header: &Header, call: Call) {
    let server = &connection.server;
    match call {
        Call::Run(op, shape) => {
            let reply = Reply::new(connection, header, &op, shape);
            server.run(header.ctx(), op, reply);
        }
        Call::Refuse(error) => connection.reply(header.unique, Err(error)),
        Call::Done => connection.reply(header.unique, Ok(&[])),
        Call::Forget(all) => {
            all.into_iter()
                .for_each(|(ino, count)| server.run(header.ctx(), Op::Forget { ino, count }, NoReply));
        }
        Call::Interrupt(unique) => connection.waiting.interrupt(unique),
        Call::Ignore => {}
    }
}
