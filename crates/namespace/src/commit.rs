//! Written data becomes the file's.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use types::{EXTENT_MAX, Errno, ExtentId, Ino, SessionId};

use crate::attrs;
use crate::command::{Commit, Content, NewExtent, Reply, Segment};
use crate::keys;
use crate::map::{FILE_MAX, MapEdit};
use crate::query::FileKind;
use crate::row::cluster::Group;
use crate::row::data::{Extent, INLINE_MAX, Inline, MapData};
use crate::row::inode;
use crate::row::session::{Session, Writer};
use crate::tx::{Outcome, Tx};

/// Applies a commit, once per `(grant, applied)`.
pub(crate) fn commit(tx: &mut Tx<'_, '_>, session: SessionId, commit: &Commit) -> Outcome<Reply> {
    let Commit { ino, grant, applied, .. } = *commit;
    let inode = tx.inode(ino)?.clone();
    if inode.kind != FileKind::File {
        return Err(Errno::EINVAL.into());
    }
    let writer: Option<Writer> = tx.get(&keys::of_inode(tx.id, keys::kind::WRITER, ino))?;
    if inode.grant != grant || writer != Some(Writer { session, grant }) {
        return Err(Errno::ESTALE.into());
    }
    if applied <= inode.applied {
        return Ok(Reply::Attr(inode.attr(ino)));
    }
    if commit.size > FILE_MAX {
        return Err(Errno::EFBIG.into());
    }
    if commit.size < inode.size {
        return Err(Errno::EINVAL.into());
    }
    let mut edit = MapEdit::begin(tx, ino)?;
    match &commit.content {
        Content::Inline(bytes) => {
            if bytes.len() as u64 != commit.size || commit.size > INLINE_MAX {
                return Err(Errno::EINVAL.into());
            }
            edit.clear(tx, 0, INLINE_MAX)?;
            set_inline(tx, &mut edit, ino, bytes)?;
        }
        Content::Segments { extents, segments } => {
            check_segments(segments, commit.size)?;
            let known = bring_in(tx, session, extents)?;
            check_extents(tx, &known, segments)?;
            replace_inline(tx, &mut edit, ino, segments)?;
            for segment in segments {
                let len = u64::from(segment.len);
                edit.clear(tx, segment.start, segment.start + len)?;
                let data = MapData::Extent { id: segment.extent, offset: segment.offset };
                edit.put(tx, segment.start, len, data);
            }
        }
    }
    edit.finish_promised(tx)?;
    let now = tx.now;
    let inode = tx.edit(ino)?;
    inode.applied = applied;
    inode.size = commit.size;
    // A writer's clock cannot make the file younger than it was; a file from the future is written now.
    let written = commit.mtime.map_or(inode.ctime, |mtime| mtime.min(now));
    if commit.mtime.is_some() {
        inode.mtime = written.max(inode.mtime).min(now);
    }
    // It was shown as changed when it was written; that it is stored now is no second change.
    inode.touch_ctime(written.max(inode.ctime));
    if commit.kill_priv {
        attrs::kill_priv(tx, ino)?;
    }
    Ok(Reply::Attr(tx.inode(ino)?.attr(ino)))
}

/// The file's inline bytes are these; none at all: it has no inline row.
pub(crate) fn set_inline(tx: &mut Tx<'_, '_>, edit: &mut MapEdit, ino: Ino, bytes: &[u8]) -> Outcome<()> {
    let inode = tx.edit(ino)?;
    let (had, has) = (inode.has(inode::INLINE), !bytes.is_empty());
    inode.set(inode::INLINE, has);
    edit.count_inline(had, has);
    let key = keys::of_inode(tx.id, keys::kind::INLINE, ino);
    if has {
        tx.put(key, &Inline { bytes: bytes.to_vec() });
    } else if had {
        tx.over.delete(key);
    }
    Ok(())
}

