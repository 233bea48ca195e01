//! Attributes: answered, changed, remembered.

use std::time::Duration;

use arena::Summary;
use namespace::{Answer, Attr, Command, FileKind, Query, Reply, SetAttr};
use types::{Errno, Ino};

use crate::errno;
use crate::node::{Node, has_data};
use crate::op::{Ctx, Outcome, TimeToLive};
use crate::vfs::Vfs;

/// The most bytes of a file.
pub(crate) const SIZE_MAX: u64 = i64::MAX as u64;

/// How long the kernel may keep a name, or that there is none. Names change through this mount only, and the kernel
/// drops what its own calls change.
const NAME_TTL: Duration = Duration::from_secs(3600);

/// How long the kernel may keep attributes that do not change by themselves. It drops them where its own calls change
/// them. What remains is a reply that is overtaken, on its way to the kernel, by the reply to a change; for the
/// inode that a call is about the kernel sees that by itself, for the directory of a name it does not. So the time
/// bounds how long such an accident lasts.
const ATTR_TTL: Duration = Duration::from_secs(60);

/// As [`ATTR_TTL`], for directories.
const DIRECTORY_TTL: Duration = Duration::from_secs(1);

impl Vfs {
    pub(crate) async fn getattr(&self, ino: Ino) -> Result<Outcome, Errno> {
        let node = self.node(ino);
        self.known_attr(&node).await?;
        let (attr, ttl) = self.shown(&node).await?;
        Ok(Outcome::Attr { attr, ttl: ttl.attr })
    }

    /// The attributes of the rows, remembered or asked for.
    pub(crate) async fn known_attr(&self, node: &Node) -> Result<Attr, Errno> {
        if let Some(attr) = node.state().attr() {
            return Ok(attr);
        }
        self.fetch_attr(node).await
    }

    async fn fetch_attr(&self, node: &Node) -> Result<Attr, Errno> {
        let asked = self.table.asked();
        match self.ask(Query::GetAttr { volume: self.volume(), ino: node.ino }).await? {
            Answer::Attr(attr) => {
                node.state().store(asked, attr);
                Ok(attr)
            }
            other => Err(errno::of_wrong_answer(&other)),
        }
    }

    /// The attributes as a caller sees them, and for how long.
    pub(crate) async fn shown(&self, node: &Node) -> Result<(Attr, TimeToLive), Errno> {
        let attr = self.known_attr(node).await?;
        Ok(self.show(node, attr))
    }

    /// As [`Vfs::shown`], of attributes that were just answered.
    pub(crate) fn show(&self, node: &Node, attr: Attr) -> (Attr, TimeToLive) {
        let dirty = if has_data(attr.kind) { self.arena.summary(node.ino) } else { None };
        let state = node.state();
        // What is remembered may be newer by now, and what is not remembered may be old already.
        let remembered = state.attr();
        let newest = remembered.filter(|known| known.change >= attr.change).unwrap_or(attr);
        let settled = remembered.is_some() && state.is_settled(dirty.as_ref());
        let attr_ttl = match newest.kind {
            _ if !settled => Duration::ZERO,
            FileKind::Directory => DIRECTORY_TTL,
            _ => ATTR_TTL,
        };
        (state.shown(newest, dirty.as_ref(), self.now()), TimeToLive { entry: NAME_TTL, attr: attr_ttl })
    }

    /// How long the kernel may remember that there is no such name.
    pub(crate) fn absent_ttl(&self) -> Duration {
        NAME_TTL
    }

    /// The size of a file as a caller sees it.
    pub(crate) fn size_shown(attr: &Attr, dirty: Option<&Summary>) -> u64 {
        dirty.map_or(attr.size, |dirty| attr.size.max(dirty.end))
    }

    pub(crate) async fn setattr(
        &self,
        ctx: Ctx,
        ino: Ino,
        set: SetAttr,
        kill_priv: bool,
    ) -> Result<Outcome, Errno> {
        self.unless_broken()?;
        if set.size.is_some_and(|size| size > SIZE_MAX) {
            return Err(Errno::EFBIG);
        }
        let node = self.node(ino);
        // No write is accepted, and no atime stored, while the attributes change.
        let _alone = node.size.write().await;
        let attr = if set == SetAttr::default() && !kill_priv {
            self.known_attr(&node).await?
        } else {
            self.change_attr(ctx, &node, set, kill_priv).await?
        };
        let (attr, ttl) = self.show(&node, attr);
        Ok(Outcome::Attr { attr, ttl: ttl.attr })
    }

