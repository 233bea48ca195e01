//! Names: looked up, made, taken away, moved.

use namespace::{Answer, Attr, Command, FileKind, NewKind, Query, RenameMode, Reply};
use types::{Errno, Ino};

use crate::errno;
use crate::node::{Asked, Node};
use crate::op::{Ctx, Handle, OpenFlags, Outcome, RenameFlags};
use crate::table::NodeRef;
use crate::vfs::Vfs;

/// The longest name, in bytes.
const NAME_MAX: usize = 255;

/// A name that can be made or taken away.
fn check_name(name: &[u8]) -> Result<(), Errno> {
    match name {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EINVAL),
        _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ if name.contains(&b'/') || name.contains(&0) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

impl Vfs {
    pub(crate) async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Outcome, Errno> {
        let query = match name {
            b"." => Query::GetAttr { volume: self.volume(), ino: parent },
            b".." => Query::GetAttr { volume: self.volume(), ino: self.parent_of(parent).await? },
            _ if name.len() > NAME_MAX => return Err(Errno::ENAMETOOLONG),
            _ => Query::Lookup { volume: self.volume(), parent, name: name.to_vec() },
        };
        let asked = self.table.asked();
        match self.ask(query).await {
            Ok(Answer::Attr(attr)) => Ok(self.entry(asked, attr)),
            Ok(other) => Err(errno::of_wrong_answer(&other)),
            Err(Errno::ENOENT) => Ok(Outcome::NoEntry { ttl: self.absent_ttl() }),
            Err(error) => Err(error),
        }
    }

    /// Counts one reference of the kernel to an inode that was answered, and shows it.
    fn entry(&self, asked: Asked, attr: Attr) -> Outcome {
        let node = self.refer(asked, attr);
        let (attr, ttl) = self.show(&node, attr);
        Outcome::Entry { attr, ttl }
    }

    /// Counts a reference of the kernel to the inode with these attributes.
    pub(crate) fn refer(&self, asked: Asked, attr: Attr) -> NodeRef<'_> {
        let node = self.node(attr.ino);
        let mut state = node.state();
        state.lookups += 1;
        state.store(asked, attr);
        drop(state);
        node
    }

    pub(crate) async fn parent_of(&self, ino: Ino) -> Result<Ino, Errno> {
        match self.ask(Query::Parent { volume: self.volume(), ino }).await? {
            Answer::Parent(parent) => Ok(parent),
            other => Err(errno::of_wrong_answer(&other)),
        }
    }

    pub(crate) fn forget(&self, ino: Ino, count: u64) -> Result<Outcome, Errno> {
        if let Some(node) = self.table.find(ino) {
            let mut state = node.state();
            // After a restart the kernel gives back more than this engine counted.
            // All references at once, those that an earlier node counted among them.
            state.lookups = state.lookups.saturating_sub(count);
            state.may_be_referred_to = false;
        }
        Ok(Outcome::Done)
    }

    pub(crate) async fn readlink(&self, ino: Ino) -> Result<Outcome, Errno> {
        match self.ask(Query::ReadLink { volume: self.volume(), ino }).await? {
            Answer::Bytes(target) => {
                let node = self.node(ino);
                self.touch(&node);
                Ok(Outcome::Bytes(target))
            }
            other => Err(errno::of_wrong_answer(&other)),
        }
    }

    #[allow(clippy::too_many_arguments)] // they are those of the system call
    pub(crate) async fn create(
        &self,
        ctx: Ctx,
        parent: Ino,
        name: Vec<u8>,
        kind: NewKind,
        mode: u32,
        umask: u32,
        open: Option<OpenFlags>,
    ) -> Result<Outcome, Errno> {
        self.unless_broken()?;
        check_name(&name)?;
        let directory = self.node(parent);
        let _name = self.lock_name(parent, &name).await;
        let changing = directory.change();
        let command = Command::Create { parent, name, kind, mode, umask, cred: ctx.cred };
        let asked = self.table.asked();
        let reply = self.call(command).await?;
        drop(changing);
        let attr = match reply {
            Reply::Attr(attr) => attr,
            other => return Err(errno::of_wrong_reply(&other)),
        };
        let Some(flags) = open else { return Ok(self.entry(asked, attr)) };
        let node = self.refer(asked, attr);
        node.state().opens += 1;
        let (attr, ttl) = self.show(&node, attr);
        let handle = self.new_handle(attr.ino, flags);
        Ok(Outcome::Created { attr, ttl, handle, keep_cache: true, direct: false })
    }

    pub(crate) async fn link(&self, ino: Ino, parent: Ino, name: Vec<u8>) -> Result<Outcome, Errno> {
        self.unless_broken()?;
        check_name(&name)?;
        let (node, directory) = (self.node(ino), self.node(parent));
        let _name = self.lock_name(parent, &name).await;
        // Its last name must not go meanwhile with another idea of who has it open.
        let _pins = node.pins.read().await;
        let changing = directory.change();
        let asked = self.table.asked();
        let reply = self.call(Command::Link { ino, parent, name }).await?;
        drop(changing);
        match reply {
            Reply::Attr(attr) => Ok(self.entry(asked, attr)),
            other => Err(errno::of_wrong_reply(&other)),
        }
    }

    /// What a name stands for now. The caller holds the name's lock, so it stays so.
    async fn named(&self, parent: Ino, name: &[u8]) -> Result<Option<Ino>, Errno> {
        let query = Query::Lookup { volume: self.volume(), parent, name: name.to_vec() };
        match self.ask(query).await {
            Ok(Answer::Attr(attr)) => Ok(Some(attr.ino)),
            Ok(other) => Err(errno::of_wrong_answer(&other)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// unlink(2), or rmdir(2) of a `directory`.
    pub(crate) async fn unlink(
        &self,
        ctx: Ctx,
        parent: Ino,
        name: Vec<u8>,
        directory: bool,
    ) -> Result<Outcome, Errno> {
        self.unless_broken()?;
        match name.as_slice() {
            b"." if directory => return Err(Errno::EINVAL),
            b".." if directory => return Err(Errno::ENOTEMPTY),
            b"." | b".." => return Err(Errno::EISDIR),
            _ => check_name(&name)?,
        }
        let within = self.node(parent);
        let _name = self.lock_name(parent, &name).await;
        let cred = ctx.cred;
        let remove = |name, pinned| match directory {
            true => Command::Rmdir { parent, name, pinned, cred },
            false => Command::Unlink { parent, name, pinned, cred },
        };
        let changing = within.change();
        let asked = self.table.asked();
        // Nearly always nobody has it open and nothing of it is left to be stored.
        let mut agree = |reply: &Reply| self.may_go(reply);
        if let Some(reply) = self.call_if(remove(name.clone(), false), &mut agree).await? {
            drop(changing);
            let Reply::Removed(attr) = reply else { return Err(errno::of_wrong_reply(&reply)) };
            self.lost_a_name(&self.node(attr.ino), asked, attr, false).await;
            return Ok(Outcome::Done);
        }
        drop(changing);
        let victim = self.named(parent, &name).await?.ok_or(Errno::ENOENT)?;
        let victim = self.node(victim);
        // An open that comes now waits: it then finds the inode pinned, or gone.
        let _pins = victim.pins.write().await;
        let pinned = victim.state().opens > 0;
        let changing = within.change();
        let asked = self.table.asked();
        let reply = self.call(remove(name, pinned)).await?;
        drop(changing);
        match reply {
            Reply::Removed(attr) => self.lost_a_name(&victim, asked, attr, pinned).await,
            other => return Err(errno::of_wrong_reply(&other)),
        }
        Ok(Outcome::Done)
    }

    /// Whether a name can go without a look at who has the inode open. If it is its last one, the inode is gone from
    /// here on: an open that is under way finds it so, as it looks and counts itself in one step.
    fn may_go(&self, reply: &Reply) -> bool {
        let Reply::Removed(attr) = reply else { return false };
        if attr.nlink > 0 {
            return true;
        }
        let node = self.node(attr.ino);
        if self.arena.summary(attr.ino).is_some() {
            return false;
        }
        let mut state = node.state();
        if state.opens > 0 {
            return false;
        }
        state.set_gone(*attr);
        true
    }

    /// A node has the attributes `attr` after one of its names went.
    async fn lost_a_name(&self, node: &Node, asked: Asked, attr: Attr, pinned: bool) {
        if attr.nlink > 0 || pinned {
            if attr.nlink == 0 {
                node.state().set_nameless();
            }
            self.table.store_change(node, asked, attr);
        } else {
            self.is_gone(node, attr).await;
        }
    }

    /// A node has neither a name nor somebody who has it open: what was accepted for it is nobody's.
    pub(crate) async fn is_gone(&self, node: &Node, attr: Attr) {
        let _no_flush = node.flush.lock().await;
        let dirty = self.arena.summary(node.ino);
        let mut shown = attr;
        shown.size = Vfs::size_shown(&attr, dirty.as_ref());
        self.space.shrank();
        node.state().set_gone(shown);
        if let Some(dirty) = dirty {
            self.drop_records(node, dirty.last);
        }
    }

    pub(crate) async fn rename(
        &self,
        ctx: Ctx,
        (parent, name): (Ino, Vec<u8>),
        (new_parent, new_name): (Ino, Vec<u8>),
        flags: RenameFlags,
    ) -> Result<Outcome, Errno> {
        self.unless_broken()?;
        let mode = rename_mode(flags)?;
        for name in [&name, &new_name] {
            match name.as_slice() {
                b"." | b".." => return Err(Errno::EBUSY),
                _ => check_name(name)?,
            }
        }
        let (from, to) = (self.node(parent), self.node(new_parent));
        let _names = self.lock_names((parent, &name), (new_parent, &new_name)).await;
        let cred = ctx.cred;
        let rename = |(name, new_name), pinned| Command::Rename {
            parent,
            name,
            new_parent,
            new_name,
            mode,
            pinned,
            cred,
        };
        let changing = (from.change(), to.change());
        let asked = self.table.asked();
        let mut agree = |reply: &Reply| matches!(reply, Reply::Renamed { other, .. } if other.is_none() || !mode_replaces(mode));
        let command = rename((name.clone(), new_name.clone()), false);
        if let Some(reply) = self.call_if(command, &mut agree).await? {
            drop(changing);
            let Reply::Renamed { moved, other } = reply else { return Err(errno::of_wrong_reply(&reply)) };
            for attr in [Some(moved), other].into_iter().flatten() {
                self.table.store_change(&self.node(attr.ino), asked, attr);
            }
            return Ok(Outcome::Done);
        }
        drop(changing);
        let moved = self.named(parent, &name).await?.ok_or(Errno::ENOENT)?;
        let there = self.named(new_parent, &new_name).await?;
        let moved = self.node(moved);
        let replaced = there.filter(|ino| *ino != moved.ino && mode_replaces(mode));
        let replaced = replaced.map(|ino| self.node(ino));
        if replaced.is_some() && self.arena.summary(moved.ino).is_some() {
            // Programs write a new file and rename it over the old one: a power cut must leave one of the two. What is
            // committed before it becomes durable before it.
            let no_flush = moved.flush.lock().await;
            self.flush_all_of(&moved, &no_flush).await?;
        }
        let _pins = match &replaced {
            Some(node) => Some(node.pins.write().await),
            None => None,
        };
        let pinned = replaced.as_ref().is_some_and(|node| node.state().opens > 0);
        let changing = (from.change(), to.change());
        let asked = self.table.asked();
        let reply = self.call(rename((name, new_name), pinned)).await?;
        drop(changing);
        let Reply::Renamed { moved: attr, other } = reply else {
            return Err(errno::of_wrong_reply(&reply));
        };
        moved.state().store(asked, attr);
        match (other, &replaced) {
            (Some(attr), Some(node)) if attr.ino == node.ino => {
                self.lost_a_name(node, asked, attr, pinned).await
            }
            (Some(attr), _) => self.table.store_change(&self.node(attr.ino), asked, attr),
            (None, _) => {}
        }
        Ok(Outcome::Done)
    }

    /// A handle for an inode that is open once more.
    pub(crate) fn new_handle(&self, ino: Ino, flags: OpenFlags) -> Handle {
        Handle::new(flags, self.arena.late_error(ino).count, self.next_serial())
    }
}

fn mode_replaces(mode: RenameMode) -> bool {
    matches!(mode, RenameMode::Replace | RenameMode::Whiteout)
}

/// The combinations that renameat2(2) allows.
fn rename_mode(flags: RenameFlags) -> Result<RenameMode, Errno> {
    match (flags.no_replace, flags.exchange, flags.whiteout) {
        (false, false, false) => Ok(RenameMode::Replace),
        (true, false, false) => Ok(RenameMode::NoReplace),
        (false, true, false) => Ok(RenameMode::Exchange),
        (false, false, true) => Ok(RenameMode::Whiteout),
        (true, false, true) => Ok(RenameMode::NoReplaceWhiteout),
        (_, true, _) => Err(Errno::EINVAL),
    }
}

/// Whether opening it is opening a directory.
pub(crate) fn is_directory(attr: &Attr) -> bool {
    attr.kind == FileKind::Directory
}
