//! The arena against a model, and after a death at every store.

mod accept;
mod fixture;
mod journal;
mod model;
mod recovery;

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};

use types::{Epoch, Grant, Ino, Nanos, SessionId, VolumeId};

use crate::{Arena, Options, Owner, Write};

const OWNER: Owner = Owner { volume: VolumeId(3), session: SessionId(9), epoch: Epoch(2) };
const SMALL: Options = Options { capacity: 256 << 10, chunk_bytes: 16 << 10 };

/// The most that the open chunk of a small arena keeps.
const OPEN_MAX: u64 = SMALL.chunk_bytes as u64 + 4096;

thread_local! {
    /// What this thread has stored since it was asked last, one after the other.
    static STORES: RefCell<Vec<(u64, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
}

/// A store of this thread: place and bytes.
pub(crate) fn stored(at: u64, head: &[u8], tail: &[u8]) {
    STORES.with_borrow_mut(|stores| stores.push((at, [head, tail].concat())));
}

/// What this thread has stored since this was asked last. A kill can leave any number of them, from the first on, and
/// of the last one any number of pages.
fn stores() -> Vec<(u64, Vec<u8>)> {
    STORES.take()
}

/// The pieces of a store that are there whole or not at all.
fn pages((at, bytes): &(u64, Vec<u8>)) -> Vec<(u64, &[u8])> {
    let (mut at, mut rest, mut pieces) = (*at, bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min((4096 - at % 4096) as usize));
        pieces.push((at, piece));
        (at, rest) = (at + piece.len() as u64, behind);
    }
    pieces
}

fn small() -> Arena {
    Arena::create(OWNER, SMALL).expect("a small arena")
}

fn write(ino: u64, offset: u64, unique: u64, data: &[u8]) -> Write<'_> {
    Write {
        ino: Ino(ino),
        grant: Grant(5),
        offset,
        unique,
        time: Nanos(unique as i64),
        kill_priv: false,
        data,
    }
}

fn fd_of(arena: &Arena) -> OwnedFd {
    arena.as_fd().try_clone_to_owned().expect("another descriptor")
}

/// The memory as it is now, in a memfd of its own: what a new engine finds if the old one dies here.
fn frozen(arena: &Arena) -> OwnedFd {
    let from = fd_of(arena);
    let len = rustix::fs::fstat(&from).expect("fstat").st_size as u64;
    let to = rustix::fs::memfd_create("frozen", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&to, len).expect("ftruncate");
    let mut at = 0;
    // Only what holds data: the memory is sparse.
    while let Ok(data) = rustix::fs::seek(&from, rustix::fs::SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&from, rustix::fs::SeekFrom::Hole(data)).expect("a hole behind data");
        let mut bytes = vec![0; (end - data) as usize];
        assert_eq!(rustix::io::pread(&from, &mut bytes, data).expect("pread"), bytes.len());
        assert_eq!(rustix::io::pwrite(&to, &bytes, data).expect("pwrite"), bytes.len());
        at = end;
    }
    to
}

fn poke(fd: &OwnedFd, at: u64, bytes: &[u8]) {
    assert_eq!(rustix::io::pwrite(fd, bytes, at).expect("pwrite"), bytes.len());
}

fn peek(fd: &OwnedFd, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    assert_eq!(rustix::io::pread(fd, &mut bytes, at).expect("pread"), len);
    bytes
}