    /// Changes attributes of a node whose `size` lock the caller has alone.
    async fn change_attr(&self, ctx: Ctx, node: &Node, set: SetAttr, kill_priv: bool) -> Result<Attr, Errno> {
        let no_flush = node.flush.lock().await;
        let dirty = self.arena.summary(node.ino);
        let emptied = set.size == Some(0);
        // A later commit would take back a size that is set now, or bits that a pending one clears.
        let order_matters = set.size.is_some() || node.state().kill_priv.is_some();
        if dirty.is_some() && !emptied && order_matters {
            self.flush_all_of(node, &no_flush).await?;
        }
        let applied = match (set.size, &dirty) {
            (Some(_), Some(dirty)) => Some((dirty.grant, dirty.last)),
            _ => None,
        };
        let kill_priv = kill_priv || (emptied && node.state().kill_priv.is_some());
        let asked = self.table.asked();
        let before = match set.size {
            Some(_) => Some(self.known_attr(node).await?.allocated),
            None => None,
        };
        if set.mtime.is_some()
            && let Err(error) = self.arena.times_are_set(node.ino)
        {
            // Before the command: if the engine dies in between, whoever asked asks again.
            tracing::warn!(ino = node.ino.0, %error, "after a death of the engine a time may be that of a write");
        }
        let command = Command::SetAttr { ino: node.ino, set, kill_priv, applied, cred: ctx.cred };
        let attr = match self.call(command).await? {
            Reply::Attr(attr) => attr,
            other => return Err(errno::of_wrong_reply(&other)),
        };
        {
            let mut state = node.state();
            state.store(asked, attr);
            if set.atime.is_some() {
                state.touched = None;
            }
            if let (Some(_), Some(dirty)) = (set.mtime, &dirty) {
                state.set_times(dirty.last);
            }
        }
        if let Some(before) = before {
            self.moved(before, &attr);
        }
        if let (true, Some(dirty)) = (emptied, &dirty) {
            self.drop_records(node, dirty.last);
        }
        Ok(attr)
    }

    /// Notes that a file was read: its atime shows at once, and is stored by the flusher.
    pub(crate) fn touch(&self, node: &Node) {
        /// More reads than that in one round leave some atimes as they were, as relatime may.
        const TOUCHED_MAX: usize = 4096;
        let now = self.now();
        let dirty = self.arena.summary(node.ino);
        let mut state = node.state();
        let Some(attr) = state.attr() else { return };
        let shown = state.shown(attr, dirty.as_ref(), now);
        if state.touched.is_some() || !state.is_due_for_touch(&shown, now) || self.broken.get().is_some() {
            return;
        }
        let mut touched = self.touched.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if touched.len() < TOUCHED_MAX {
            touched.insert(node.ino);
            state.touched = Some(now);
        }
    }

    /// Stores the atime of a node that was read.
    pub(crate) async fn store_touch(&self, node: &Node) {
        // A utimes call must not be overtaken by a read that came before it.
        let _not_while_set = node.size.read().await;
        let Some(at) = node.state().touched else { return self.touch_is_done(node) };
        // Whether the atime moves is judged by the mtime, which must be in the rows for that.
        let _told_elsewhere = self.flush_node(node).await;
        let asked = self.table.asked();
        let reply = self.call(Command::Touch { ino: node.ino, at }).await;
        let stored = match reply {
            Ok(Reply::Attr(attr)) => Some(attr),
            Ok(other) => {
                errno::of_wrong_reply(&other);
                None
            }
            // An atime that is lost is no error to anybody; a session that ended has been told of.
            Err(error) => {
                tracing::debug!(ino = node.ino.0, %error, "an atime was not stored");
                None
            }
        };
        {
            let mut state = node.state();
            if let Some(attr) = stored {
                state.store(asked, attr);
            }
            state.touched = state.touched.filter(|touched| *touched > at);
        }
        self.touch_is_done(node);
    }

    /// The node's atime is stored, or need not be, unless it was read again.
    fn touch_is_done(&self, node: &Node) {
        let state = node.state();
        if state.touched.is_none() {
            self.touched.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&node.ino);
        }
    }
}
