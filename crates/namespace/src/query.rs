//! What can be read, and what is answered.

use alloc::vec::Vec;
use types::{Dseq, Epoch, Errno, ExtentId, Grant, GroupId, Ino, LayoutId, Nanos, SessionId, VolumeId};

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FileKind {
    /// A regular file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A FIFO.
    Fifo = 4,
    /// A socket.
    Socket = 5,
    /// A character device.
    CharDevice = 6,
    /// A block device.
    BlockDevice = 7,
}

/// An inode's attributes, as stat(2) shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Which inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// 0o7777.
    pub mode: u32,
    /// Names that it has.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, of devices.
    pub rdev: u32,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that it takes of the volume, in 4 KiB units.
    pub allocated: u64,
    /// Last access.
    pub atime: Nanos,
    /// Last change of data.
    pub mtime: Nanos,
    /// Last change of anything.
    pub ctime: Nanos,
    /// Birth.
    pub btime: Nanos,
    /// Grows at each change.
    pub change: u64,
    /// The grant of the last writer.
    pub grant: Grant,
    /// The last record of that grant which is in the rows.
    pub applied: Dseq,
    /// The nearest directory with a quota that it lies in, itself included; 0 if there is none.
    pub project: Ino,
}

impl Attr {
    /// Those of an inode of which there is nothing yet: no name, no owner, no byte, all times 0.
    pub fn blank(ino: Ino, kind: FileKind) -> Attr {
        Attr {
            ino,
            kind,
            mode: 0,
            nlink: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            allocated: 0,
            atime: Nanos(0),
            mtime: Nanos(0),
            ctime: Nanos(0),
            btime: Nanos(0),
            change: 0,
            grant: Grant(0),
            applied: Dseq(0),
            project: Ino(0),
        }
    }
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Its place: valid as `after` as long as the directory lives, whatever changes around it. At least 3.
    pub cookie: u64,
    /// What it names.
    pub ino: Ino,
    /// What that is.
    pub kind: FileKind,
    /// The name.
    pub name: Vec<u8>,
    /// Its attributes, if they were asked for.
    pub attr: Option<Attr>,
}

/// An extent's row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtentRow {
    /// Its id.
    pub id: ExtentId,
    /// The group that holds its fragments.
    pub group: GroupId,
    /// Its encoding.
    pub layout: LayoutId,
    /// How stored bytes relate to plaintext; 0: equal.
    pub codec: u32,
    /// Bytes of plaintext.
    pub plain_len: u32,
    /// Stored bytes.
    pub stored_len: u32,
    /// CRC-32C over the stored bytes' block CRCs.
    pub content_crc: u32,
}

/// A range of a file, as its map has it. What no segment covers is a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapSegment {
    /// First byte in the file.
    pub start: u64,
    /// Bytes: at most 1 MiB of an extent; space that was set aside can be any length.
    pub len: u64,
    /// The part of an extent that it is, or `None` for space that was set aside and reads as zeros.
    pub data: Option<(ExtentRow, u32)>,
}

/// What a slot of a placement group is for. In and Filling slots are *present*: whoever writes, writes them all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SlotState {
    /// It has all that was acknowledged.
    In = 1,
    /// It is written, and lacks some of what was written before.
    Filling = 2,
    /// Its disk is away: it is neither written nor read.
    Absent = 3,
}

/// A slot of a placement group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupSlot {
    /// Whose it is.
    pub disk: [u8; 16],
    /// What it is for.
    pub state: SlotState,
}

/// A placement group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupRow {
    /// Its id.
    pub id: GroupId,
    /// Raised whenever it changes who must be written.
    pub epoch: Epoch,
    /// Its slots, at the place that is the index in the names of their fragments.
    pub slots: Vec<GroupSlot>,
}

/// A disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskRow {
    /// Its uuid.
    pub disk: [u8; 16],
    /// Bytes that fragments may take of it.
    pub bytes: u64,
    /// It will not be used again.
    pub retired: bool,
}

/// An open session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Its volume.
    pub volume: VolumeId,
    /// Its id.
    pub session: SessionId,
    /// Its fencing number.
    pub epoch: Epoch,
    /// Its node.
    pub node: u64,
}

