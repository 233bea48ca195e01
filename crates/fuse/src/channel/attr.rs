//! Attributes as replies carry them.

use std::time::Duration;

use namespace::{Attr, FileKind};
use types::Nanos;
use vfs::TimeToLive;

use super::wire::Message;

/// The best size of a read or write, in bytes.
const BLOCK: u32 = 4096;

/// What statx(2) was answered with: `STATX_BASIC_STATS | STATX_BTIME`.
const STATX_MASK: u32 = 0x7ff | 0x800;

/// The type bits of `st_mode`, see inode(7).
pub(super) fn type_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::File => libc::S_IFREG,
        FileKind::Directory => libc::S_IFDIR,
        FileKind::Symlink => libc::S_IFLNK,
        FileKind::Fifo => libc::S_IFIFO,
        FileKind::Socket => libc::S_IFSOCK,
        FileKind::CharDevice => libc::S_IFCHR,
        FileKind::BlockDevice => libc::S_IFBLK,
    }
}

fn mode(attr: &Attr) -> u32 {
    type_bits(attr.kind) | attr.mode & 0o7777
}

/// `fuse_attr`, 88 bytes.
fn fuse_attr(message: &mut Message, attr: &Attr) {
    message.u64(attr.ino.0).u64(attr.size).u64(attr.allocated.div_ceil(512));
    let times = [attr.atime, attr.mtime, attr.ctime];
    times.iter().for_each(|time| _ = message.u64(time.secs() as u64));
    times.iter().for_each(|time| _ = message.u32(time.subsec_nanos()));
    message.u32(mode(attr)).u32(attr.nlink).u32(attr.uid).u32(attr.gid).u32(attr.rdev).u32(BLOCK).u32(0);
}

/// `fuse_entry_out`, 128 bytes. Node id = inode number, which is never reused: generation 0.
pub(super) fn entry(message: &mut Message, attr: &Attr, ttl: TimeToLive) {
    message.u64(attr.ino.0).u64(0).u64(ttl.entry.as_secs()).u64(ttl.attr.as_secs());
    message.u32(ttl.entry.subsec_nanos()).u32(ttl.attr.subsec_nanos());
    fuse_attr(message, attr);
}

/// `fuse_entry_out` with node id 0: the kernel remembers for `ttl` that there is nothing.
pub(super) fn no_entry(message: &mut Message, ttl: Duration) {
    message.u64(0).u64(0).u64(ttl.as_secs()).u64(0).u32(ttl.subsec_nanos()).u32(0).zeros(88);
}

/// `fuse_attr_out`, 104 bytes.
pub(super) fn attr_out(message: &mut Message, attr: &Attr, ttl: Duration) {
    message.u64(ttl.as_secs()).u32(ttl.subsec_nanos()).u32(0);
    fuse_attr(message, attr);
}

/// `fuse_statx_out`, 288 bytes.
pub(super) fn statx_out(message: &mut Message, attr: &Attr, ttl: Duration) {
    message.u64(ttl.as_secs()).u32(ttl.subsec_nanos()).u32(0).zeros(16);
    message.u32(STATX_MASK).u32(BLOCK).u64(0).u32(attr.nlink).u32(attr.uid).u32(attr.gid);
    message.u16(mode(attr) as u16).u16(0);
    message.u64(attr.ino.0).u64(attr.size).u64(attr.allocated.div_ceil(512)).u64(0);
    for time in [attr.atime, attr.btime, attr.ctime, attr.mtime] {
        statx_time(message, time);
    }
    let (major, minor) = device(attr.rdev);
    message.u32(major).u32(minor).u32(0).u32(0).zeros(14 * 8);
}

fn statx_time(message: &mut Message, time: Nanos) {
    message.u64(time.secs() as u64).u32(time.subsec_nanos()).u32(0);
}

/// Major and minor of what linux/kdev_t.h's `new_encode_dev` made.
fn device(encoded: u32) -> (u32, u32) {
    (encoded >> 8 & 0xfff, encoded & 0xff | encoded >> 12 & 0xf_ff00)
}

#[cfg(test)]
mod tests {
    use super::device;

    #[test]
    fn a_device_number_is_taken_apart_as_it_was_put_together() {
        let encode = |major: u32, minor: u32| minor & 0xff | major << 8 | (minor & !0xff) << 12;
        for (major, minor) in [(0, 0), (1, 3), (259, 70_000), (0xfff, 0xf_ffff)] {
            assert_eq!(device(encode(major, minor)), (major, minor));
        }
    }
}
