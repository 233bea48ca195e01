//! Files and directories: opened, closed, pinned.

use namespace::{Command, SetAttr};
use types::{Errno, Ino};

use crate::handle::SAMPLE_MASK;
use crate::names::is_directory;
use crate::node::{Node, has_data};
use crate::op::{Ctx, Handle, OpenFlags, Outcome};
use crate::vfs::Vfs;

impl Vfs {
    pub(crate) async fn open(&self, ctx: Ctx, ino: Ino, flags: OpenFlags) -> Result<Outcome, Errno> {
        let node = self.node(ino);
        {
            // Whoever takes the last name meanwhile waits, and then sees that it is open.
            let _pins = node.pins.read().await;
            let attr = self.known_attr(&node).await?;
            if is_directory(&attr) && flags.write {
                return Err(Errno::EISDIR);
            }
            let mut state = node.state();
            if state.is_gone() {
                return Err(Errno::ESTALE);
            }
            state.opens += 1;
        }
        if flags.truncate && flags.write {
            let emptied = SetAttr { size: Some(0), ..SetAttr::default() };
            if let Err(error) = self.setattr(ctx, ino, emptied, ctx.cred.uid != 0).await {
                self.close_one(&node).await;
                return Err(error);
            }
        }
        let handle = self.new_handle(ino, flags);
        if flags.read {
            // Reads from the kernel's cache do not come here. To drop what it has of a file that was just written, only
            // so that it asks, would cost more than an atime that moves without a read.
            self.touch(&node);
        }
        Ok(Outcome::Opened { handle, keep_cache: true, direct: false })
    }

    pub(crate) async fn opendir(&self, ino: Ino) -> Result<Outcome, Errno> {
        let node = self.node(ino);
        let _pins = node.pins.read().await;
        let attr = self.known_attr(&node).await?;
        if !is_directory(&attr) {
            return Err(Errno::ENOTDIR);
        }
        let mut state = node.state();
        if state.is_gone() {
            return Err(Errno::ESTALE);
        }
        state.opens += 1;
        drop(state);
        let flags = OpenFlags { read: true, ..OpenFlags::default() };
        Ok(Outcome::Opened { handle: self.new_handle(ino, flags), keep_cache: true, direct: false })
    }

    /// close(2) of one descriptor: the flush of its data begins, and it hears of what went wrong so far.
    pub(crate) fn close(&self, ino: Ino, handle: Handle) -> Result<Outcome, Errno> {
        let Some(node) = self.table.find(ino) else { return Ok(Outcome::Done) };
        if handle.writes() {
            self.flush_soon(ino);
        }
        self.hear_of_late_error(&node, handle)?;
        // The data is still there and will be tried again, but whoever closes now may not ask again.
        let failing = node.state().failing;
        match failing {
            Some(failing) if handle.writes() => Err(failing.errno),
            _ => Ok(Outcome::Done),
        }
    }

    pub(crate) async fn release(&self, ino: Ino, handle: Handle) -> Result<Outcome, Errno> {
        let Some(node) = self.table.find(ino) else { return Ok(Outcome::Done) };
        node.state().told.retain(|(serial, _)| *serial != handle.serial());
        if handle.writes() {
            self.flush_soon(ino);
        }
        self.close_one(&node).await;
        Ok(Outcome::Done)
    }

    /// One open file less; the last of a nameless inode ends it.
    async fn close_one(&self, node: &Node) {
        let _pins = node.pins.write().await;
        let nameless = {
            let mut state = node.state();
            // After a restart there are handles that this engine did not count.
            state.opens = state.opens.saturating_sub(1);
            state.opens == 0 && !state.is_gone() && state.is_nameless()
        };
        if !nameless {
            return;
        }
        let Ok(attr) = self.known_attr(node).await else { return };
        self.is_gone(node, attr).await;
        if let Err(error) = self.call(Command::Unpin { ino: node.ino }).await {
            // It goes with the session at the latest.
            tracing::debug!(ino = node.ino.0, %error, "an unlinked file was not released");
        }
    }

    pub(crate) async fn fsync(&self, ino: Ino, handle: Handle) -> Result<Outcome, Errno> {
        let node = self.node(ino);
        // The file's name and attributes too: also of one that nobody wrote to.
        let before = self.session.mark();
        self.flush_node(&node).await?;
        // A caller hears of one error at a time; the other one is not forgotten.
        self.hear_of_late_error(&node, handle)?;
        let committed = node.state().committed;
        self.settle_to(committed.map_or(before, |place| place.max(before))).await?;
        Ok(Outcome::Done)
    }

    /// The late error of an inode, if this handle has not heard of it.
    fn hear_of_late_error(&self, node: &Node, handle: Handle) -> Result<(), Errno> {
        let late = self.arena.late_error(node.ino);
        let count = late.count & SAMPLE_MASK;
        let mut state = node.state();
        let told = state.told.iter_mut().find(|(serial, _)| *serial == handle.serial());
        let known = told.as_ref().map_or(handle.sample(), |(_, count)| *count);
        let Some(errno) = late.errno.filter(|_| known != count) else { return Ok(()) };
        match told {
            Some(told) => told.1 = count,
            None => state.told.push((handle.serial(), count)),
        }
        Err(errno)
    }

    /// `EBADF`, `EISDIR` or `EINVAL` unless data can be read or written through the handle.
    pub(crate) fn check_data(&self, attr: &namespace::Attr, allowed: bool) -> Result<(), Errno> {
        match () {
            () if !allowed => Err(Errno::EBADF),
            () if has_data(attr.kind) => Ok(()),
            () if is_directory(attr) => Err(Errno::EISDIR),
            () => Err(Errno::EINVAL),
        }
    }
}