/// A volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeInfo {
    /// Its id.
    pub id: VolumeId,
    /// Its name.
    pub name: Vec<u8>,
    /// Most bytes of file data: what the disks are meant for, or a smaller limit that somebody has set.
    pub limit: u64,
    /// Most inodes; `u64::MAX` if nobody has set a limit.
    pub limit_inodes: u64,
    /// Bytes of file data, in 4 KiB units, unwritten space included.
    pub used: u64,
    /// Inodes, nameless ones included.
    pub inodes: u64,
    /// The directory whose quota is being set or removed, step by step; 0 if none is.
    pub counting: Ino,
}

/// How far a quota is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuotaState {
    /// Part of what was below the directory before may not be counted yet. The limits hold for what is.
    Counting,
    /// Everything is counted.
    Set,
    /// It limits nothing any more, and what it counted is being given to the one around it.
    Removing,
    /// It is gone but for nameless inodes that still count for it.
    Removed,
}

/// A directory's quota. What lies below the directory counts for it, the directory itself and whatever has a quota
/// of its own below included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuotaInfo {
    /// The directory.
    pub dir: Ino,
    /// The nearest directory with a quota around it, or 0.
    pub outer: Ino,
    /// Most bytes, as `used_bytes` counts them; `u64::MAX`: no limit.
    pub limit_bytes: u64,
    /// Most inodes; `u64::MAX`: no limit.
    pub limit_inodes: u64,
    /// Bytes of file data, in 4 KiB units.
    pub used_bytes: u64,
    /// Inodes, nameless ones included.
    pub inodes: u64,
    /// How far it is.
    pub state: QuotaState,
}

/// What the map rows that start in 1 MiB of a file take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scattered {
    /// Which file.
    pub ino: Ino,
    /// First byte of the first of them.
    pub start: u64,
    /// One past the last byte of the last.
    pub end: u64,
    /// Bytes that lie in extents.
    pub bytes: u64,
    /// Map rows that begin where the one before ends: in one extent they would be one row.
    pub needless_rows: u32,
    /// Bytes of the disk that would come back if these bytes lay in one extent: their share of what their extents
    /// hold beside what is alive, headers among it. An estimate: it comes back when the last row of an extent has gone.
    pub waste: u64,
    /// Bytes of the disk that come back at once when these rows go: extents that no other row names.
    pub frees: u64,
}

