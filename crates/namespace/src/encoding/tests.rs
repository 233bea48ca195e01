use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::{any, prop, proptest};
use types::{Dseq, Epoch, Errno, ExtentId, Grant, GroupId, Ino, LayoutId, Nanos, SessionId, VolumeId};

use super::{decode_entry, decode_envelope, digest, encode_entry, encode_envelope};
use crate::wire::{DecodeError, Reader, Wire};
use crate::{
    Attr, Command, Commit, Content, Cred, Entry, Envelope, Expected, FallocateMode, FileKind, Journaled,
    NewExtent, NewKind, RenameMode, Reply, Segment, SessionInfo, SetAttr, SetTime, Single, SlotRef,
    XattrMode,
};

const CRED: Cred = Cred { uid: 1000, gid: 100 };

fn extent(counter: u64) -> ExtentId {
    ExtentId { volume: VolumeId(1), session: SessionId(5), counter }
}

/// One of each.
fn commands() -> Vec<Command> {
    let ino = Ino(9);
    let parent = Ino::ROOT;
    let name = b"name".to_vec();
    let mut commands = vec![
        Command::RegisterNode { node: 1, incarnation: 2 },
        Command::AddDisk { disk: [3; 16], bytes: 1 << 40 },
        Command::AddGroup { disks: vec![[3; 16], [4; 16]] },
        Command::DiskAbsent { disk: [3; 16] },
        Command::DiskBack { disk: [3; 16] },
        Command::SlotFilled { group: GroupId(7), disk: [3; 16], epoch: Epoch(4) },
        Command::ReplaceSlot { group: GroupId(7), old: [3; 16], new: [5; 16] },
        Command::RetireDisk { disk: [3; 16] },
        Command::CreateVolume { name: b"v".to_vec(), limit: 9, hash_key: [4; 16], mode: 0o755, cred: CRED },
        Command::SetLimit { volume: VolumeId(1), limit: u64::MAX },
        Command::OpenSession { volume: VolumeId(1), node: 1, incarnation: 2 },
        Command::CloseSession { volume: VolumeId(1), session: SessionId(5) },
        Command::Settle { volume: VolumeId(1), session: SessionId(5), settled: 7 },
        Command::Reclaim { volume: VolumeId(1), steps: 1000 },
        Command::DropExtents { ids: vec![extent(1), extent(2)] },
        Command::Restored {
            epoch: Epoch(9),
            sessions: vec![(VolumeId(1), SessionId(5)), (VolumeId(2), SessionId(6))],
            keep_until: Nanos(7),
        },
        Command::Link { ino, parent, name: name.clone() },
        Command::Unlink { parent, name: name.clone(), pinned: true, cred: CRED },
        Command::Rmdir { parent, name: name.clone(), pinned: false, cred: CRED },
        Command::Unpin { ino },
        Command::SetAttr {
            ino,
            set: SetAttr {
                mode: Some(0o600),
                uid: None,
                gid: Some(7),
                size: Some(1 << 33),
                atime: Some(SetTime::Now),
                mtime: Some(SetTime::To(Nanos(-3))),
            },
            kill_priv: true,
            applied: Some((Grant(4), Dseq(5))),
            cred: CRED,
        },
        Command::RemoveXattr { ino, name: b"user.a".to_vec(), cred: CRED },
        Command::GrantWrite { ino },
        Command::Journal {
            commands: [Expected::Reply, Expected::Success, Expected::Ino(ino), Expected::Grant(Grant(4))]
                .map(|expected| Journaled { time: Nanos(5), expected, command: Command::Unpin { ino } })
                .to_vec(),
        },
        Command::Touch { ino, at: Nanos(-5) },
        Command::CopyRange {
            from: ino,
            from_offset: 1,
            to: parent,
            to_offset: u64::MAX,
            len: 1 << 40,
            kill_priv: true,
        },
        Command::SetQuota { dir: ino, bytes: Some(1 << 30), inodes: None },
        Command::RemoveQuota { dir: ino },
        Command::CountQuota { steps: 1000 },
        Command::Rewrite {
            ino,
            from: vec![Segment { start: 0, len: 8192, extent: extent(1), offset: 4096 }],
            extents: vec![NewExtent {
                id: extent(2),
                group: GroupId(1),
                layout: LayoutId(0),
                codec: 0,
                plain_len: 8192,
                stored_len: 8192,
                content_crc: 1,
            }],
            to: vec![Segment { start: 0, len: 8192, extent: extent(2), offset: 0 }],
        },
    ];
    for kind in [
        NewKind::File,
        NewKind::Directory,
        NewKind::Symlink(b"../x".to_vec()),
        NewKind::Fifo,
        NewKind::Socket,
        NewKind::CharDevice(0x0501),
        NewKind::BlockDevice(0x0801),
    ] {
        commands.push(Command::Create {
            parent,
            name: name.clone(),
            kind,
            mode: 0o666,
            umask: 0o22,
            cred: CRED,
        });
    }
    for mode in [
        RenameMode::Replace,
        RenameMode::NoReplace,
        RenameMode::Exchange,
        RenameMode::Whiteout,
        RenameMode::NoReplaceWhiteout,
    ] {
        let (name, new_name) = (name.clone(), b"new".to_vec());
        let new_parent = Ino(2);
        commands.push(Command::Rename { parent, name, new_parent, new_name, mode, pinned: true, cred: CRED });
    }
    for mode in [XattrMode::Set, XattrMode::Create, XattrMode::Replace] {
        let (name, value) = (b"user.a".to_vec(), vec![0xff; 40]);
        commands.push(Command::SetXattr { ino, name, value, mode, cred: CRED });
    }
    for mode in [
        FallocateMode::Allocate,
        FallocateMode::AllocateKeepSize,
        FallocateMode::PunchHole,
        FallocateMode::Zero,
        FallocateMode::ZeroKeepSize,
    ] {
        commands.push(Command::Fallocate { ino, mode, offset: 1, len: 1 << 40, kill_priv: false });
    }
    let new = NewExtent {
        id: extent(3),
        group: GroupId(1),
        layout: LayoutId(0),
        codec: 0,
        plain_len: 8192,
        stored_len: 8192,
        content_crc: 0xdead_beef,
    };
    let segment = Segment { start: 4096, len: 8192, extent: extent(3), offset: 0 };
    for content in [
        Content::Inline(b"hello".to_vec()),
        Content::Segments { extents: vec![new], segments: vec![segment, segment] },
    ] {
        commands.push(Command::Commit(Commit {
            ino,
            grant: Grant(4),
            applied: Dseq(6),
            content,
            size: 12_288,
            mtime: Some(Nanos(1)),
            kill_priv: false,
        }));
    }
    commands
}

