//! What can be asked of the state machine, and what it answers.

use alloc::vec::Vec;
use types::{Dseq, Epoch, Errno, ExtentId, Grant, GroupId, Ino, LayoutId, Nanos, SessionId, VolumeId};

use crate::journal::{Journaled, Single};
use crate::query::{Attr, SessionInfo};

/// One entry of the log: commands that are applied in order, at one time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The leader's clock. Applied time never runs back: it is the larger of this and the last plus one nanosecond.
    pub time: Nanos,
    /// At most 512.
    pub commands: Vec<Envelope>,
}

/// A command, and the slot that makes it apply once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// `None` for commands of the service itself, which are idempotent.
    pub slot: Option<SlotRef>,
    /// What to do.
    pub command: Command,
}

/// A command slot of a session, as in NFSv4.1 (RFC 8881 section 2.10.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotRef {
    /// The volume of the session.
    pub volume: VolumeId,
    /// Whose slot.
    pub session: SessionId,
    /// The session's fencing number.
    pub epoch: Epoch,
    /// Which of its 256 slots.
    pub slot: u8,
    /// One more than the slot's last; the first is 1.
    pub seq: u64,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cred {
    /// Effective (filesystem) user id.
    pub uid: u32,
    /// Effective (filesystem) group id.
    pub gid: u32,
}

/// What a new name shall stand for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NewKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to the given path, 1 to 4,095 bytes.
    Symlink(Vec<u8>),
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character device with its number.
    CharDevice(u32),
    /// A block device with its number.
    BlockDevice(u32),
}

/// How a rename treats the new name, as renameat2(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// What is there is replaced.
    Replace,
    /// What is there is `EEXIST`.
    NoReplace,
    /// Both names change places.
    Exchange,
    /// As `Replace`, and the old name becomes a whiteout: a character device 0:0.
    Whiteout,
    /// As `NoReplace`, and the old name becomes a whiteout.
    NoReplaceWhiteout,
}

/// A time that setattr sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// The time of the entry.
    Now,
    /// The given one.
    To(Nanos),
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission bits with set-id and sticky, 0o7777.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes: truncates, or extends by a hole.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of data.
    pub mtime: Option<SetTime>,
}

/// How setxattr(2) treats an existing name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Sets it either way.
    Set,
    /// `XATTR_CREATE`: `EEXIST` if it is there.
    Create,
    /// `XATTR_REPLACE`: `ENODATA` if it is not.
    Replace,
}

/// What fallocate(2) shall do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FallocateMode {
    /// Space for the range; the size grows over it.
    Allocate,
    /// Space for the range; the size stays (`FALLOC_FL_KEEP_SIZE`).
    AllocateKeepSize,
    /// A hole; the size stays (`FALLOC_FL_PUNCH_HOLE`).
    PunchHole,
    /// Unwritten space that reads as zeros; the size grows (`FALLOC_FL_ZERO_RANGE`).
    Zero,
    /// Unwritten space that reads as zeros; the size stays.
    ZeroKeepSize,
}

/// An extent that a commit brings in: durable before the command is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewExtent {
    /// Its id.
    pub id: ExtentId,
    /// The placement group that holds its fragments.
    pub group: GroupId,
    /// 0 as first written.
    pub layout: LayoutId,
    /// How the stored bytes relate to the plaintext; 0: they are equal.
    pub codec: u32,
    /// Bytes of plaintext, 1 to 1 MiB.
    pub plain_len: u32,
    /// Stored bytes.
    pub stored_len: u32,
    /// CRC-32C over the stored bytes' block CRCs.
    pub content_crc: u32,
}

/// A range of a file that now is a part of an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First byte in the file.
    pub start: u64,
    /// Bytes, 1 to 1 MiB.
    pub len: u32,
    /// Which extent: one of the commit's new ones, or one that a row of this volume names.
    pub extent: ExtentId,
    /// First byte in the extent's plaintext.
    pub offset: u32,
}

/// The content that a commit gives a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// The whole file is these bytes, at most 4,096 and as many as the commit's size; what its map had goes, but for
    /// space set aside behind the first 4,096 bytes.
    Inline(Vec<u8>),
    /// These ranges change, in ascending order without overlap. Inline bytes stay as the file's prefix as long as no
    /// segment touches the first 4,096 bytes; the first that does must come with segments over all inline bytes, which
    /// replace them (else `EINVAL`).
    Segments {
        /// Extents that no row names yet.
        extents: Vec<NewExtent>,
        /// The ranges.
        segments: Vec<Segment>,
    },
}

