//! Errors of writes that had been accepted, until everybody who has the file open has heard of them.

use std::collections::HashMap;

use types::{Errno, Ino};

use crate::layout::{ERRORS, u32_at, u64_at};
use crate::memory::{Memory, MemoryFailed};

const ENTRY: u64 = 16;
const ENTRIES: u64 = ERRORS.1 / ENTRY;

/// What went wrong with an inode's accepted writes. A file handle that was opened under a smaller count has not heard
/// of the last error yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LateError {
    /// How often something went wrong since the arena was made; wraps around.
    pub count: u32,
    /// The last error, if there was one.
    pub errno: Option<Errno>,
}

/// The table of late errors. When it is full, further inodes share one entry that counts for every inode: then an
/// error may be reported once too often, never once too little.
#[derive(Debug, Default)]
pub(crate) struct LateErrors {
    own: HashMap<Ino, (u64, LateError)>,
    shared: LateError,
}

impl LateErrors {
    pub(crate) fn get(&self, ino: Ino) -> LateError {
        let own = self.own.get(&ino).map_or(LateError::default(), |(_, error)| *error);
        LateError { count: own.count.wrapping_add(self.shared.count), errno: own.errno.or(self.shared.errno) }
    }

    pub(crate) fn raise(&mut self, memory: &mut Memory, ino: Ino, errno: Errno) -> Result<(), MemoryFailed> {
        let next = self.own.len() as u64 + 1;
        let (ino, entry, count) = match self.own.get(&ino) {
            Some((entry, error)) => (ino, *entry, error.count),
            None if next < ENTRIES => (ino, next, 0),
            None => (Ino(0), 0, self.shared.count),
        };
        let error = LateError { count: count.wrapping_add(1), errno: Some(errno) };
        let mut bytes = [0; ENTRY as usize];
        bytes[..8].copy_from_slice(&ino.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&error.count.to_le_bytes());
        bytes[12..].copy_from_slice(&errno.0.to_le_bytes());
        memory.write(ERRORS.0 + entry * ENTRY, &bytes, &[])?;
        match entry {
            0 => self.shared = error,
            _ => drop(self.own.insert(ino, (entry, error))),
        }
        Ok(())
    }

    pub(crate) fn recover(memory: &Memory) -> Result<LateErrors, MemoryFailed> {
        let mut bytes = vec![0; ERRORS.1 as usize];
        memory.read(ERRORS.0, &mut bytes)?;
        let mut errors = LateErrors::default();
        for (entry, bytes) in bytes.chunks_exact(ENTRY as usize).enumerate() {
            let errno = u32_at(bytes, 12) as i32;
            if errno == 0 {
                continue;
            }
            let error = LateError { count: u32_at(bytes, 8), errno: Some(Errno(errno)) };
            match entry {
                0 => errors.shared = error,
                _ => drop(errors.own.insert(Ino(u64_at(bytes, 0)), (entry as u64, error))),
            }
        }
        Ok(errors)
    }
}
