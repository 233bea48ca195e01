//! Rows as people read them.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Debug;
use types::SessionId;

use crate::keys::{KeyReader, class, kind};
use crate::query::GroupSlot;
use crate::row;
use crate::row::cluster::{Clock, Counters, Disk, Group, Node, Restored, VolumeName};
use crate::row::data::{Extent, Inline, Map};
use crate::row::inode::Inode;
use crate::row::names::{Dentry, Target, Xattr};
use crate::row::project::{Project, Unvisited};
use crate::row::reclaim::{DeadSession, Tail};
use crate::row::session::{Pinned, Session, Slot, Writer};
use crate::row::volume::Volume;
use crate::wire::Wire;

/// A key in hexadecimal.
pub(crate) fn key_text(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One line that says what a row is: `volume 1 dentry dir 1 cookie 77: ino 2 File "a"`. Keys of other tables, and rows
/// that are not what this program writes, are named as such with their bytes. Contents of files are counted, not shown.
pub fn describe(key: &[u8], value: &[u8]) -> String {
    let unknown = || format!("{}: unknown row, {} bytes", key_text(key), value.len());
    let Some(name) = key_name(key) else { return unknown() };
    let Some((_, kind, mut rest)) = KeyReader::open(key) else { return unknown() };
    let body = match kind {
        kind::CLOCK => body::<Clock>(value),
        kind::COUNTERS => body::<Counters>(value),
        kind::NODE => body::<Node>(value),
        kind::RESTORED => body::<Restored>(value),
        kind::GROUP => {
            let slot = |slot: &GroupSlot| format!(" {} {:?}", key_text(&slot.disk), slot.state);
            with::<Group>(value, |row| {
                format!("epoch {} slots{}", row.epoch, row.slots.iter().map(slot).collect::<String>())
            })
        }
        kind::DISK => body::<Disk>(value),
        kind::NAME => body::<VolumeName>(value),
        kind::VOLUME => with::<Volume>(value, |volume| {
            let Volume { name, limit, used, inodes, next_ino, next_grant, next_session, next_epoch, .. } =
                &volume;
            let Volume { quota_bytes, quota_inodes, counting, .. } = &volume;
            format!(
                "{} limit {limit} used {used} inodes {inodes} next ino {next_ino} grant {next_grant} \
                 session {next_session} epoch {next_epoch} quota {quota_bytes} inodes {quota_inodes} \
                 counting {counting}",
                name.escape_ascii()
            )
        }),
        kind::INODE => body::<Inode>(value),
        kind::DENTRY => with::<Dentry>(value, |row| {
            format!("ino {} {:?} \"{}\"", row.ino, row.kind, row.name.escape_ascii())
        }),
        kind::PARENT => with::<row::Empty>(value, |_| "a name".to_string()),
        kind::INLINE => with::<Inline>(value, |row| format!("{} bytes", row.bytes.len())),
        kind::MAP => body::<Map>(value),
        kind::EXTENT => body::<Extent>(value),
        kind::XATTR => with::<Xattr>(value, |row| format!("{} bytes", row.value.len())),
        kind::SYMLINK => with::<Target>(value, |row| format!("\"{}\"", row.path.escape_ascii())),
        kind::SESSION => body::<Session>(value),
        kind::SLOT => body::<Slot>(value),
        kind::WRITER => body::<Writer>(value),
        kind::PINNED => body::<Pinned>(value),
        kind::PROJECT => body::<Project>(value),
        kind::RECLAIM => match rest.byte() {
            Some(class::TAIL) => body::<Tail>(value),
            Some(class::SESSION) => body::<DeadSession>(value),
            Some(class::UNVISITED) => body::<Unvisited>(value),
            _ => with::<row::Empty>(value, |_| "to reclaim".to_string()),
        },
        _ => return unknown(),
    };
    format!("{name}: {body}")
}

fn body<T: Wire + Debug>(value: &[u8]) -> String {
    with::<T>(value, |row| format!("{row:?}"))
}

fn with<T: Wire>(value: &[u8], text: impl FnOnce(T) -> String) -> String {
    match row::body(value) {
        Ok(row) => text(row),
        Err(why) => format!("{} bytes that are no such row: {why}", value.len()),
    }
}

/// A key in words; `None` if it is no key of this crate.
pub(crate) fn key_name(key: &[u8]) -> Option<String> {
    let (volume, kind, mut rest) = KeyReader::open(key)?;
    let text = match kind {
        kind::CLOCK => "clock".to_string(),
        kind::COUNTERS => "counters".to_string(),
        kind::RESTORED => "restored".to_string(),
        kind::NODE => format!("node {}", rest.u64()?),
        kind::GROUP => format!("group {}", rest.u32()?),
        kind::DISK => format!("disk {}", key_text(rest.rest())),
        kind::NAME => format!("volume name {}", rest.rest().escape_ascii()),
        kind::VOLUME => "volume".to_string(),
        kind::INODE => format!("inode {}", rest.u64()?),
        kind::DENTRY => format!("dentry dir {} cookie {}", rest.u64()?, rest.u64()?),
        kind::PARENT => format!("parent ino {} dir {} cookie {}", rest.u64()?, rest.u64()?, rest.u64()?),
        kind::INLINE => format!("inline ino {}", rest.u64()?),
        kind::MAP => format!("map ino {} start {}", rest.u64()?, rest.u64()?),
        kind::EXTENT => format!("extent {}", rest.extent()?),
        kind::XATTR => format!("xattr ino {} {}", rest.u64()?, rest.rest().escape_ascii()),
        kind::SYMLINK => format!("symlink ino {}", rest.u64()?),
        kind::SESSION => format!("session {}", SessionId(rest.u64()?)),
        kind::SLOT => format!("slot session {} slot {}", SessionId(rest.u64()?), rest.byte()?),
        kind::WRITER => format!("writer ino {}", rest.u64()?),
        kind::PINNED => format!("pinned ino {}", rest.u64()?),
        kind::PROJECT => format!("project {}", rest.u64()?),
        kind::RECLAIM => match rest.byte()? {
            class::INODE => format!("reclaim inode {}", rest.u64()?),
            class::TAIL => format!("reclaim tail ino {}", rest.u64()?),
            class::SESSION => format!("reclaim session {}", SessionId(rest.u64()?)),
            class::UNVISITED => format!("unvisited dir {}", rest.u64()?),
            class::DEAD_EXTENT => format!("dead extent {}", rest.extent()?),
            _ => return None,
        },
        _ => return None,
    };
    if !rest.at_end() {
        return None;
    }
    Some(if volume == crate::keys::CLUSTER { text } else { format!("volume {volume} {text}") })
}
