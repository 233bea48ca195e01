//! The least that a mount needs: a root without files.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// Links of the root, by which it is known.
pub const ROOT_LINKS: u64 = 77;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const BATCH_FORGET: u32 = 42;

pub struct Server {
    device: OwnedFd,
    buffer: Vec<u8>,
}

impl Server {
    pub fn new(device: OwnedFd) -> Server {
        // Written, not only zeroed: a page fault of a killed process ends a request with an error.
        Server { device, buffer: vec![1; (1 << 20) + 8192] }
    }

    pub fn device(&self) -> &OwnedFd {
        &self.device
    }

    /// Answers a request; `false` when the mount is gone.
    pub fn serve_one(&mut self) -> bool {
        match rustix::io::read(&self.device, &mut self.buffer) {
            Ok(_) => {}
            Err(Errno::NODEV) => return false,
            Err(_) => return true,
        }
        let word = |at: usize| u32::from_ne_bytes(self.buffer[at..at + 4].try_into().expect("four bytes"));
        let unique: [u8; 8] = self.buffer[8..16].try_into().expect("eight bytes");
        match word(4) {
            FORGET | BATCH_FORGET => {}
            LOOKUP => self.reply(unique, libc_enoent(), &[]),
            GETATTR => self.reply(unique, 0, &root()),
            _ => self.reply(unique, libc_enosys(), &[]),
        }
        true
    }

    fn reply(&self, unique: [u8; 8], error: i32, body: &[u8]) {
        let mut reply = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        reply.extend((-error).to_ne_bytes());
        reply.extend(unique);
        reply.extend(body);
        // The caller may be gone.
        let _ = rustix::io::write(&self.device, &reply);
    }
}

fn libc_enoent() -> i32 {
    Errno::NOENT.raw_os_error()
}

fn libc_enosys() -> i32 {
    Errno::NOSYS.raw_os_error()
}

/// fuse_attr_out of linux/fuse.h, with no time to live: each look is a request.
fn root() -> Vec<u8> {
    let mut out = vec![0; 16 + 88];
    out[16..24].copy_from_slice(&1_u64.to_ne_bytes());
    out[16 + 60..16 + 64].copy_from_slice(&0o040_777_u32.to_ne_bytes());
    out[16 + 64..16 + 68].copy_from_slice(&(ROOT_LINKS as u32).to_ne_bytes());
    out
}
