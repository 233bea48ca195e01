//! FUSE_INIT: what is agreed with the kernel before the first request. The lists are those of [`crate::init`].

use std::io;
use std::os::fd::BorrowedFd;

use types::Errno;

use super::connection;
use super::header::Header;
use super::wire::{Fields, HEADER_LEN, Malformed, Message, opcode};
use crate::init::{BACKGROUND_MAX, NEEDED, TRANSFER_MAX, WANTED};

/// The protocol's only major version.
const MAJOR: u32 = 7;

/// The newest minor version that is known here: Linux 6.18's.
const MINOR: u32 = 45;

/// Messages of the handshake are smaller, but the kernel reads into no smaller buffer.
const BUFFER: usize = 16 << 10;

/// The flags have a second half.
const INIT_EXT: u64 = 1 << 30;

/// Requests can be asked for again.
const HAS_RESEND: u64 = 1 << 39;

/// A page, or a part of one: of larger pages fewer would do, and the limits in bytes hold anyway.
const PAGE: u32 = 4096;

/// What was agreed with the kernel. Whoever takes the connection over needs to know no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Agreed {
    /// The most bytes of one WRITE.
    pub(crate) max_write: u32,
}

/// What the kernel offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Offer {
    major: u32,
    minor: u32,
    max_readahead: u32,
    flags: u64,
}

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("the kernel speaks version {0} of the FUSE protocol, which is too old")]
    Version(u32),
    #[error("this kernel's FUSE lacks {0}; Linux 5.12 and later have it")]
    Lacks(String),
}

/// Answers the kernel's first requests, until both sides agree.
pub(crate) fn shake(device: BorrowedFd<'_>) -> io::Result<Agreed> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let received = match rustix::io::read(device, &mut buffer[..]) {
            Err(rustix::io::Errno::INTR) => continue,
            received => received?,
        };
        let bytes = &buffer[..received];
        let header = Header::parse(bytes).map_err(odd)?;
        if header.opcode != opcode::INIT {
            let text = format!("the connection begins with request {}, not with FUSE_INIT", header.opcode);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let offer = offer(&bytes[header.body(received).map_err(odd)?]).map_err(odd)?;
        match answer(offer) {
            Ok((agreed, reply)) => {
                connection::send(device, header.unique, Ok(&reply.0))?;
                match agreed {
                    Some(agreed) => return Ok(agreed),
                    None => continue, // it asks again in our version
                }
            }
            Err(refusal) => {
                let told = connection::send(device, header.unique, Err(Errno::EIO));
                tracing::debug!(?told, %refusal, "refused a connection");
                return Err(io::Error::new(io::ErrorKind::Unsupported, refusal));
            }
        }
    }
}

fn odd(malformed: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, malformed)
}

/// `fuse_init_in`; the second half of the flags came with 7.36.
fn offer(body: &[u8]) -> Result<Offer, Malformed> {
    let mut fields = Fields(body);
    let (major, minor) = (fields.u32()?, fields.u32()?);
    if major != MAJOR {
        return Ok(Offer { major, minor, max_readahead: 0, flags: 0 });
    }
    let (max_readahead, low) = (fields.u32()?, u64::from(fields.u32()?));
    let high = if low & INIT_EXT != 0 { u64::from(fields.u32()?) } else { 0 };
    Ok(Offer { major, minor, max_readahead, flags: low | high << 32 })
}

/// `fuse_init_out`, 64 bytes; without an agreement if the kernel has to ask again in our version.
fn answer(offer: Offer) -> Result<(Option<Agreed>, Message), Refusal> {
    let mut reply = Message::with_room(64);
    if offer.major < MAJOR {
        return Err(Refusal::Version(offer.major));
    }
    if offer.major > MAJOR {
        reply.u32(MAJOR).u32(MINOR).zeros(56);
        return Ok((None, reply));
    }
    let lacking = NEEDED.bits() & !offer.flags;
    if lacking != 0 {
        return Err(Refusal::Lacks(format!("{:?}", fuser::InitFlags::from_bits_retain(lacking))));
    }
    let wanted = NEEDED.bits() | WANTED.bits() | INIT_EXT | HAS_RESEND;
    let flags = wanted & offer.flags;
    reply.u32(MAJOR).u32(MINOR.min(offer.minor)).u32(offer.max_readahead).u32(flags as u32);
    reply.u16(BACKGROUND_MAX).u16(BACKGROUND_MAX / 4 * 3).u32(TRANSFER_MAX);
    reply.u32(1); // times are exact to 1 ns
    reply.u16((TRANSFER_MAX / PAGE) as u16).u16(0).u32((flags >> 32) as u32).zeros(4 + 12 * 2);
    debug_assert_eq!(reply.0.len(), 104 - HEADER_LEN);
    Ok((Some(Agreed { max_write: TRANSFER_MAX }), reply))
}

#[cfg(test)]
mod tests {
    use super::{Agreed, HAS_RESEND, INIT_EXT, Message, Offer, Refusal, answer, offer};
    use crate::init::{NEEDED, TRANSFER_MAX, WANTED};
    use proptest::prelude::*;

    fn init(minor: u32, flags: u64) -> Vec<u8> {
        let mut body = Message::default();
        body.u32(7).u32(minor).u32(131_072).u32(flags as u32).u32((flags >> 32) as u32).zeros(44);
        body.0
    }

    #[test]
    fn what_is_used_is_what_both_have() {
        let everything = u64::MAX;
        let (agreed, reply) = answer(offer(&init(45, everything)).expect("whole")).expect("agreed");
        assert_eq!(agreed, Some(Agreed { max_write: TRANSFER_MAX }));
        let word = |at: usize| u32::from_ne_bytes(reply.0[at..at + 4].try_into().expect("four"));
        assert_eq!((word(0), word(4), word(8), reply.0.len()), (7, 45, 131_072, 64));
        let flags = u64::from(word(12)) | u64::from(word(32)) << 32;
        assert_eq!(flags, NEEDED.bits() | WANTED.bits() | INIT_EXT | HAS_RESEND);
        assert_eq!((word(16), word(20), word(24)), (48 << 16 | 64, 1 << 20, 1));
        assert_eq!(word(28), 256, "pages");
        // An older kernel's request is shorter, and has fewer flags.
        let old = &init(31, NEEDED.bits())[..16];
        let (_, reply) = answer(offer(old).expect("whole")).expect("agreed");
        let word = |at: usize| u32::from_ne_bytes(reply.0[at..at + 4].try_into().expect("four"));
        assert_eq!((word(4), u64::from(word(12)), word(32)), (31, NEEDED.bits(), 0));
    }

    #[test]
    fn a_kernel_that_lacks_what_is_needed_is_refused_by_name() {
        let lacking = NEEDED.bits() & !(1 << 28);
        let refusal = answer(offer(&init(45, lacking)).expect("whole")).expect_err("refused");
        assert!(refusal.to_string().contains("FUSE_HANDLE_KILLPRIV_V2"), "{refusal}");
        let old = Offer { major: 6, minor: 0, max_readahead: 0, flags: 0 };
        assert_eq!(answer(old).err(), Some(Refusal::Version(6)));
        let (agreed, reply) = answer(Offer { major: 8, ..old }).expect("an answer");
        assert_eq!((agreed, &reply.0[..4]), (None, &7u32.to_ne_bytes()[..]));
    }

    proptest! {
        #[test]
        fn no_offer_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = offer(&bytes).map(answer);
        }
    }
}
