//! Bytes: large, direct, mapped; and what the kernel does by itself.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use fuse::Channel;
use rustix::fs::{FlockOperation, flock};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use vfs::Op;

use crate::{fixture, over_both, wait_until};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 4096) as u8).collect()
}

/// Page-aligned memory of a vector's.
fn aligned(space: &mut [u8], len: usize) -> &mut [u8] {
    let skip = space.as_ptr().align_offset(4096);
    &mut space[skip..skip + len]
}

fn large_writes_and_reads_move_a_mebibyte_at_a_time(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let bytes = pattern(5 << 20);
    let mut file = File::create(mount.path("f")).expect("create");
    file.write_all(&bytes).expect("write");
    file.sync_data().expect("fdatasync");
    file.sync_all().expect("fsync");
    drop(file);
    let ino = mount.memory.tree().find("f").expect("the file");
    assert!(mount.memory.tree().node(ino).data == bytes);
    let largest = mount.memory.asked(|op, _| match op {
        Op::Write { data, .. } => Some(data.len()),
        _ => None,
    });
    assert_eq!(largest.iter().max(), Some(&(1 << 20)), "{largest:?}");
    let syncs = mount.memory.asked(|op, _| match op {
        Op::Fsync { data_only, .. } => Some(*data_only),
        _ => None,
    });
    assert_eq!(syncs, [true, false]);
    let other = mount.memory.tree().put(b"g", &bytes);
    assert!(fs::read(mount.path("g")).expect("read") == bytes);
    let reads = mount.memory.asked(|op, _| matches!(op, Op::Read { ino, .. } if *ino == other).then_some(()));
    assert!(!reads.is_empty());
    let read = || mount.session.figures().snapshot().into_iter().find(|f| f.kind == fuse::OpKind::Read);
    // An operation is counted when it was answered.
    wait_until("all bytes are counted", || read().is_some_and(|read| read.bytes == 5 << 20));
}

fn direct_writes_and_reads_pass_the_page_cache(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let mut options = File::options();
    options.read(true).write(true).create(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC);
    let file = options.open(mount.path("f")).expect("open with O_DIRECT");
    let (mut out, mut back) = (vec![0; 3 << 20], vec![0; 3 << 20]);
    let out = aligned(&mut out, 2 << 20);
    out.copy_from_slice(&pattern(2 << 20));
    file.write_all_at(out, 4096).expect("write");
    let back = aligned(&mut back, 2 << 20);
    for _ in 0..2 {
        file.read_exact_at(back, 4096).expect("read");
        assert!(back == out);
    }
    let reads = mount.memory.asked(|op, _| match op {
        Op::Read { len, .. } => Some(*len as usize),
        _ => None,
    });
    assert_eq!(reads.iter().sum::<usize>(), 4 << 20, "both reads came through: {reads:?}");
    let opened = mount.memory.asked(|op, _| match op {
        Op::Create { open, .. } => *open,
        _ => None,
    });
    assert!(opened[0].direct && opened[0].sync && opened[0].read && opened[0].write);
}

#[allow(unsafe_code)]
fn a_shared_mapping_is_written_back_by_msync(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).open(mount.path("f")).expect("open");
    file.write_all_at(&pattern(8192), 0).expect("write");
    // SAFETY: a new mapping of a file that this test alone has; it is used within its 8,192 bytes and unmapped below.
    unsafe {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let map = mmap(std::ptr::null_mut(), 8192, prot, MapFlags::SHARED, &file, 0).expect("mmap");
        map.cast::<u8>().add(5000).write(0xa5);
        msync(map, 8192, MsyncFlags::SYNC).expect("msync");
        munmap(map, 8192).expect("munmap");
    }
    let ino = mount.memory.tree().find("f").expect("the file");
    let mut expected = pattern(8192);
    expected[5000] = 0xa5;
    assert!(mount.memory.tree().node(ino).data == expected);
}

fn copies_and_holes_are_asked_for(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    let bytes = pattern(100_000);
    mount.memory.tree().put(b"f", &bytes);
    // std::fs::copy tries copy_file_range first
    fs::copy(mount.path("f"), mount.path("g")).expect("copy");
    let copies = mount.memory.asked(|op, _| matches!(op, Op::CopyRange { .. }).then_some(()));
    assert!(!copies.is_empty());
    let mut file = File::open(mount.path("g")).expect("open");
    let mut copied = Vec::new();
    file.read_to_end(&mut copied).expect("read");
    assert!(copied == bytes);
    let seek = |how| rustix::fs::seek(&file, how);
    assert_eq!(seek(rustix::fs::SeekFrom::Data(10)), Ok(10));
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(10)), Ok(100_000));
    assert_eq!(seek(rustix::fs::SeekFrom::Data(100_000)), Err(rustix::io::Errno::NXIO));
}

fn what_is_not_built_is_left_to_the_kernel(channel: Channel) {
    let Some(mount) = fixture(channel) else { return };
    mount.memory.tree().put(b"g", b"some");
    let file = File::open(mount.path("g")).expect("open");
    // locks: between two open files, and no request
    let other = File::open(mount.path("g")).expect("open");
    flock(&file, FlockOperation::LockExclusive).expect("lock");
    assert_eq!(flock(&other, FlockOperation::NonBlockingLockShared), Err(rustix::io::Errno::WOULDBLOCK));
    // O_TMPFILE
    let refused =
        File::options().write(true).custom_flags(libc::O_TMPFILE).open(&mount.dir).expect_err("refused");
    assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
    // access(2) is decided by the kernel
    rustix::fs::access(mount.path("g"), rustix::fs::Access::READ_OK).expect("access");
    // poll(2): always ready
    let mut polled = [rustix::event::PollFd::new(&file, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut polled, None), Ok(1));
}

#[test]
fn statx_shows_the_time_of_birth() {
    use std::time::{Duration, SystemTime};
    let Some(mount) = fixture(Channel::Own) else { return };
    mount.memory.tree().put(b"f", b"some");
    let born = fs::metadata(mount.path("f")).expect("stat").created().expect("a time of birth");
    assert_eq!(born, SystemTime::UNIX_EPOCH + Duration::from_nanos(1_000_000_007));
}

over_both! {
    large_writes_and_reads_move_a_mebibyte_at_a_time,
    direct_writes_and_reads_pass_the_page_cache,
    a_shared_mapping_is_written_back_by_msync,
    copies_and_holes_are_asked_for,
    what_is_not_built_is_left_to_the_kernel,
}