/// What to read. A question about an inode that does not exist is answered `Failed(ESTALE)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Query {
    /// What a name stands for: `Attr`, or `Failed(ENOENT)`. `.` and `..` are not names here.
    Lookup {
        /// Which volume.
        volume: VolumeId,
        /// Which directory.
        parent: Ino,
        /// Which name.
        name: Vec<u8>,
    },
    /// `Attr`.
    GetAttr {
        /// Which volume.
        volume: VolumeId,
        /// Which inode.
        ino: Ino,
    },
    /// `Parent`: the directory that holds a directory (the root holds itself).
    Parent {
        /// Which volume.
        volume: VolumeId,
        /// Which directory.
        ino: Ino,
    },
    /// `Entries` with cookies larger than `after`, in their order, at most `max` (fewer only at the end).
    ReadDir {
        /// Which volume.
        volume: VolumeId,
        /// Which directory.
        ino: Ino,
        /// 2 to start.
        after: u64,
        /// How many.
        max: u32,
        /// With attributes.
        attrs: bool,
    },
    /// `Bytes`: the target of a symbolic link.
    ReadLink {
        /// Which volume.
        volume: VolumeId,
        /// Which link.
        ino: Ino,
    },
    /// `Bytes`, or `Failed(ENODATA)`.
    GetXattr {
        /// Which volume.
        volume: VolumeId,
        /// Whose.
        ino: Ino,
        /// Which.
        name: Vec<u8>,
    },
    /// `Names`, in order.
    ListXattr {
        /// Which volume.
        volume: VolumeId,
        /// Whose.
        ino: Ino,
    },
    /// `Inline` if the file is empty or its whole content is in a row, else `Map`: the segments that touch `start..end`,
    /// whole, at most `max`.
    Map {
        /// Which volume.
        volume: VolumeId,
        /// Which file.
        ino: Ino,
        /// First byte.
        start: u64,
        /// One past the last.
        end: u64,
        /// How many; if as many came back there may be more behind them.
        max: u32,
    },
    /// `Volume`, or `Failed(ENOENT)`.
    VolumeByName {
        /// Its name.
        name: Vec<u8>,
    },
    /// `Volume`, or `Failed(ENOENT)`.
    Volume {
        /// Its id.
        volume: VolumeId,
    },
    /// `Volumes`: all of them.
    Volumes,
    /// `Quotas`: those of directories above `after`, in their order, at most `max`; removed ones are left out.
    Quotas {
        /// Which volume.
        volume: VolumeId,
        /// 0 to start.
        after: Ino,
        /// How many.
        max: u32,
    },
    /// `Quotas`: those that an inode counts for, the innermost first.
    QuotasOf {
        /// Which volume.
        volume: VolumeId,
        /// Which inode.
        ino: Ino,
    },
    /// `Bytes`: the path of an inode from the root on, which is `/`, one of them if it has several; `Failed(ENOENT)` if it
    /// has none any more.
    Path {
        /// Which volume.
        volume: VolumeId,
        /// Which.
        ino: Ino,
    },
    /// `Groups`: all of them.
    Groups,
    /// `Disks`: all of them, retired ones too.
    Disks,
    /// `Sessions`: the open ones of a volume.
    Sessions {
        /// Which volume.
        volume: VolumeId,
    },
    /// `Extents`: dead ones, whose fragments can be deleted, at most `max`.
    DeadExtents {
        /// Which volume.
        volume: VolumeId,
        /// How many.
        max: u32,
    },
    /// `Garbage`: which of these may be deleted: named by no row, and their session is closed or has settled past them.
    Garbage {
        /// Listed by an agent *before* this is asked.
        ids: Vec<ExtentId>,
    },
    /// `Scattered`: what the map rows from `(ino, start)` on take beside the bytes that they stand for, for compaction.
    Scattered {
        /// Which volume.
        volume: VolumeId,
        /// The first inode.
        ino: Ino,
        /// The first byte of it.
        start: u64,
        /// Map rows to look at, at most 16,384.
        look: u32,
    },
    /// `Extents`: the rows of those that have one and are alive.
    ExtentRows {
        /// Which.
        ids: Vec<ExtentId>,
    },
    /// `Rows`: rows as they are stored, of `from..to` in key order, at most `max`; for who runs commands over them.
    Rows {
        /// The first key.
        from: Vec<u8>,
        /// One past the last.
        to: Vec<u8>,
        /// How many; if as many came back there may be more behind them.
        max: u32,
    },
    /// `Rows`: those of these rows that there are, in the order of the question.
    RowsAt {
        /// Keys.
        keys: Vec<Vec<u8>>,
    },
    /// `Time`: no row was changed at a later one.
    Time,
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Cannot be answered, and why.
    Failed(Errno),
    /// Attributes.
    Attr(Attr),
    /// An inode.
    Parent(Ino),
    /// Names of a directory.
    Entries(Vec<DirEntry>),
    /// A target or a value.
    Bytes(Vec<u8>),
    /// Names of extended attributes.
    Names(Vec<Vec<u8>>),
    /// The whole content of a small file; its attributes.
    Inline {
        /// At most 4,096 bytes, exactly `attr.size`.
        bytes: Vec<u8>,
        /// Of the same moment.
        attr: Attr,
    },
    /// Parts of a file's map, ascending; its attributes. Segments may lie wholly or partly behind `attr.size`.
    Map {
        /// The file's first bytes, at most 4,096, where they are in a row though the file is longer: a small file that
        /// was extended by truncate or fallocate. While there are any, no segment starts below 4,096, and what lies
        /// between the prefix and 4,096 is zeros. It is given whatever range was asked for.
        prefix: Vec<u8>,
        /// The segments.
        segments: Vec<MapSegment>,
        /// Of the same moment.
        attr: Attr,
    },
    /// A volume.
    Volume(VolumeInfo),
    /// Volumes.
    Volumes(Vec<VolumeInfo>),
    /// Quotas.
    Quotas(Vec<QuotaInfo>),
    /// Groups, in the order of their ids.
    Groups(Vec<GroupRow>),
    /// Disks, in the order of their uuids.
    Disks(Vec<DiskRow>),
    /// Sessions.
    Sessions(Vec<SessionInfo>),
    /// Extents.
    Extents(Vec<ExtentRow>),
    /// Extents that may be deleted.
    Garbage(Vec<ExtentId>),
    /// Keys and values.
    Rows(Vec<(Vec<u8>, Vec<u8>)>),
    /// A time.
    Time(Nanos),
    /// What map rows take.
    Scattered {
        /// Windows of files, in order.
        windows: Vec<Scattered>,
        /// Where to go on, unless this was the end.
        next: Option<(Ino, u64)>,
    },
}
