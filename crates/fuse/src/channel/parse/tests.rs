use namespace::{Cred, FallocateMode, NewKind, SetAttr, SetTime, XattrMode};
use proptest::prelude::*;
use types::{Errno, Ino, Nanos};
use vfs::{Ctx, Handle, Op, OpenFlags, RenameFlags, SeekTo};

use super::super::header::Header;
use super::super::reply::Shape;
use super::super::wire::{HEADER_LEN, Malformed, Message, opcode as code};
use super::{Asked, Call, request, write};

const ASKED: Asked = Asked { names: 700, plus: 180 };

/// A request as the kernel writes it: node 9, user 5, group 6, thread 77, number 4.
fn bytes(opcode: u32, body: &[u8]) -> Vec<u8> {
    let mut message = Message::default();
    message.u32((HEADER_LEN + body.len()) as u32).u32(opcode).u64(4).u64(9).u32(5).u32(6).u32(77).u32(0);
    message.0.extend_from_slice(body);
    message.0
}

fn parse(request_bytes: &[u8]) -> Result<Call, Malformed> {
    let header = Header::parse(request_bytes)?;
    let body = &request_bytes[header.body(request_bytes.len())?];
    if header.opcode == code::WRITE {
        let (fields, data) = body.split_at_checked(40).ok_or(Malformed::Short)?;
        return write(&header, fields, || data.to_vec());
    }
    request(&header, body, ASKED)
}

/// The fields of a body, and what follows them.
fn body(fill: impl FnOnce(&mut Message), names: &[u8]) -> Vec<u8> {
    let mut message = Message::default();
    fill(&mut message);
    message.0.extend_from_slice(names);
    message.0
}

fn fields(fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    body(fill, b"")
}

fn handle_body() -> Vec<u8> {
    fields(|m| _ = m.u64(3).u32(1).u32(0).u64(8))
}

const INO: Ino = Ino(9);
const HANDLE: Handle = Handle(3);

fn read_write() -> OpenFlags {
    OpenFlags { read: true, write: true, ..OpenFlags::default() }
}

#[test]
fn the_header_says_who_asks() {
    let whole = bytes(code::GETATTR, &[0; 16]);
    let header = Header::parse(&whole).expect("whole");
    let cred = Cred { uid: 5, gid: 6 };
    assert_eq!(header.ctx(), Ctx { cred, pid: 77, unique: 4 });
    assert_eq!((header.opcode, header.node, header.unique), (code::GETATTR, INO, 4));
    let mut resent = whole.clone();
    resent[15] |= 0x80;
    let header = Header::parse(&resent).expect("whole");
    assert_eq!((header.unique, header.request(), header.ctx().unique), (1 << 63 | 4, 4, 4));
}

#[test]
fn a_length_that_is_not_the_requests_own_is_told() {
    let whole = bytes(code::GETATTR, &[0; 16]);
    assert_eq!(Header::parse(&whole[..39]), Err(Malformed::Short));
    let header = Header::parse(&whole).expect("whole");
    assert_eq!(header.body(56), Ok(40..56));
    assert_eq!(header.body(55), Err(Malformed::Length { said: 56, came: 55 }));
    let mut extended = whole.clone();
    extended[36] = 1; // 8 bytes of extensions
    assert_eq!(Header::parse(&extended).expect("whole").body(56), Ok(40..48));
    extended[36] = 3;
    let error = Header::parse(&extended).expect("whole").body(56).expect_err("more than there is");
    assert_eq!(error, Malformed::Length { said: 24, came: 56 });
}

