//! What is agreed with the kernel when a mount begins, as data. docs/decisions has why, flag by flag.
//!
//! The process that mounts answers FUSE_INIT; another one may serve. So what was agreed is a value that can be handed
//! on, and from which the request can be asked again.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// The most bytes of one WRITE and one READ: an extent, so that a large sequential write seals in one piece.
pub const TRANSFER_MAX: u32 = types::EXTENT_MAX as u32;

/// Requests that the kernel may have in flight on nobody's behalf: read-ahead, asynchronous direct I/O, write-back of
/// mapped pages. The kernel's own default of 12 starves a deep queue.
pub const BACKGROUND_MAX: u16 = 64;

/// From this many of them on the kernel takes the mount for congested.
pub const CONGESTED_FROM: u16 = BACKGROUND_MAX / 4 * 3;

/// Flags by their names in linux/fuse.h; those above bit 31 travel apart.
const FLAGS: &[(u64, &str)] = &[
    (ASYNC_READ, "ASYNC_READ"),
    (EXPORT_SUPPORT, "EXPORT_SUPPORT"),
    (BIG_WRITES, "BIG_WRITES"),
    (DONT_MASK, "DONT_MASK"),
    (DO_READDIRPLUS, "DO_READDIRPLUS"),
    (READDIRPLUS_AUTO, "READDIRPLUS_AUTO"),
    (ASYNC_DIO, "ASYNC_DIO"),
    (PARALLEL_DIROPS, "PARALLEL_DIROPS"),
    (POSIX_ACL, "POSIX_ACL"),
    (ABORT_ERROR, "ABORT_ERROR"),
    (MAX_PAGES, "MAX_PAGES"),
    (CACHE_SYMLINKS, "CACHE_SYMLINKS"),
    (HANDLE_KILLPRIV_V2, "HANDLE_KILLPRIV_V2"),
    (INIT_EXT, "INIT_EXT"),
    (DIRECT_IO_ALLOW_MMAP, "DIRECT_IO_ALLOW_MMAP"),
    (HAS_RESEND, "HAS_RESEND"),
];
const ASYNC_READ: u64 = 1 << 0;
const EXPORT_SUPPORT: u64 = 1 << 4;
const BIG_WRITES: u64 = 1 << 5;
const DONT_MASK: u64 = 1 << 6;
const DO_READDIRPLUS: u64 = 1 << 13;
const READDIRPLUS_AUTO: u64 = 1 << 14;
const ASYNC_DIO: u64 = 1 << 15;
const PARALLEL_DIROPS: u64 = 1 << 18;
const POSIX_ACL: u64 = 1 << 20;
const ABORT_ERROR: u64 = 1 << 21;
const MAX_PAGES: u64 = 1 << 22;
const CACHE_SYMLINKS: u64 = 1 << 23;
const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
const INIT_EXT: u64 = 1 << 30;
const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
const HAS_RESEND: u64 = 1 << 39;

/// Without these an answer would be wrong, not only slow: an older kernel is refused.
pub const NEEDED: u64 = BIG_WRITES | DONT_MASK | HANDLE_KILLPRIV_V2 | MAX_PAGES | POSIX_ACL;

/// What is used where the kernel has it.
pub const WANTED: u64 = ASYNC_READ
    | ASYNC_DIO
    | PARALLEL_DIROPS
    | DO_READDIRPLUS
    | READDIRPLUS_AUTO
    | CACHE_SYMLINKS
    | EXPORT_SUPPORT
    | DIRECT_IO_ALLOW_MMAP
    | ABORT_ERROR;

/// The names of flags, with a bar between them; of those without a name here, their bits.
pub fn names_of(flags: u64) -> String {
    let mut names: Vec<String> =
        FLAGS.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| (*name).to_string()).collect();
    let unnamed = FLAGS.iter().fold(flags, |rest, (flag, _)| rest & !flag);
    if unnamed != 0 {
        names.push(format!("{unnamed:#x}"));
    }
    names.join(" | ")
}

/// Version of the protocol that is spoken, see fuse(4).
const MAJOR: u32 = 7;
const MINOR: u32 = 40;
const OPCODE_INIT: u32 = 26;
const IN_HEADER: usize = 40;
const INIT_IN: usize = 64;
const OUT_HEADER: usize = 16;
const INIT_OUT: usize = 64;
const PAGE: u32 = 4096;

