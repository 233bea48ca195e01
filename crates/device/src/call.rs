//! An operation as system calls of the thread that does it.

use std::io::{IoSlice, IoSliceMut};

use rustix::io::{ReadWriteFlags, preadv2, pwritev2};
use types::Errno;

use crate::file_disk::Shared;
use crate::request::{Request, Step, Waiter};
use crate::{Durability, IoError};

impl Shared {
    /// Does an operation on the calling thread and answers who waits. Gives back the flush that comes next, if somebody
    /// waits for one.
    pub(crate) fn complete(&self, mut request: Request) -> Option<Request> {
        let result = self.refusal().and_then(|()| self.serve(&mut request));
        self.finish(request, result)
    }

    fn serve(&self, request: &mut Request) -> Result<(), IoError> {
        loop {
            let result = self.call(request);
            match request.advance(result) {
                Step::Finished => return Ok(()),
                Step::Again => {}
                Step::Failed(errno) => {
                    return Err(IoError::Failed {
                        op: request.name(),
                        at: request.at,
                        len: request.len,
                        errno,
                    });
                }
            }
        }
    }

    /// One system call: bytes done, or a negative errno.
    fn call(&self, request: &mut Request) -> i64 {
        let file = &self.file;
        let at = request.at + request.done;
        let result = match &request.waiter {
            Waiter::Flush(_) => rustix::fs::fdatasync(file).map(|()| 0),
            Waiter::Read(_) => {
                let mut slices: Vec<IoSliceMut<'_>> =
                    request.bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
                let mut rest = &mut slices[..];
                IoSliceMut::advance_slices(&mut rest, request.done as usize);
                preadv2(file, rest, at, ReadWriteFlags::empty())
            }
            Waiter::Write(sync, _) => {
                let mut slices: Vec<IoSlice<'_>> = request.bufs.iter().map(|buf| IoSlice::new(buf)).collect();
                let mut rest = &mut slices[..];
                IoSlice::advance_slices(&mut rest, request.done as usize);
                let flags = match sync {
                    Durability::Durable => ReadWriteFlags::DSYNC,
                    Durability::Buffered => ReadWriteFlags::empty(),
                };
                pwritev2(file, rest, at, flags)
            }
        };
        match result {
            Ok(bytes) => bytes as i64,
            Err(errno) => -i64::from(Errno(errno.raw_os_error()).0),
        }
    }
}
