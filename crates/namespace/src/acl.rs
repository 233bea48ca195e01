//! Access control lists: acl(5), POSIX 1003.1e draft 17.
//!
//! A list is an extended attribute in the form that Linux gives it to filesystems
//! (include/uapi/linux/posix_acl_xattr.h): `version u32 = 2`, then entries `tag u16, permissions u16, id u32`, all
//! little-endian. The kernel checks access by it; here it is validated, kept in step with the mode, and inherited.

use alloc::vec::Vec;
use types::{Errno, Ino};

use crate::command::Cred;
use crate::keys;
use crate::query::FileKind;
use crate::row::inode::Inode;
use crate::row::names::Xattr;
use crate::tx::{Outcome, Tx};

/// Who may do what with a file.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";

/// What the access list of a file that is made in the directory begins as.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;

/// The kernel asks for lists with a buffer of one page, and takes no longer ones: 511 entries.
const BYTES_MAX: usize = 4096;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The id of entries that name nobody.
const NO_ID: u32 = u32::MAX;

/// `r`, `w` and `x` of all three classes.
const PERMISSIONS: u32 = 0o777;

/// Whether an extended attribute is an access control list.
pub(crate) fn is_acl(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Entry {
    tag: u16,
    id: u32,
    permissions: u16,
}

/// A list that is valid: `acl_valid(3)`. Entries are in the order of their tags, and no user or group comes twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    /// Reads a list; `None` if it has no entry, which stands for "no list". `EINVAL` if it is not valid.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Acl>, Errno> {
        let (version, entries) = bytes.split_first_chunk::<HEADER>().ok_or(Errno::EINVAL)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        let (entries, rest) = entries.as_chunks::<ENTRY>();
        if !rest.is_empty() {
            return Err(Errno::EINVAL);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let mut acl: Vec<Entry> = entries
            .iter()
            .map(|[t0, t1, p0, p1, id @ ..]| Entry {
                tag: u16::from_le_bytes([*t0, *t1]),
                id: u32::from_le_bytes(*id),
                permissions: u16::from_le_bytes([*p0, *p1]),
            })
            .collect();
        // Linux gives the entries of named users and groups in any order among themselves.
        acl.sort_unstable();
        let acl = Acl(acl);
        if acl.is_valid() { Ok(Some(acl)) } else { Err(Errno::EINVAL) }
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let named = count(USER) + count(GROUP) > 0;
        let once = [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1);
        let masked = count(MASK) == 1 || (count(MASK) == 0 && !named);
        let each = self.0.iter().all(|entry| {
            let has_id = matches!(entry.tag, USER | GROUP);
            let known = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER].contains(&entry.tag);
            known && entry.permissions <= 7 && (entry.id != NO_ID || !has_id)
        });
        let apart = self.0.windows(2).all(|pair| (pair[0].tag, pair[0].id) != (pair[1].tag, pair[1].id));
        once && masked && each && apart
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.0.len() * ENTRY);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        for entry in &self.0 {
            let id = if matches!(entry.tag, USER | GROUP) { entry.id } else { NO_ID };
            bytes.extend_from_slice(&entry.tag.to_le_bytes());
            bytes.extend_from_slice(&entry.permissions.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    /// The bits of a class in the mode: `obj` is the owner's, the group's or the others' entry. Of the group class
    /// it is the mask if there is one.
    fn classes(&mut self) -> [Option<&mut u16>; 3] {
        let masked = self.0.iter().any(|entry| entry.tag == MASK);
        let group = if masked { MASK } else { GROUP_OBJ };
        let (mut user, mut shared, mut other) = (None, None, None);
        for Entry { tag, permissions, .. } in &mut self.0 {
            match *tag {
                USER_OBJ => user = Some(permissions),
                OTHER => other = Some(permissions),
                tag if tag == group => shared = Some(permissions),
                _ => {}
            }
        }
        [user, shared, other]
    }

    /// The permission bits that stat(2) shows of a file with this access list.
    pub(crate) fn mode(&self) -> u32 {
        self.clone().classes().into_iter().flatten().fold(0, |mode, bits| mode << 3 | u32::from(*bits))
    }

    /// Whether the mode says all that the list says.
    fn is_minimal(&self) -> bool {
        self.0.len() == 3
    }

    /// chmod(2): the three classes get what the mode says; entries of named users and groups stay, behind the mask.
    fn set_mode(&mut self, mode: u32) {
        for (bits, shift) in self.classes().into_iter().flatten().zip([6, 3, 0]) {
            *bits = (mode >> shift & 7) as u16;
        }
    }

    /// What a new file gets of a default list: of each class no more than it was made with.
    fn inherit(&mut self, mode: u32) -> u32 {
        let allowed = self.mode() & mode;
        self.set_mode(allowed);
        allowed
    }
}

/// The list of an inode under one of the two names.
fn stored(tx: &mut Tx<'_, '_>, ino: Ino, name: &[u8]) -> Outcome<Option<Acl>> {
    if tx.inode(ino)?.xattr_bytes == 0 {
        return Ok(None);
    }
    let Some(row) = tx.get::<Xattr>(&keys::xattr(tx.id, ino, name))? else { return Ok(None) };
    // `check` finds a row that is no list; to its file it is as good as none.
    Ok(Acl::read(&row.value).ok().flatten())
}

/// What setxattr(2) stores under the name of a list: `None` if it is to be removed instead. An access list moves into
/// the mode what the mode can say.
///
/// Set-group-id goes if the caller is neither root nor of the file's group, as with chmod(2). Of the caller's groups
/// only the first comes this far, so whoever is in the group by another of them has to set it again.
pub(crate) fn accept(
    tx: &mut Tx<'_, '_>,
    ino: Ino,
    name: &[u8],
    value: &[u8],
    cred: Cred,
) -> Outcome<Option<Vec<u8>>> {
    let inode = tx.inode(ino)?;
    if inode.kind == FileKind::Symlink {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if value.len() > BYTES_MAX {
        return Err(Errno::E2BIG.into());
    }
    let acl = Acl::read(value)?;
    if name == DEFAULT {
        let is_dir = inode.is_dir();
        return match acl {
            Some(_) if !is_dir => Err(Errno::EACCES.into()),
            acl => Ok(acl.map(|acl| acl.write())),
        };
    }
    let Some(acl) = acl else { return Ok(None) };
    let strange = cred.uid != 0 && cred.gid != inode.gid;
    let now = tx.now;
    let inode = tx.edit(ino)?;
    inode.mode = inode.mode & !PERMISSIONS | acl.mode();
    if strange {
        inode.mode &= !0o2000;
    }
    inode.touch_ctime(now);
    Ok((!acl.is_minimal()).then(|| acl.write()))
}

/// chmod(2) happened: the access list says the same.
pub(crate) fn follow_mode(tx: &mut Tx<'_, '_>, ino: Ino) -> Outcome<()> {
    let Some(mut acl) = stored(tx, ino, ACCESS)? else { return Ok(()) };
    let mode = tx.inode(ino)?.mode;
    acl.set_mode(mode);
    // As long as before, so nothing else follows.
    let key = keys::xattr(tx.id, ino, ACCESS);
    tx.put(key, &Xattr { value: acl.write() });
    Ok(())
}

/// The lists that a new inode gets of its directory.
#[derive(Default)]
pub(crate) struct Inherited {
    access: Option<Vec<u8>>,
    default: Option<Vec<u8>>,
}

impl Inherited {
    /// What a file made in `parent` inherits, and its mode, `asked` for. Without a default list it is the umask that
    /// takes bits away; with one the umask has no say.
    pub(crate) fn of(tx: &mut Tx<'_, '_>, parent: Ino, asked: u32, umask: u32) -> Outcome<(Inherited, u32)> {
        let Some(mut acl) = stored(tx, parent, DEFAULT)? else {
            return Ok((Inherited::default(), asked & !umask));
        };
        let default = Some(acl.write());
        let mode = asked & !PERMISSIONS | acl.inherit(asked & PERMISSIONS);
        let access = (!acl.is_minimal()).then(|| acl.write());
        Ok((Inherited { access, default }, mode))
    }

    /// Stores them beside the new inode.
    pub(crate) fn store(self, tx: &mut Tx<'_, '_>, ino: Ino) -> Outcome<()> {
        let is_dir = tx.inode(ino)?.is_dir();
        let default = self.default.filter(|_| is_dir);
        for (name, value) in [(ACCESS, self.access), (DEFAULT, default)] {
            if let Some(value) = value {
                tx.edit(ino)?.xattr_bytes += (name.len() + value.len()) as u32;
                let key = keys::xattr(tx.id, ino, name);
                tx.put(key, &Xattr { value });
            }
        }
        Ok(())
    }
}

/// Whether a row is a list that its inode can have: for `check`.
pub(crate) fn is_sound(inode: &Inode, name: &[u8], value: &[u8]) -> bool {
    match Acl::read(value) {
        Ok(Some(acl)) if name == ACCESS => !acl.is_minimal() && acl.mode() == inode.mode & PERMISSIONS,
        Ok(Some(_)) => inode.is_dir(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