/// The file's inline bytes; none if it has no inline row.
pub(crate) fn inline(tx: &mut Tx<'_, '_>, ino: Ino) -> Outcome<Vec<u8>> {
    if !tx.inode(ino)?.has(inode::INLINE) {
        return Ok(Vec::new());
    }
    let row: Option<Inline> = tx.get(&keys::of_inode(tx.id, keys::kind::INLINE, ino))?;
    Ok(row.map(|row| row.bytes).unwrap_or_default())
}

/// A segment that touches the first unit takes the place of the inline row, and must not lose a byte of it.
fn replace_inline(tx: &mut Tx<'_, '_>, edit: &mut MapEdit, ino: Ino, segments: &[Segment]) -> Outcome<()> {
    if segments.first().is_none_or(|first| first.start >= INLINE_MAX) {
        return Ok(());
    }
    let bytes = inline(tx, ino)?.len() as u64;
    if bytes == 0 {
        return Ok(());
    }
    let mut covered = 0;
    for segment in segments {
        if segment.start > covered {
            break;
        }
        covered = segment.start + u64::from(segment.len);
    }
    if covered < bytes {
        return Err(Errno::EINVAL.into());
    }
    set_inline(tx, edit, ino, &[])
}

/// Ranges are ascending, apart, inside the file, and no longer than a map row may be.
pub(crate) fn check_segments(segments: &[Segment], size: u64) -> Result<(), Errno> {
    let mut at = 0;
    for segment in segments {
        let end = segment.start.checked_add(u64::from(segment.len)).ok_or(Errno::EINVAL)?;
        if segment.start < at || end > size || segment.len == 0 || u64::from(segment.len) > EXTENT_MAX {
            return Err(Errno::EINVAL);
        }
        at = end;
    }
    Ok(())
}

/// Rows of extents that no row named until now; how much plaintext each has.
pub(crate) fn bring_in(
    tx: &mut Tx<'_, '_>,
    session: SessionId,
    extents: &[NewExtent],
) -> Outcome<BTreeMap<ExtentId, (u32, bool)>> {
    let settled = tx.get::<Session>(&keys::session(tx.id, session))?.map_or(u64::MAX, |row| row.settled);
    let mut known = BTreeMap::new();
    for new in extents {
        let id = new.id;
        if id.volume != tx.id || id.session != session || id.counter == 0 || id.counter >= 1 << 48 {
            return Err(Errno::EINVAL.into());
        }
        if id.counter < settled {
            return Err(Errno::ESTALE.into());
        }
        let long = new.plain_len == 0 || u64::from(new.plain_len) > EXTENT_MAX || new.stored_len == 0;
        let key = keys::extent(id);
        if long || tx.get::<Group>(&keys::group(new.group))?.is_none() || tx.get::<Extent>(&key)?.is_some() {
            return Err(Errno::EINVAL.into());
        }
        let row = Extent {
            group: new.group,
            layout: new.layout,
            codec: new.codec,
            plain_len: new.plain_len,
            stored_len: new.stored_len,
            content_crc: new.content_crc,
            refs: 0,
            live: 0,
        };
        tx.put(key, &row);
        known.insert(id, (new.plain_len, false));
    }
    Ok(known)
}

/// Every segment lies in an extent that is new or alive, and every new extent is named.
pub(crate) fn check_extents(
    tx: &Tx<'_, '_>,
    new: &BTreeMap<ExtentId, (u32, bool)>,
    segments: &[Segment],
) -> Outcome<()> {
    let mut known = new.clone();
    for segment in segments {
        let id = segment.extent;
        let plain_len = match known.get_mut(&id) {
            Some((plain_len, named)) => {
                *named = true;
                *plain_len
            }
            None if id.volume == tx.id => {
                let row: Extent = tx.get(&keys::extent(id))?.ok_or(Errno::EINVAL)?;
                if row.refs == 0 {
                    return Err(Errno::ESTALE.into());
                }
                row.plain_len
            }
            None => return Err(Errno::EINVAL.into()),
        };
        if segment.offset.checked_add(segment.len).is_none_or(|end| end > plain_len) {
            return Err(Errno::EINVAL.into());
        }
    }
    if known.values().all(|(_, named)| *named) { Ok(()) } else { Err(Errno::EINVAL.into()) }
}