/// Each request that names an operation, its body, and what it becomes.
#[allow(clippy::too_many_lines)]
fn table() -> Vec<(u32, Vec<u8>, Op, Shape)> {
    let name = || b"n".to_vec();
    let two = b"n\0to\0";
    let mkdir = Op::Create {
        parent: INO,
        name: name(),
        kind: NewKind::Directory,
        mode: 0o1751,
        umask: 0o22,
        open: None,
    };
    let with =
        |kind: NewKind, mode, umask, open| Op::Create { parent: INO, name: name(), kind, mode, umask, open };
    let rename = |exchange| Op::Rename {
        parent: INO,
        name: name(),
        new_parent: Ino(8),
        new_name: b"to".to_vec(),
        flags: RenameFlags { exchange, ..RenameFlags::default() },
    };
    let copy = Op::CopyRange {
        ino: INO,
        handle: HANDLE,
        offset: 10,
        to: Ino(8),
        to_handle: Handle(2),
        to_offset: 20,
        len: 30,
    };
    let copied = || fields(|m| _ = m.u64(3).u64(10).u64(8).u64(2).u64(20).u64(30).u64(0));
    let list = |size: u32| fields(|m| _ = m.u64(3).u64(50).u32(size).u32(0).u64(0).u32(0).u32(0));
    let listing = |max, plus| Op::ReadDir { ino: INO, handle: HANDLE, after: 50, max, plus };
    vec![
        (code::LOOKUP, b"n\0".to_vec(), Op::Lookup { parent: INO, name: name() }, Shape::Entry),
        (code::GETATTR, vec![0; 16], Op::GetAttr { ino: INO }, Shape::Attr),
        (code::STATX, vec![0; 24], Op::GetAttr { ino: INO }, Shape::Statx),
        (code::READLINK, vec![], Op::ReadLink { ino: INO }, Shape::Bytes),
        (code::SYMLINK, two.to_vec(), with(NewKind::Symlink(b"to".to_vec()), 0o777, 0, None), Shape::Entry),
        (
            code::MKNOD,
            body(|m| _ = m.u32(libc::S_IFCHR | 0o4640).u32(77).u32(0o27).u32(0), b"n\0"),
            with(NewKind::CharDevice(77), 0o4640, 0o27, None),
            Shape::Entry,
        ),
        (code::MKDIR, body(|m| _ = m.u32(libc::S_IFDIR | 0o1751).u32(0o22), b"n\0"), mkdir, Shape::Entry),
        (
            code::CREATE,
            body(|m| _ = m.u32(libc::O_RDWR as u32).u32(libc::S_IFREG | 0o640).u32(0o27).u32(0), b"n\0"),
            with(NewKind::File, 0o640, 0o27, Some(read_write())),
            Shape::Created,
        ),
        (code::UNLINK, b"n\0".to_vec(), Op::Unlink { parent: INO, name: name() }, Shape::Empty),
        (code::RMDIR, b"n\0".to_vec(), Op::Rmdir { parent: INO, name: name() }, Shape::Empty),
        (code::RENAME, body(|m| _ = m.u64(8), two), rename(false), Shape::Empty),
        (code::RENAME2, body(|m| _ = m.u64(8).u32(2).u32(0), two), rename(true), Shape::Empty),
        (
            code::LINK,
            body(|m| _ = m.u64(8), b"n\0"),
            Op::Link { ino: Ino(8), parent: INO, name: name() },
            Shape::Entry,
        ),
        (
            code::OPEN,
            fields(|m| _ = m.u32(libc::O_RDWR as u32).u32(0)),
            Op::Open { ino: INO, flags: read_write() },
            Shape::Open,
        ),
        (code::OPENDIR, vec![0; 8], Op::OpenDir { ino: INO }, Shape::Open),
        (code::READ, list(4096), Op::Read { ino: INO, handle: HANDLE, offset: 50, len: 4096 }, Shape::Bytes),
        (code::READDIR, list(8192), listing(700, false), Shape::Listing { size: 8192, asked: 700 }),
        (code::READDIRPLUS, list(8192), listing(180, true), Shape::ListingPlus { size: 8192, asked: 180 }),
        (
            code::WRITE,
            body(|m| _ = m.u64(3).u64(50).u32(4).u32(4).u64(0).u32(0).u32(0), b"data"),
            Op::Write { ino: INO, handle: HANDLE, offset: 50, data: b"data".to_vec(), kill_priv: true },
            Shape::Written,
        ),
        (code::STATFS, vec![], Op::StatFs { ino: INO }, Shape::StatFs),
        (code::FLUSH, handle_body(), Op::Flush { ino: INO, handle: HANDLE }, Shape::Empty),
        (code::RELEASE, handle_body(), Op::Release { ino: INO, handle: HANDLE }, Shape::Empty),
        (code::RELEASEDIR, handle_body(), Op::ReleaseDir { ino: INO, handle: HANDLE }, Shape::Empty),
        (
            code::FSYNC,
            fields(|m| _ = m.u64(3).u32(1).u32(0)),
            Op::Fsync { ino: INO, handle: HANDLE, data_only: true },
            Shape::Empty,
        ),
        (
            code::FSYNCDIR,
            fields(|m| _ = m.u64(3).u32(0).u32(0)),
            Op::FsyncDir { ino: INO, handle: HANDLE, data_only: false },
            Shape::Empty,
        ),
        (
            code::SETXATTR,
            body(|m| _ = m.u32(2).u32(libc::XATTR_CREATE as u32), b"n\0\0\xff"),
            Op::SetXattr { ino: INO, name: name(), value: vec![0, 0xff], mode: XattrMode::Create },
            Shape::Empty,
        ),
        (
            code::GETXATTR,
            body(|m| _ = m.u32(64).u32(0), b"n\0"),
            Op::GetXattr { ino: INO, name: name() },
            Shape::Value { size: 64 },
        ),
        (
            code::LISTXATTR,
            fields(|m| _ = m.u32(0).u32(0)),
            Op::ListXattr { ino: INO },
            Shape::Value { size: 0 },
        ),
        (code::REMOVEXATTR, b"n\0".to_vec(), Op::RemoveXattr { ino: INO, name: name() }, Shape::Empty),
        (
            code::FALLOCATE,
            fields(|m| _ = m.u64(3).u64(5).u64(6).u32(0).u32(0)),
            Op::Fallocate { ino: INO, handle: HANDLE, mode: FallocateMode::Allocate, offset: 5, len: 6 },
            Shape::Empty,
        ),
        (
            code::LSEEK,
            fields(|m| _ = m.u64(3).u64(5).u32(libc::SEEK_HOLE as u32).u32(0)),
            Op::Seek { ino: INO, handle: HANDLE, offset: 5, to: SeekTo::Hole },
            Shape::Offset,
        ),
        (code::COPY_FILE_RANGE, copied(), copy.clone(), Shape::Written),
        (code::COPY_FILE_RANGE_64, copied(), copy, Shape::Copied),
    ]
}