fn slot() -> SlotRef {
    SlotRef { volume: VolumeId(1), session: SessionId(5), epoch: Epoch(6), slot: 255, seq: 8 }
}

fn entry() -> Entry {
    let envelope = |(i, command)| Envelope { slot: (i % 2 == 0).then(slot), command };
    Entry { time: Nanos(-1), commands: commands().into_iter().enumerate().map(envelope).collect() }
}

fn attr() -> Attr {
    Attr {
        ino: Ino(9),
        kind: FileKind::File,
        mode: 0o644,
        nlink: 1,
        uid: 2,
        gid: 3,
        rdev: 4,
        size: 5,
        allocated: 4096,
        atime: Nanos(6),
        mtime: Nanos(7),
        ctime: Nanos(8),
        btime: Nanos(9),
        change: 10,
        grant: Grant(11),
        applied: Dseq(12),
        project: Ino(13),
    }
}

#[test]
fn entries_and_envelopes_survive_their_bytes() {
    assert_eq!(decode_entry(&encode_entry(&entry())), Ok(entry()));
    for envelope in entry().commands {
        assert_eq!(decode_envelope(&encode_envelope(&envelope)), Ok(envelope));
    }
}

#[test]
fn replies_survive_their_bytes() {
    let replies = [
        Reply::Done,
        Reply::Failed(Errno::ENOSPC),
        Reply::Attr(attr()),
        Reply::Removed(attr()),
        Reply::Renamed { moved: attr(), other: Some(attr()) },
        Reply::Renamed { moved: attr(), other: None },
        Reply::Volume(VolumeId(1)),
        Reply::Group(GroupId(2)),
        Reply::Session(SessionInfo { volume: VolumeId(1), session: SessionId(2), epoch: Epoch(3), node: 4 }),
        Reply::Granted(Grant(3)),
        Reply::Left(4),
        Reply::SlotMisuse,
        Reply::ReplyGone,
        Reply::Fenced,
        Reply::Journaled { replies: vec![Single(Box::new(Reply::Done)); 3], differs: None },
        Reply::Journaled { replies: vec![], differs: Some((2, Single(Box::new(Reply::Failed(Errno::EIO))))) },
        Reply::Copied { attr: attr(), bytes: 1 << 33 },
    ];
    for reply in replies {
        let mut bytes = Vec::new();
        reply.write(&mut bytes);
        assert!(bytes.len() <= 4096, "a slot's reply is bounded");
        assert_eq!(Reader::new(&bytes).whole::<Reply>(), Ok(reply));
    }
}

