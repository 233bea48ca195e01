//! Extended attributes.

use namespace::{Answer, Command, Query, Reply, XattrMode};
use types::{Errno, Ino};

use crate::errno;
use crate::op::{Ctx, Outcome};
use crate::vfs::Vfs;

/// As Linux has them (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX`).
const NAME_MAX: usize = 255;
const VALUE_MAX: usize = 65_536;

/// Access control lists, which the kernel enforces; see acl(5).
const LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// What can be stored. Other `system.` attributes mean something to the kernel, and not to us.
fn check_name(name: &[u8]) -> Result<(), Errno> {
    if LISTS.contains(&name) {
        return Ok(());
    }
    let prefix =
        [&b"user."[..], b"trusted.", b"security."].into_iter().find(|prefix| name.starts_with(prefix));
    match prefix {
        None => Err(Errno::EOPNOTSUPP),
        Some(prefix) if name.len() == prefix.len() => Err(Errno::EINVAL),
        Some(_) if name.len() > NAME_MAX => Err(Errno::ERANGE),
        Some(_) => Ok(()),
    }
}

impl Vfs {
    pub(crate) async fn setxattr(
        &self,
        ctx: Ctx,
        ino: Ino,
        name: Vec<u8>,
        value: Vec<u8>,
        mode: XattrMode,
    ) -> Result<Outcome, Errno> {
        self.unless_broken()?;
        check_name(&name)?;
        if value.len() > VALUE_MAX {
            return Err(Errno::E2BIG);
        }
        self.change_xattr(ino, Command::SetXattr { ino, name, value, mode, cred: ctx.cred }).await
    }

    pub(crate) async fn removexattr(&self, ctx: Ctx, ino: Ino, name: Vec<u8>) -> Result<Outcome, Errno> {
        self.unless_broken()?;
        check_name(&name)?;
        self.change_xattr(ino, Command::RemoveXattr { ino, name, cred: ctx.cred }).await
    }

    async fn change_xattr(&self, ino: Ino, command: Command) -> Result<Outcome, Errno> {
        let node = self.node(ino);
        let _alone = node.size.write().await;
        if node.state().kill_priv.is_some() {
            // A write that is to clear capabilities must not clear those that are set now.
            let no_flush = node.flush.lock().await;
            self.flush_all_of(&node, &no_flush).await?;
        }
        // It moves the ctime.
        let changing = node.change();
        let reply = self.call(command).await?;
        drop(changing);
        match reply {
            Reply::Done | Reply::Attr(_) => Ok(Outcome::Done),
            other => Err(errno::of_wrong_reply(&other)),
        }
    }

    pub(crate) async fn getxattr(&self, ino: Ino, name: Vec<u8>) -> Result<Outcome, Errno> {
        check_name(&name)?;
        if name == b"security.capability"
            && self.table.find(ino).is_some_and(|node| node.state().kill_priv.is_some())
        {
            return Err(Errno::ENODATA);
        }
        match self.ask(Query::GetXattr { volume: self.volume(), ino, name }).await? {
            Answer::Bytes(value) => Ok(Outcome::Bytes(value)),
            other => Err(errno::of_wrong_answer(&other)),
        }
    }

    pub(crate) async fn listxattr(&self, ctx: Ctx, ino: Ino) -> Result<Outcome, Errno> {
        match self.ask(Query::ListXattr { volume: self.volume(), ino }).await? {
            Answer::Names(mut names) => {
                // Only the privileged see these, says xattr(7).
                if ctx.cred.uid != 0 {
                    names.retain(|name| !name.starts_with(b"trusted."));
                }
                Ok(Outcome::Names(names))
            }
            other => Err(errno::of_wrong_answer(&other)),
        }
    }
}