#[test]
fn each_request_becomes_its_operation() {
    for (opcode, body, op, shape) in table() {
        assert_eq!(parse(&bytes(opcode, &body)), Ok(Call::Run(op, shape)), "{opcode}");
    }
}

#[test]
fn a_request_that_is_cut_off_anywhere_is_malformed() {
    // These two carry nothing that is looked at.
    let untouched = [code::GETATTR, code::STATX, code::OPENDIR, code::READLINK, code::STATFS];
    // What an open's or a setxattr's last field says nobody asks.
    let unread = |opcode| if opcode == code::OPEN { 4 } else { 0 };
    for (opcode, body, ..) in table().into_iter().filter(|(opcode, ..)| !untouched.contains(opcode)) {
        for len in 0..body.len() - unread(opcode) {
            let cut = parse(&bytes(opcode, &body[..len]));
            assert!(cut.is_err(), "{opcode} of {len} bytes became {cut:?}");
        }
    }
}

fn setattr(valid: u32) -> Call {
    let sent = fields(|m| {
        m.u32(valid).u32(0).u64(3).u64(4096).u64(0).u64(-2i64 as u64).u64(7).u64(0);
        m.u32(500_000_001).u32(8).u32(0).u32(0o104_755).u32(0).u32(1000).u32(1001).u32(0);
    });
    parse(&bytes(code::SETATTR, &sent)).expect("whole")
}

#[test]
fn setattr_sets_what_is_flagged() {
    let run = |set, kill_priv| Call::Run(Op::SetAttr { ino: INO, set, kill_priv }, Shape::Attr);
    let none = SetAttr::default();
    assert_eq!(setattr(1 << 0), run(SetAttr { mode: Some(0o4755), ..none }, false));
    assert_eq!(setattr(1 << 1), run(SetAttr { uid: Some(1000), ..none }, true));
    assert_eq!(setattr(1 << 2), run(SetAttr { gid: Some(1001), ..none }, true));
    assert_eq!(setattr(1 << 3 | 1 << 6), run(SetAttr { size: Some(4096), ..none }, false));
    assert_eq!(setattr(1 << 3 | 1 << 11), run(SetAttr { size: Some(4096), ..none }, true));
    let atime = SetTime::To(Nanos::from_parts(-2, 500_000_001));
    assert_eq!(setattr(1 << 4), run(SetAttr { atime: Some(atime), ..none }, false));
    let both = SetAttr { atime: Some(SetTime::Now), mtime: Some(SetTime::To(Nanos(7_000_000_008))), ..none };
    assert_eq!(setattr(1 << 4 | 1 << 7 | 1 << 5), run(both, false));
    assert_eq!(setattr(1 << 5 | 1 << 8), run(SetAttr { mtime: Some(SetTime::Now), ..none }, false));
    assert_eq!(setattr(1 << 11), run(none, true));
    assert_eq!(setattr(0), run(none, true), "only drops the set-id bits");
}