/// Written data becomes the file's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// The file.
    pub ino: Ino,
    /// The write grant under which the data was accepted.
    pub grant: Grant,
    /// Every record of the grant up to here is in: at or below what the inode row has is answered, not applied.
    pub applied: Dseq,
    /// The data.
    pub content: Content,
    /// The size after it; smaller than the file's size is `EINVAL` (truncate is setattr).
    pub size: u64,
    /// When the last of it was written; clamped to between the file's mtime and now. `None`: the times were set after
    /// it was written, and stay.
    pub mtime: Option<Nanos>,
    /// Set-id bits and capabilities are cleared: somebody without the right to keep them wrote.
    pub kill_priv: bool,
}

/// What to do. Commands with a slot concern the slot's volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A node, or `up`, starts: sessions of the same node with a lower incarnation are closed.
    RegisterNode {
        /// Which node.
        node: u64,
        /// Larger at each start.
        incarnation: u64,
    },
    /// A disk joins; repeated, its size is updated. `ESTALE` if it was retired.
    AddDisk {
        /// The disk's uuid.
        disk: [u8; 16],
        /// Its usable data bytes.
        bytes: u64,
    },
    /// A placement group is made, all of its slots In; if one has just these disks its id is answered.
    AddGroup {
        /// 1 to 16 distinct disks that have joined, in the order of their slots.
        disks: Vec<[u8; 16]>,
    },
    /// A disk is away: its slots turn Absent and their groups' epochs rise, but for the last In slot of a group.
    DiskAbsent {
        /// Which.
        disk: [u8; 16],
    },
    /// A disk is back: its Absent slots turn Filling.
    DiskBack {
        /// Which.
        disk: [u8; 16],
    },
    /// A Filling slot turns In. `ESTALE` if the group has changed.
    SlotFilled {
        /// Which group.
        group: GroupId,
        /// Whose slot.
        disk: [u8; 16],
        /// The group's epoch in which it was filled.
        epoch: Epoch,
    },
    /// Another disk takes an Absent slot over, Filling. `EBUSY` if the slot is not Absent.
    ReplaceSlot {
        /// Which group.
        group: GroupId,
        /// Whose slot it is; without another slot left this disk is retired.
        old: [u8; 16],
        /// Whose it becomes.
        new: [u8; 16],
    },
    /// A disk is not used again: its slots turn Absent. `EBUSY` if it is the last In slot of a group.
    RetireDisk {
        /// Which.
        disk: [u8; 16],
    },
    /// A volume is made; if one has the name its id is answered and nothing changes.
    CreateVolume {
        /// 1 to 63 of `a-z 0-9 -`.
        name: Vec<u8>,
        /// Most bytes of file data, as `usage` counts them.
        limit: u64,
        /// Key of the name hashes.
        hash_key: [u8; 16],
        /// Mode of the root directory.
        mode: u32,
        /// Owner of the root directory.
        cred: Cred,
    },
    /// The volume's limit changes; below what is used is allowed and refuses growth.
    SetLimit {
        /// Which volume.
        volume: VolumeId,
        /// Most bytes.
        limit: u64,
    },
    /// A mount begins. `EBUSY` while another session has the volume exclusively.
    OpenSession {
        /// Which volume.
        volume: VolumeId,
        /// On which node.
        node: u64,
        /// In which start of it; below the registered one is `ESTALE`.
        incarnation: u64,
    },
    /// A mount ended: its slots, pins and leases go.
    CloseSession {
        /// Which volume.
        volume: VolumeId,
        /// Which session.
        session: SessionId,
    },
    /// A session's extent counters below `settled` are committed or given up: later commits of them are refused.
    Settle {
        /// Which volume.
        volume: VolumeId,
        /// Which session.
        session: SessionId,
        /// The mark; never moves down.
        settled: u64,
    },
    /// At most `steps` rows of deleted files and spent sessions are reclaimed.
    Reclaim {
        /// Which volume.
        volume: VolumeId,
        /// At most 1,000.
        steps: u32,
    },
    /// The fragments of these dead extents are deleted: their rows go.
    DropExtents {
        /// All of one volume, all dead.
        ids: Vec<ExtentId>,
    },

    /// A new name for a new inode (open(2) with `O_CREAT`, mkdir(2), mknod(2), symlink(2)).
    Create {
        /// In which directory.
        parent: Ino,
        /// 1 to 255 bytes without `/` and NUL, not `.` or `..`.
        name: Vec<u8>,
        /// What.
        kind: NewKind,
        /// 0o7777, before the umask.
        mode: u32,
        /// The caller's; a default access control list of the directory takes its place.
        umask: u32,
        /// The caller.
        cred: Cred,
    },
    /// Another name for a file (link(2)).
    Link {
        /// The file.
        ino: Ino,
        /// In which directory.
        parent: Ino,
        /// The new name.
        name: Vec<u8>,
    },
    /// A name goes (unlink(2)).
    Unlink {
        /// In which directory.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
        /// The session has it open: at no name left it is kept for the session until `Unpin`.
        pinned: bool,
        /// The caller.
        cred: Cred,
    },
    /// An empty directory goes (rmdir(2)).
    Rmdir {
        /// In which directory.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
        /// As in `Unlink`.
        pinned: bool,
        /// The caller.
        cred: Cred,
    },
    /// A name changes (renameat2(2)).
    Rename {
        /// From which directory.
        parent: Ino,
        /// The old name.
        name: Vec<u8>,
        /// To which directory.
        new_parent: Ino,
        /// The new name.
        new_name: Vec<u8>,
        /// What becomes of the new name.
        mode: RenameMode,
        /// The session has what is replaced open, as in `Unlink`.
        pinned: bool,
        /// The caller.
        cred: Cred,
    },
    /// The session has the nameless inode open no more.
    Unpin {
        /// Which.
        ino: Ino,
    },
    /// Attributes change (chmod(2), chown(2), truncate(2), utimensat(2)); an access control list follows the mode.
    SetAttr {
        /// Whose.
        ino: Ino,
        /// To what.
        set: SetAttr,
        /// Set-id bits are cleared by truncate or chown as the kernel asks (`FATTR_KILL_SUIDGID`).
        kill_priv: bool,
        /// With `size`: every record of the grant up to here is in or gone.
        applied: Option<(Grant, Dseq)>,
        /// The caller.
        cred: Cred,
    },
    /// An extended attribute is set (setxattr(2)).
    SetXattr {
        /// Whose.
        ino: Ino,
        /// `user.`, `trusted.` or `security.` and 1 to 255 bytes in all, or `system.posix_acl_access` or
        /// `system.posix_acl_default`.
        name: Vec<u8>,
        /// At most 64 KiB. An access control list is in Linux' form and at most 4 KiB; the access list moves the mode,
        /// and one that says no more than the mode is not kept.
        value: Vec<u8>,
        /// If it is there or not.
        mode: XattrMode,
        /// The caller.
        cred: Cred,
    },
    /// An extended attribute goes (removexattr(2)).
    RemoveXattr {
        /// Whose.
        ino: Ino,
        /// Which.
        name: Vec<u8>,
        /// The caller.
        cred: Cred,
    },
    /// The session may write the file from now on, under a new grant.
    GrantWrite {
        /// Which file.
        ino: Ino,
    },
    /// The rows come from a backup: numbers go on above what was given out since, and every session is over. Repeated, it
    /// only passes over more.
    Restored {
        /// The highest epoch that any disk knows of any group.
        epoch: Epoch,
        /// Sessions of which the disks have extents, the newest of each volume or more.
        sessions: Vec<(VolumeId, SessionId)>,
        /// Until then no fragment of a session before this is garbage: another backup may name it.
        keep_until: Nanos,
    },
    /// Written data becomes the file's. No limit refuses it: the data was accepted against them.
    Commit(Commit),
    /// Space is set aside, or given back (fallocate(2)). A range that touches more than 65,536 map rows is `EFBIG`:
    /// ask in parts.
    Fallocate {
        /// Which file.
        ino: Ino,
        /// What.
        mode: FallocateMode,
        /// First byte.
        offset: u64,
        /// Bytes, at least 1.
        len: u64,
        /// Set-id bits and capabilities are cleared.
        kill_priv: bool,
    },
    /// A range of a file becomes a range of another, or a range of the same that is apart from it, by naming the same
    /// extents (copy_file_range(2)). Holes and space that is set aside become holes. The answer says how much was
    /// copied: less at the source's end, or where many map rows meet; 0 if the first bytes lie in a row and not in an
    /// extent, on either side.
    CopyRange {
        /// From which file.
        from: Ino,
        /// First byte there.
        from_offset: u64,
        /// To which file; its size grows over the range.
        to: Ino,
        /// First byte there.
        to_offset: u64,
        /// Bytes at most.
        len: u64,
        /// Set-id bits and capabilities of the destination are cleared.
        kill_priv: bool,
    },
    /// The file was read: atime moves if relatime says so.
    Touch {
        /// Which.
        ino: Ino,
        /// When; in the future is now.
        at: Nanos,
    },
    /// What an exclusive mount has done, in its order; applied up to the first that comes to something else than the
    /// mount has answered. A refusal of a command that was not answered yet is its reply, and stops nothing.
    Journal {
        /// At most 512.
        commands: Vec<Journaled>,
    },
    /// Limits of a directory with all below it are set; of the root: the volume's. Below what is used is allowed and
    /// refuses growth. At least one is given; `None` leaves one as it is, `u64::MAX` is no limit. A directory that has
    /// no quota yet gets one, and what is below it is counted: `CountQuota` goes on with that while something is `Left`,
    /// and another one that needs counting is `EBUSY` meanwhile.
    SetQuota {
        /// Which directory.
        dir: Ino,
        /// Most bytes, as `Attr::allocated` counts them.
        bytes: Option<u64>,
        /// Most inodes.
        inodes: Option<u64>,
    },
    /// A directory's quota, or the volume's limits, go; `ENODATA` if there are none. Answers as `SetQuota`.
    RemoveQuota {
        /// Which directory.
        dir: Ino,
    },
    /// At most `steps` names are counted for the quota that is being set or removed; without one nothing happens.
    CountQuota {
        /// At most 1,000.
        steps: u32,
    },
    /// The same bytes lie in other extents from now on: compaction. No attribute changes but the space that the file
    /// takes. `EAGAIN`, and nothing changes, if one of the replaced map rows is not there any more as it was read:
    /// something was written over it, or it was cut, punched out or truncated.
    Rewrite {
        /// Which file.
        ino: Ino,
        /// Map rows as they were read, whole, ascending; at most 8,192.
        from: Vec<Segment>,
        /// Extents that no row names yet.
        extents: Vec<NewExtent>,
        /// What stands in their place: exactly the same bytes of the file, ascending.
        to: Vec<Segment>,
    },
}

