//! What each request begins with.

use std::ops::Range;

use namespace::Cred;
use types::Ino;
use vfs::Ctx;

use super::wire::{Fields, HEADER_LEN, Malformed};

/// `fuse_in_header`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// All bytes of the request.
    len: u32,
    pub(super) opcode: u32,
    /// As it came: its reply carries the same.
    pub(super) unique: u64,
    pub(super) node: Ino,
    pub(super) uid: u32,
    gid: u32,
    /// The thread that waits for the reply, 0 if it is not visible from where the mount was made.
    pub(super) pid: u32,
    /// Bytes of extensions, which end the request. None is agreed on, so nobody looks at them.
    extensions: usize,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
        let mut fields = Fields(bytes);
        let header = Header {
            len: fields.u32()?,
            opcode: fields.u32()?,
            unique: fields.u64()?,
            node: Ino(fields.u64()?),
            uid: fields.u32()?,
            gid: fields.u32()?,
            pid: fields.u32()?,
            extensions: 8 * usize::from(fields.u16()?),
        };
        fields.skip::<2>()?;
        Ok(header)
    }

    /// Where in the request its fields are, if it is as long as it says.
    pub(super) fn body(&self, received: usize) -> Result<Range<usize>, Malformed> {
        let length = Malformed::Length { said: u64::from(self.len), came: received as u64 };
        if self.len as usize != received {
            return Err(length);
        }
        match received.checked_sub(self.extensions) {
            Some(end) if end >= HEADER_LEN => Ok(HEADER_LEN..end),
            _ => Err(Malformed::Length { said: self.extensions as u64, came: received as u64 }),
        }
    }

    /// The number of the request, whoever reads it.
    pub(super) fn request(&self) -> u64 {
        self.unique & !mounts::RESENT
    }

    pub(super) fn ctx(&self) -> Ctx {
        Ctx { cred: Cred { uid: self.uid, gid: self.gid }, pid: self.pid, unique: self.request() }
    }
}