#[test]
fn digests_tell_commands_apart() {
    let mut digests: Vec<u64> = commands().iter().map(digest).collect();
    digests.sort_unstable();
    assert!(digests.is_sorted_by(|a, b| a < b));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of version 1. If this fails the format has changed: raise its version and keep reading this one.
#[test]
fn version_1_as_it_was_written() {
    let envelope = Envelope {
        slot: Some(slot()),
        command: Command::Link { ino: Ino(9), parent: Ino::ROOT, name: b"ab".to_vec() },
    };
    let entry = Entry { time: Nanos(2), commands: vec![envelope.clone()] };
    let link = "01 01000000 0500000000000000 06000000 ff 0800000000000000 \
                21 0900000000000000 0100000000000000 02000000 6162"
        .replace(' ', "");
    assert_eq!(hex(&encode_envelope(&envelope)), format!("01{link}"));
    assert_eq!(hex(&encode_entry(&entry)), format!("01020000000000000001000000{link}"));
    assert_eq!(digest(&envelope.command), DIGEST, "stored in slots: it may not change either");
}

const DIGEST: u64 = 9_273_583_200_746_536_454;

#[test]
fn bytes_of_nobody_are_refused() {
    let good = encode_entry(&entry());
    for len in 0..good.len() {
        assert!(decode_entry(&good[..len]).is_err(), "{len} bytes");
    }
    let mut long = good.clone();
    long.push(0);
    assert_eq!(decode_entry(&long), Err(DecodeError::Trailing(1)));
    let mut newer = good;
    newer[0] = 2;
    assert_eq!(decode_entry(&newer), Err(DecodeError::Version(2)));
    let many = vec![Envelope { slot: None, command: Command::Touch { ino: Ino(1), at: Nanos(0) } }; 513];
    let many = encode_entry(&Entry { time: Nanos(0), commands: many });
    assert_eq!(decode_entry(&many), Err(DecodeError::Bound("the number of commands")));
    // A count of 2^32 - 1 with nothing behind it.
    assert_eq!(decode_entry(&hexed("010200000000000000ffffffff")), Err(DecodeError::Short));
}

#[test]
fn a_journal_holds_no_journal() {
    let item = |command| Journaled { time: Nanos(1), expected: Expected::Success, command };
    let inner = Command::Journal { commands: vec![item(Command::Touch { ino: Ino(1), at: Nanos(0) })] };
    let outer = Envelope { slot: Some(slot()), command: Command::Journal { commands: vec![item(inner)] } };
    let refused = DecodeError::Tag { what: "a journaled command", tag: super::JOURNAL };
    assert_eq!(decode_envelope(&encode_envelope(&outer)), Err(refused));
    let mut bytes = Vec::new();
    let reply = Reply::Journaled { replies: vec![], differs: None };
    Reply::Journaled { replies: vec![Single(Box::new(reply))], differs: None }.write(&mut bytes);
    let refused = DecodeError::Tag { what: "a journaled reply", tag: super::JOURNALED };
    assert_eq!(Reader::new(&bytes).whole::<Reply>(), Err(refused));
}

fn hexed(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

proptest! {
    #[test]
    fn changed_bytes_are_read_or_refused_and_what_is_read_is_what_is_written(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode_entry(&entry());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(entry) = decode_entry(&bytes) {
            assert_eq!(encode_entry(&entry), bytes, "one entry, one form");
        }
    }

    #[test]
    fn noise_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_entry(&bytes);
        let _ = decode_envelope(&bytes);
    }
}