/// The answer to one command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Done; there is nothing to tell.
    Done,
    /// Refused, and nothing changed.
    Failed(Errno),
    /// The attributes of the inode after the command (`Create`, `Link`, `SetAttr`, `Commit`, `Fallocate`, `Touch`,
    /// `Rewrite`).
    Attr(Attr),
    /// The destination's attributes after it, and how many bytes it now shares (`CopyRange`).
    Copied {
        /// The attributes.
        attr: Attr,
        /// The bytes.
        bytes: u64,
    },
    /// A name went; the attributes of what it named, after it, `nlink` 0 if it is gone (`Unlink`, `Rmdir`).
    Removed(Attr),
    /// What was moved, and what stood at the new name before (`Rename`): its attributes after it.
    Renamed {
        /// What has the new name now.
        moved: Attr,
        /// What was replaced or exchanged.
        other: Option<Attr>,
    },
    /// The volume has this id (`CreateVolume`).
    Volume(VolumeId),
    /// The group has this id (`AddGroup`).
    Group(GroupId),
    /// The session is open (`OpenSession`).
    Session(SessionInfo),
    /// The new grant (`GrantWrite`).
    Granted(Grant),
    /// How many rows are left to reclaim, or directories to count: at least this many, 0 if none (`Reclaim`, `SetQuota`,
    /// `RemoveQuota`, `CountQuota`).
    Left(u32),
    /// The slot was used twice for different commands, or out of order: a bug of the client.
    SlotMisuse,
    /// A repeat of a command whose answer has been replaced; it was applied once, and not again.
    ReplyGone,
    /// The session is closed or fenced.
    Fenced,
    /// What came of a batch (`Journal`).
    Journaled {
        /// Replies of those commands that were not answered yet, in their order.
        replies: Vec<Single>,
        /// The index of the first command that came to something else than was answered, and to what; it and what
        /// follows it was not applied.
        differs: Option<(u32, Single)>,
    },
}
