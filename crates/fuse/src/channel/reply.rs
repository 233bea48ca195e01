//! Outcomes as the bytes of replies. Nothing here does I/O.

use vfs::{Handle, Listed, Outcome};

use types::Errno;

use super::attr::{attr_out, entry, no_entry, statx_out, type_bits};
use super::wire::Message;
use crate::answer::{mismatch, open_flags, placeholder};

/// What a request is answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// Only that it worked.
    Empty,
    /// A name and its inode.
    Entry,
    /// Attributes.
    Attr,
    /// Attributes with the time of birth.
    Statx,
    /// A new file that is open.
    Created,
    /// An open file.
    Open,
    /// Bytes.
    Bytes,
    /// How many bytes were written, in 32 bits.
    Written,
    /// The same in 64 bits.
    Copied,
    /// An offset.
    Offset,
    /// Free space.
    StatFs,
    /// A value, or the list of names, of extended attributes: up to `size` bytes; with 0 only how many there are.
    Value { size: u32 },
    /// As many names as fit into `size` bytes, of `asked`.
    Listing { size: u32, asked: u32 },
    /// The same with attributes.
    ListingPlus { size: u32, asked: u32 },
}

/// A reply behind its header.
#[derive(Default, Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// Bytes of files that were moved.
    pub(super) moved: u64,
    /// What came of a listing.
    pub(super) listed: Option<Told>,
}

/// How much of a listing was told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) entries: Vec<Listed>,
    /// How many of them, from the first on.
    pub(super) told: usize,
}

/// The reply that tells an outcome. `ERANGE` if a value is larger than asked for; an outcome of the wrong kind is a bug of
/// the filesystem: `EIO`.
pub(super) fn encode(shape: Shape, outcome: Outcome) -> Result<Body, Errno> {
    let mut message = Message::with_room(160);
    let mut moved = 0;
    match (shape, outcome) {
        (Shape::Empty, Outcome::Done) => {}
        (Shape::Entry, Outcome::Entry { attr, ttl }) => entry(&mut message, &attr, ttl),
        (Shape::Entry, Outcome::NoEntry { ttl }) => no_entry(&mut message, ttl),
        (Shape::Attr, Outcome::Attr { attr, ttl }) => attr_out(&mut message, &attr, ttl),
        (Shape::Statx, Outcome::Attr { attr, ttl }) => statx_out(&mut message, &attr, ttl),
        (Shape::Created, Outcome::Created { attr, ttl, handle, keep_cache, direct }) => {
            entry(&mut message, &attr, ttl);
            open_out(&mut message, handle, keep_cache, direct);
        }
        (Shape::Open, Outcome::Opened { handle, keep_cache, direct }) => {
            open_out(&mut message, handle, keep_cache, direct);
        }
        (Shape::Bytes, Outcome::Bytes(bytes)) => {
            moved = bytes.len() as u64;
            message = Message(bytes);
        }
        (Shape::Written, Outcome::Written(bytes)) => {
            moved = u64::from(bytes);
            message.u32(bytes).u32(0);
        }
        (Shape::Copied, Outcome::Written(bytes)) => {
            moved = u64::from(bytes);
            message.u64(moved);
        }
        (Shape::Offset, Outcome::Offset(offset)) => _ = message.u64(offset),
        (Shape::StatFs, Outcome::StatFs(space)) => {
            message.u64(space.blocks).u64(space.free).u64(space.free).u64(space.files).u64(space.files_free);
            message.u32(4096).u32(255).u32(4096).zeros(4 + 6 * 4);
        }
        (Shape::Value { size }, Outcome::Bytes(value)) => message = self::value(value, size)?,
        (Shape::Value { size }, Outcome::Names(names)) => {
            let list = names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect();
            message = self::value(list, size)?;
        }
        (Shape::Listing { size, .. }, Outcome::Entries(entries)) => return listing(entries, size, false),
        (Shape::ListingPlus { size, .. }, Outcome::Entries(entries)) => return listing(entries, size, true),
        (_, other) => return Err(mismatch(&other)),
    }
    Ok(Body { bytes: message.0, moved, listed: None })
}

/// `fuse_open_out`.
fn open_out(message: &mut Message, handle: Handle, keep_cache: bool, direct: bool) {
    message.u64(handle.0).u32(open_flags(handle, keep_cache, direct).bits()).u32(0);
}

fn value(value: Vec<u8>, size: u32) -> Result<Message, Errno> {
    match size {
        0 => {
            let mut message = Message::with_room(8);
            message.u32(value.len() as u32).u32(0);
            Ok(message)
        }
        size if value.len() <= size as usize => Ok(Message(value)),
        _ => Err(Errno::ERANGE),
    }
}

/// `fuse_dirent`s, or `fuse_direntplus`es, as many as fit.
fn listing(entries: Vec<Listed>, size: u32, plus: bool) -> Result<Body, Errno> {
    let mut message = Message::with_room(size.min(1 << 20) as usize);
    let mut told = 0;
    for Listed { entry: listed, ttl } in &entries {
        let name = &listed.name;
        let len = if plus { 128 + 24 + name.len() } else { 24 + name.len() };
        let padded = len.next_multiple_of(8);
        if message.0.len() + padded > size as usize {
            break;
        }
        if plus {
            let Some(attr) = listed.attr.or_else(|| placeholder(listed)) else {
                // Without attributes it cannot be told here; skipped, it would be missing. The rest is asked for
                // again behind the last one told, as plain names if the kernel likes.
                tracing::error!(
                    ino = listed.ino.0,
                    "a directory entry came without the attributes asked for"
                );
                break;
            };
            entry(&mut message, &attr, *ttl);
        }
        message.u64(listed.ino.0).u64(listed.cookie).u32(name.len() as u32).u32(type_bits(listed.kind) >> 12);
        message.0.extend_from_slice(name);
        message.zeros(padded - len);
        told += 1;
    }
    Ok(Body { bytes: message.0, moved: 0, listed: Some(Told { entries, told }) })
}

#[cfg(test)]
mod tests;