#[test]
fn requests_without_an_operation() {
    let call = |opcode, body: &[u8]| parse(&bytes(opcode, body));
    let forget = fields(|m| _ = m.u64(3));
    assert_eq!(call(code::FORGET, &forget), Ok(Call::Forget(vec![(INO, 3)])));
    let batch = fields(|m| _ = m.u32(2).u32(0).u64(10).u64(1).u64(11).u64(2));
    assert_eq!(call(code::BATCH_FORGET, &batch), Ok(Call::Forget(vec![(Ino(10), 1), (Ino(11), 2)])));
    let more = fields(|m| _ = m.u32(u32::MAX).u32(0).u64(10).u64(1));
    let length = Malformed::Length { said: u64::from(u32::MAX), came: 1 };
    assert_eq!(call(code::BATCH_FORGET, &more), Err(length));
    let resent = fields(|m| _ = m.u64(1 << 63 | 12));
    assert_eq!(call(code::INTERRUPT, &resent), Ok(Call::Interrupt(12)));
    assert_eq!(call(code::DESTROY, b""), Ok(Call::Done));
    assert_eq!(call(code::NOTIFY_REPLY, b"any"), Ok(Call::Ignore));
    assert_eq!(call(code::IOCTL, &[0; 32]), Ok(Call::Refuse(Errno::ENOTTY)));
    // GETLK, SETLK, SETLKW, ACCESS, BMAP, POLL, SETUPMAPPING, REMOVEMAPPING, SYNCFS, TMPFILE, and what comes one day
    for unserved in [31, 32, 33, 34, 37, 40, 48, 49, 50, 51, 54, 4096] {
        assert_eq!(call(unserved, b""), Ok(Call::Refuse(Errno::ENOSYS)), "{unserved}");
    }
    let collapse = fields(|m| _ = m.u64(3).u64(0).u64(6).u32(8).u32(0));
    assert_eq!(call(code::FALLOCATE, &collapse), Ok(Call::Refuse(Errno::EOPNOTSUPP)));
    let unknown = body(|m| _ = m.u64(8).u32(64).u32(0), b"a\0b\0");
    assert_eq!(call(code::RENAME2, &unknown), Ok(Call::Refuse(Errno::EINVAL)));
}

#[test]
fn names_and_data_are_as_long_as_they_say() {
    let call = |opcode, body: &[u8]| parse(&bytes(opcode, body));
    assert_eq!(call(code::LOOKUP, b"name"), Err(Malformed::Endless));
    assert_eq!(call(code::LOOKUP, b"\0"), Err(Malformed::Nameless));
    assert_eq!(call(code::SYMLINK, b"n\0\0"), Err(Malformed::Nameless));
    for said in [3, 5] {
        let odd = body(|m| _ = m.u64(3).u64(0).u32(said).u32(0).zeros(16), b"data");
        let length = Malformed::Length { said: u64::from(said), came: 4 };
        assert_eq!(call(code::WRITE, &odd), Err(length));
    }
    let short = body(|m| _ = m.u32(3).u32(0), b"n\0va");
    assert_eq!(call(code::SETXATTR, &short), Err(Malformed::Length { said: 3, came: 2 }));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_body_of_any_request_panics(opcode in 0u32..64, sent in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes(opcode, &sent));
    }

    #[test]
    fn a_request_with_any_bytes_changed_panics_nowhere(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let table = table();
        let (opcode, sent, ..) = &table[which.index(table.len())];
        let mut changed = bytes(*opcode, sent);
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        let _ = parse(&changed);
    }
}
