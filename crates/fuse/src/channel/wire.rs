//! The numbers of the protocol, as linux/fuse.h has them, and the fields of a message. They are in the byte order of
//! the machine.

/// What a request asks for.
pub(super) mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const NOTIFY_REPLY: u32 = 41;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const STATX: u32 = 52;
    pub const COPY_FILE_RANGE_64: u32 = 53;
}

/// What SETATTR sets.
pub(super) mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// Of WRITE: the writer may not keep set-id bits.
pub(super) const WRITE_KILL_SUIDGID: u32 = 1 << 2;

/// Of FSYNC and FSYNCDIR: fdatasync(2).
pub(super) const FSYNC_FDATASYNC: u32 = 1 << 0;

/// Length of what each request begins with.
pub(super) const HEADER_LEN: usize = 40;

/// Length of what follows the header of a WRITE, before its data.
pub(super) const WRITE_LEN: usize = 40;

/// Why a request cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Malformed {
    /// Its last field is not all there.
    #[error("it ends before its fields do")]
    Short,
    /// A name without the byte that ends it.
    #[error("a name in it has no end")]
    Endless,
    /// A name of no bytes.
    #[error("a name in it is empty")]
    Nameless,
    /// A length in it and the number of bytes do not agree.
    #[error("it says {said} bytes and has {came}")]
    Length {
        /// What it says.
        said: u64,
        /// What there is.
        came: u64,
    },
}

/// The fields of a message, taken from its front.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_ne_bytes)
    }

    /// What nobody here looks at.
    pub(super) fn skip<const N: usize>(&mut self) -> Result<(), Malformed> {
        self.array::<N>().map(|_| ())
    }

    /// Bytes up to a zero, which is no part of them.
    pub(super) fn name(&mut self) -> Result<Vec<u8>, Malformed> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Malformed::Endless)?;
        if end == 0 {
            return Err(Malformed::Nameless);
        }
        let name = self.0[..end].to_vec();
        self.0 = &self.0[end + 1..];
        Ok(name)
    }

    /// The next `len` bytes.
    pub(super) fn bytes(&mut self, len: u32) -> Result<&'a [u8], Malformed> {
        let came = self.0.len() as u64;
        let (bytes, rest) =
            self.0.split_at_checked(len as usize).ok_or(Malformed::Length { said: u64::from(len), came })?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// A message that is put together, field by field.
#[derive(Default, Debug)]
pub(super) struct Message(pub(super) Vec<u8>);

impl Message {
    pub(super) fn with_room(bytes: usize) -> Message {
        Message(Vec::with_capacity(bytes))
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Message {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Message {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Message {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// Zeros: what is reserved.
    pub(super) fn zeros(&mut self, count: usize) -> &mut Message {
        self.0.resize(self.0.len() + count, 0);
        self
    }
}
