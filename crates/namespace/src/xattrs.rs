//! Extended attributes: setxattr(2), removexattr(2). Access control lists are two of them.

use types::{Errno, Ino};

use crate::acl;
use crate::command::{Cred, Reply, XattrMode};
use crate::keys;
use crate::row::names::Xattr;
use crate::tx::{Outcome, Tx};

/// The longest name with its namespace, in bytes (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;

/// The longest value, in bytes (`XATTR_SIZE_MAX`).
const VALUE_MAX: usize = 65_536;

/// Names and values of one inode, in bytes.
const INODE_MAX: u64 = 1 << 20;

/// File capabilities, see capabilities(7).
const CAPABILITY: &[u8] = b"security.capability";

/// Refuses what cannot be an attribute's name.
pub(crate) fn check(name: &[u8]) -> Result<(), Errno> {
    if acl::is_acl(name) {
        return Ok(());
    }
    if name.len() > NAME_MAX {
        return Err(Errno::ERANGE);
    }
    let namespaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    let space = namespaces.iter().find(|space| name.starts_with(space)).ok_or(Errno::EOPNOTSUPP)?;
    if name.len() == space.len() || name.contains(&0) { Err(Errno::EINVAL) } else { Ok(()) }
}

/// setxattr(2).
pub(crate) fn set(
    tx: &mut Tx<'_, '_>,
    ino: Ino,
    name: &[u8],
    value: &[u8],
    mode: XattrMode,
    cred: Cred,
) -> Outcome<Reply> {
    check(name)?;
    if value.len() > VALUE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let before = u64::from(tx.inode(ino)?.xattr_bytes);
    let key = keys::xattr(tx.id, ino, name);
    let old: Option<Xattr> = tx.get(&key)?;
    match (mode, &old) {
        (XattrMode::Create, Some(_)) => return Err(Errno::EEXIST.into()),
        (XattrMode::Replace, None) => return Err(Errno::ENODATA.into()),
        _ => {}
    }
    let value = if acl::is_acl(name) {
        match acl::accept(tx, ino, name, value, cred)? {
            Some(value) => value,
            None => {
                take(tx, ino, name)?;
                return Ok(Reply::Done);
            }
        }
    } else {
        value.to_vec()
    };
    let gone = old.map_or(0, |old| (name.len() + old.value.len()) as u64);
    let bytes = before.saturating_sub(gone) + (name.len() + value.len()) as u64;
    if bytes > INODE_MAX {
        return Err(Errno::ENOSPC.into());
    }
    tx.put(key, &Xattr { value });
    let now = tx.now;
    let inode = tx.edit(ino)?;
    inode.xattr_bytes = bytes as u32;
    inode.touch_ctime(now);
    Ok(Reply::Done)
}

/// removexattr(2).
pub(crate) fn remove(tx: &mut Tx<'_, '_>, ino: Ino, name: &[u8]) -> Outcome<Reply> {
    check(name)?;
    tx.inode(ino)?;
    if take(tx, ino, name)? { Ok(Reply::Done) } else { Err(Errno::ENODATA.into()) }
}

/// The file's capabilities go, if it has any.
pub(crate) fn drop_capability(tx: &mut Tx<'_, '_>, ino: Ino) -> Outcome<()> {
    if tx.inode(ino)?.xattr_bytes > 0 {
        take(tx, ino, CAPABILITY)?;
    }
    Ok(())
}

fn take(tx: &mut Tx<'_, '_>, ino: Ino, name: &[u8]) -> Outcome<bool> {
    let key = keys::xattr(tx.id, ino, name);
    let Some(old) = tx.get::<Xattr>(&key)? else { return Ok(false) };
    tx.over.delete(key);
    let now = tx.now;
    let inode = tx.edit(ino)?;
    inode.xattr_bytes = inode.xattr_bytes.saturating_sub((name.len() + old.value.len()) as u32);
    inode.touch_ctime(now);
    Ok(true)
}