/// What a mount's kernel offered, and what it was answered. It holds for as long as the mount lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// The kernel's minor version of protocol 7.
    pub minor: u32,
    /// Most bytes that the kernel reads ahead.
    pub max_readahead: u32,
    /// The flags that the kernel offered.
    pub offered: u64,
    /// Those that both use.
    pub flags: u64,
    /// The most bytes of one WRITE.
    pub max_write: u32,
}

/// Why nothing is agreed.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The device could not be read or written.
    #[error("the FUSE device could not be {0}")]
    Device(&'static str, #[source] io::Error),
    /// What came first was no FUSE_INIT.
    #[error("the kernel's first request is not the beginning of a FUSE connection")]
    NotInit,
    /// Another protocol.
    #[error("this kernel speaks version {0}.{1} of the FUSE protocol; version 7 is needed")]
    Version(u32, u32),
    /// An older kernel.
    #[error("this kernel's FUSE lacks {}; Linux 5.12 and later have it", names_of(*.0))]
    Lacks(u64),
}

/// Reads the kernel's FUSE_INIT from a device that was just mounted, and answers it.
///
/// Blocks until the request is there, which is at once. Afterwards the device is ready for whoever serves.
pub fn shake_hands(device: BorrowedFd<'_>) -> Result<Agreed, InitError> {
    // The kernel refuses a smaller one.
    let mut buffer = vec![0; 8192];
    let length = loop {
        match rustix::io::read(device, &mut buffer) {
            Ok(length) => break length,
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
            Err(error) => return Err(InitError::Device("read", error.into())),
        }
    };
    let (unique, offer) = Offer::read(&buffer[..length])?;
    let agreed = offer.agree()?;
    rustix::io::write(device, &agreed.answer(unique))
        .map_err(|error| InitError::Device("written", error.into()))?;
    Ok(agreed)
}

/// What a FUSE_INIT says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Offer {
    minor: u32,
    max_readahead: u32,
    flags: u64,
}

impl Offer {
    /// Answers `unique` too.
    fn read(request: &[u8]) -> Result<(u64, Offer), InitError> {
        let word = |at: usize| {
            request.get(at..at + 4).and_then(|w| w.try_into().ok()).map(u32::from_ne_bytes).unwrap_or(0)
        };
        if request.len() < IN_HEADER + 16 || word(4) != OPCODE_INIT {
            return Err(InitError::NotInit);
        }
        let unique = u64::from_ne_bytes(request[8..16].try_into().map_err(|_| InitError::NotInit)?);
        let (major, minor) = (word(IN_HEADER), word(IN_HEADER + 4));
        if major != MAJOR {
            return Err(InitError::Version(major, minor));
        }
        let mut flags = u64::from(word(IN_HEADER + 12));
        if flags & INIT_EXT != 0 {
            flags |= u64::from(word(IN_HEADER + 16)) << 32;
        }
        Ok((unique, Offer { minor, max_readahead: word(IN_HEADER + 8), flags }))
    }

    fn agree(self) -> Result<Agreed, InitError> {
        let lacking = NEEDED & !self.flags;
        if lacking != 0 {
            return Err(InitError::Lacks(lacking));
        }
        Ok(Agreed {
            minor: self.minor,
            max_readahead: self.max_readahead,
            offered: self.flags,
            flags: (NEEDED | WANTED | INIT_EXT) & self.flags,
            max_write: TRANSFER_MAX,
        })
    }
}

impl Agreed {
    /// Whether the kernel gives requests that a dead process had read to the next one that asks (Linux 6.9).
    pub fn resends(&self) -> bool {
        self.offered & HAS_RESEND != 0
    }

    /// A FUSE_INIT that offers exactly what was agreed, for a protocol library that has to begin with one.
    pub fn request(&self) -> Vec<u8> {
        let mut request = Vec::with_capacity(IN_HEADER + INIT_IN);
        let words = [(IN_HEADER + INIT_IN) as u32, OPCODE_INIT, 1, 0];
        push(&mut request, &words);
        request.resize(IN_HEADER, 0);
        push(
            &mut request,
            &[MAJOR, self.minor, self.max_readahead, self.flags as u32, (self.flags >> 32) as u32],
        );
        request.resize(IN_HEADER + INIT_IN, 0);
        request
    }

