//! Identities. Each is a newtype, so that an inode number cannot be passed where a grant is meant.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id!(/// A volume; 0 stands for the cluster itself.
    VolumeId(u32));
id!(/// An inode number: never reused within a volume; the root is 1.
    Ino(u64));
id!(/// One mount's registration with its volume's partition; 48 bits, never reused.
    SessionId(u64));
id!(/// A fencing number: a smaller one is refused everywhere.
    Epoch(u32));
id!(/// The number of a write lease: the holder of an older one can change nothing any more.
    Grant(u64));
id!(/// The place of an accepted write in its session's order; the first is 1.
    Dseq(u64));
id!(/// A placement group: the ordered list of disks that hold an extent's fragments.
    GroupId(u32));
id!(/// How an extent is encoded: 0 as first written, else the number of the job that encoded it anew.
    LayoutId(u32));

impl Ino {
    /// The root directory of every volume.
    pub const ROOT: Ino = Ino(1);
}

/// Names an immutable run of plaintext. Sealed once, never reused.
///
/// 16 bytes, big-endian so that byte order is order: `volume u32 | session u48 | counter u48`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExtentId {
    /// The volume whose plaintext it is.
    pub volume: VolumeId,
    /// The session that sealed it.
    pub session: SessionId,
    /// Its number within the session, below 2^48; the first is 1.
    pub counter: u64,
}

impl ExtentId {
    /// The 16 bytes of the id.
    pub fn to_bytes(self) -> [u8; 16] {
        assert!(self.session.0 < 1 << 48 && self.counter < 1 << 48, "an extent id's parts are 48 bits");
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.volume.0.to_be_bytes());
        bytes[4..10].copy_from_slice(&self.session.0.to_be_bytes()[2..]);
        bytes[10..].copy_from_slice(&self.counter.to_be_bytes()[2..]);
        bytes
    }

    /// Reads what [`ExtentId::to_bytes`] wrote. Every 16 bytes are some id.
    pub fn from_bytes(bytes: &[u8; 16]) -> ExtentId {
        let u48 = |at: usize| bytes[at..at + 6].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        ExtentId {
            volume: VolumeId(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
            session: SessionId(u48(4)),
            counter: u48(10),
        }
    }
}

impl fmt::Display for ExtentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.volume, self.session, self.counter)
    }
}

/// What a fragment holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum FragmentKind {
    /// Stored bytes of an extent: a whole copy, or one shard.
    Data = 0,
}

/// Names one stored piece of an extent. It says neither node nor disk nor offset, so moving a fragment renames nothing.
///
/// 32 bytes, big-endian: `group u32 | extent id 16 | layout u32 | index u8 | kind u8 | zero 6`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FragmentId {
    /// The placement group whose slot `index` holds it.
    pub group: GroupId,
    /// The extent it is a piece of.
    pub extent: ExtentId,
    /// The encoding it belongs to.
    pub layout: LayoutId,
    /// Which replica or shard.
    pub index: u8,
    /// What it holds.
    pub kind: FragmentKind,
}

impl FragmentId {
    /// The 32 bytes of the id.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&self.group.0.to_be_bytes());
        bytes[4..20].copy_from_slice(&self.extent.to_bytes());
        bytes[20..24].copy_from_slice(&self.layout.0.to_be_bytes());
        bytes[24] = self.index;
        bytes[25] = self.kind as u8;
        bytes
    }

    /// Reads what [`FragmentId::to_bytes`] wrote; `None` for an unknown kind or a tail that is not zero.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<FragmentId> {
        let kind = match bytes[25] {
            0 => FragmentKind::Data,
            _ => return None,
        };
        if bytes[26..] != [0; 6] {
            return None;
        }
        let be32 = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut extent = [0; 16];
        extent.copy_from_slice(&bytes[4..20]);
        Some(FragmentId {
            group: GroupId(be32(0)),
            extent: ExtentId::from_bytes(&extent),
            layout: LayoutId(be32(20)),
            index: bytes[24],
            kind,
        })
    }
}

impl fmt::Display for FragmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.group, self.extent, self.layout, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::{ExtentId, FragmentId, FragmentKind, GroupId, LayoutId, SessionId, VolumeId};
    use proptest::prelude::{any, proptest};

    fn fragment(group: u32, session: u64, counter: u64, layout: u32, index: u8) -> FragmentId {
        let extent =
            ExtentId { volume: VolumeId(7), session: SessionId(session >> 16), counter: counter >> 16 };
        FragmentId {
            group: GroupId(group),
            extent,
            layout: LayoutId(layout),
            index,
            kind: FragmentKind::Data,
        }
    }

    proptest! {
        #[test]
        fn fragment_ids_survive_their_bytes(a in any::<(u32, u64, u64, u32, u8)>()) {
            let id = fragment(a.0, a.1, a.2, a.3, a.4);
            assert_eq!(FragmentId::from_bytes(&id.to_bytes()), Some(id));
        }

        #[test]
        fn byte_order_is_order(a in any::<(u32, u64, u64, u32, u8)>(), b in any::<(u32, u64, u64, u32, u8)>()) {
            let (a, b) = (fragment(a.0, a.1, a.2, a.3, a.4), fragment(b.0, b.1, b.2, b.3, b.4));
            assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
        }
    }

    #[test]
    fn an_unknown_kind_or_a_tail_is_no_fragment_id() {
        let good = fragment(1, 2 << 16, 3 << 16, 0, 0).to_bytes();
        for at in 25..32 {
            let mut bad = good;
            bad[at] = 9;
            assert_eq!(FragmentId::from_bytes(&bad), None, "byte {at}");
        }
    }
}