    /// Whether a library that was given [`Agreed::request`] has answered the flags and sizes that were agreed: only then
    /// may it go on with the kernel.
    pub fn is_confirmed_by(&self, reply: &[u8]) -> bool {
        let agreed = self.answer(1);
        // Length, error, unique, versions, read-ahead, flags; max_write; flags2. Not how much may wait, nor the exactness
        // of times: those bind the kernel alone.
        [0..32, 36..40, 48..52].into_iter().all(|part| reply.get(part.clone()) == agreed.get(part))
    }

    /// The reply to the kernel: fuse_out_header and fuse_init_out.
    fn answer(&self, unique: u64) -> Vec<u8> {
        let mut reply = Vec::with_capacity(OUT_HEADER + INIT_OUT);
        push(&mut reply, &[(OUT_HEADER + INIT_OUT) as u32, 0]);
        reply.extend_from_slice(&unique.to_ne_bytes());
        push(&mut reply, &[MAJOR, MINOR, self.max_readahead, self.flags as u32]);
        reply.extend_from_slice(&BACKGROUND_MAX.to_ne_bytes());
        reply.extend_from_slice(&CONGESTED_FROM.to_ne_bytes());
        push(&mut reply, &[self.max_write, 1]); // times are exact to 1 ns
        let pages = self.max_write.max(self.max_readahead).div_ceil(PAGE) as u16;
        reply.extend_from_slice(&pages.to_ne_bytes());
        reply.extend_from_slice(&[0; 2]);
        push(&mut reply, &[(self.flags >> 32) as u32]);
        reply.resize(OUT_HEADER + INIT_OUT, 0);
        reply
    }
}

fn push(bytes: &mut Vec<u8>, words: &[u32]) {
    bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
}

#[cfg(test)]
mod tests {
    use super::{Agreed, INIT_EXT, InitError, NEEDED, OPCODE_INIT, Offer, WANTED, names_of};

    const FULL: Agreed = Agreed {
        minor: 45,
        max_readahead: 128 << 10,
        offered: u64::MAX,
        flags: NEEDED | WANTED | INIT_EXT,
        max_write: 1 << 20,
    };

    #[test]
    fn what_was_agreed_can_be_asked_again() {
        let (unique, offer) = Offer::read(&FULL.request()).expect("a FUSE_INIT");
        assert_eq!(unique, 1);
        let again = offer.agree().expect("the same");
        assert_eq!(again, Agreed { offered: FULL.flags, ..FULL });
        assert!(FULL.is_confirmed_by(&again.answer(1)));
        let other = Agreed { flags: FULL.flags & !WANTED, ..FULL };
        assert!(!FULL.is_confirmed_by(&other.answer(1)));
        assert!(!FULL.is_confirmed_by(b""));
    }

    #[test]
    fn an_old_or_strange_kernel_is_refused_in_words() {
        let offer = Offer { minor: 31, max_readahead: 0, flags: !(1 << 20) };
        let refusal = offer.agree().expect_err("no ACLs").to_string();
        assert!(refusal.contains("lacks POSIX_ACL;"), "{refusal}");
        let mut request = FULL.request();
        request[40] = 8;
        assert!(matches!(Offer::read(&request), Err(InitError::Version(8, 45))));
        request[4] = OPCODE_INIT as u8 + 1;
        assert!(matches!(Offer::read(&request), Err(InitError::NotInit)));
        for length in 0..56 {
            assert!(matches!(Offer::read(&FULL.request()[..length]), Err(InitError::NotInit)), "{length}");
        }
    }

    #[test]
    fn high_flags_count_only_where_they_are_sent() {
        let old = Agreed { flags: FULL.flags & !INIT_EXT, ..FULL };
        let (_, offer) = Offer::read(&old.request()).expect("a FUSE_INIT");
        assert_eq!(offer.flags >> 32, 0);
    }

    #[test]
    fn flags_have_names() {
        assert_eq!(names_of(1 << 5 | 1 << 39 | 1 << 60), "BIG_WRITES | HAS_RESEND | 0x1000000000000000");
    }
}
