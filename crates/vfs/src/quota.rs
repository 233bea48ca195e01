//! Quotas of directories: a byte is accepted only where every quota around its file has room for it.
//!
//! The rows count what is stored; what is accepted and not stored yet is counted here, by the label of its file (the
//! nearest directory with a quota). What is known of the rows may be old only towards too much being used: then a
//! close look asks them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use namespace::{Answer, Command, Query, QuotaInfo, Reply};
use types::{Errno, Ino};

use crate::errno;
use crate::node::Node;
use crate::vfs::Vfs;

/// What counts for no quota.
const NONE: Ino = Ino(0);

/// Names that one step counts.
const STEPS: u32 = 1_000;

/// A step that was refused, because the service takes no changes now, is tried again after this.
const RETRY: Duration = Duration::from_millis(500);

/// How often quotas are asked for because something was stored meanwhile.
const LOOKS: u32 = 4;

/// What the mount knows of quotas.
pub(crate) struct Quotas {
    known: Mutex<Known>,
    /// One quota is set or removed at a time.
    change: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    projects: HashMap<Ino, Project>,
    /// What accepted writes may add, by the label that they were charged to.
    charged: HashMap<Ino, u64>,
    /// How often something was stored or deleted.
    moves: u64,
    /// Labels change behind the mount: it asks for them each time.
    counting: bool,
}

#[derive(Clone, Copy)]
struct Project {
    outer: Ino,
    limit: u64,
    used: u64,
    /// The sum of `charged` of its label and of those within.
    charged: u64,
}

impl Known {
    /// The project of a label and those around it; `None` if one is not known.
    fn chain(&self, label: Ino) -> Option<Vec<Ino>> {
        let mut chain = Vec::new();
        let mut at = label;
        while at != NONE {
            let project = self.projects.get(&at)?;
            assert!(chain.len() <= self.projects.len(), "quotas lie in each other");
            chain.push(at);
            at = project.outer;
        }
        Some(chain)
    }

    /// What is known of the chain of a label is changed.
    fn each(&mut self, label: Ino, mut change: impl FnMut(&mut Project)) {
        for at in self.chain(label).unwrap_or_default() {
            self.projects.get_mut(&at).into_iter().for_each(&mut change);
        }
    }

    fn has_room(&self, label: Ino, new: u64) -> bool {
        let chain = self.chain(label);
        chain.is_some_and(|chain| {
            chain.iter().all(|at| {
                let Project { limit, used, charged, .. } = self.projects[at];
                new == 0 || used.saturating_add(charged).saturating_add(new) <= limit
            })
        })
    }

    /// Sums up again what is charged, after projects came or moved.
    fn sum_up(&mut self) {
        self.projects.values_mut().for_each(|project| project.charged = 0);
        for (label, bytes) in self.charged.clone() {
            self.each(label, |project| project.charged += bytes);
        }
    }
}

impl Quotas {
    pub(crate) fn new() -> Quotas {
        // Until the first look nobody knows whether a quota is just being counted.
        let known = Known { counting: true, ..Known::default() };
        Quotas { known: Mutex::new(known), change: tokio::sync::Mutex::new(()) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Charges `growth` bytes to a label if `new` bytes, which are not stored yet, fit for sure.
    pub(crate) fn charge(&self, label: Ino, growth: u64, new: u64) -> bool {
        if label == NONE {
            return true;
        }
        let mut known = self.known();
        let fits = known.has_room(label, new);
        if fits {
            *known.charged.entry(label).or_default() += growth;
            known.each(label, |project| project.charged += growth);
        }
        fits
    }

    /// Gives back what was charged to a label.
    pub(crate) fn release(&self, label: Ino, growth: u64) {
        if label == NONE || growth == 0 {
            return;
        }
        let mut known = self.known();
        let charged = known.charged.get_mut(&label).expect("what is given back was charged");
        *charged = charged.checked_sub(growth).expect("more of a quota was given back than charged");
        if *charged == 0 {
            known.charged.remove(&label);
        }
        known.each(label, |project| project.charged = project.charged.saturating_sub(growth));
    }

    /// What was charged to one label counts for another: the file was given that one meanwhile.
    pub(crate) fn recharge(&self, from: Ino, to: Ino, growth: u64) {
        self.release(from, growth);
        if to != NONE && growth > 0 {
            let mut known = self.known();
            *known.charged.entry(to).or_default() += growth;
            known.each(to, |project| project.charged += growth);
        }
    }

    /// Whether labels change behind the mount just now.
    pub(crate) fn is_counting(&self) -> bool {
        self.known().counting
    }

    /// A file with this label took `before` bytes and takes `after` now.
    pub(crate) fn moved(&self, label: Ino, before: u64, after: u64) {
        if label == NONE {
            return;
        }
        let mut known = self.known();
        known.moves += 1;
        known.each(label, |project| project.used = (project.used + after).saturating_sub(before));
    }

    /// Whether a write of `new` bytes would fit, as far as is known.
    pub(crate) fn has_room(&self, label: Ino, new: u64) -> bool {
        label == NONE || self.known().has_room(label, new)
    }

    /// What accepted writes may add to what counts for this quota.
    pub(crate) fn charged(&self, dir: Ino) -> u64 {
        self.known().projects.get(&dir).map_or(0, |project| project.charged)
    }

    fn learn(&self, quotas: &[QuotaInfo], moves: u64) {
        let mut known = self.known();
        let current = known.moves == moves;
        for quota in quotas {
            let before = known.projects.get(&quota.dir);
            // What was stored since the question was asked has given its charge back, and may not be in the answer.
            let used = match before {
                Some(before) if !current => before.used.max(quota.used_bytes),
                _ => quota.used_bytes,
            };
            let project = Project { outer: quota.outer, limit: quota.limit_bytes, used, charged: 0 };
            known.projects.insert(quota.dir, project);
        }
        known.sum_up();
    }

    /// From now on, or no longer, labels change by themselves. What was known of quotas is asked for anew.
    fn set_counting(&self, counting: bool) {
        let mut known = self.known();
        known.counting = counting;
        known.projects.clear();
    }
}

impl Vfs {
    /// The label that writes to a node are charged to.
    pub(crate) async fn label_of(&self, node: &Node) -> Result<Ino, Errno> {
        if self.quotas.is_counting() {
            let query = Query::GetAttr { volume: self.volume(), ino: node.ino };
            return match self.ask(query).await? {
                Answer::Attr(attr) => Ok(attr.project),
                other => Err(errno::of_wrong_answer(&other)),
            };
        }
        Ok(self.known_attr(node).await?.project)
    }

    /// Asks the rows for the quotas around an inode, the innermost first.
    pub(crate) async fn look_at_quotas(&self, ino: Ino) -> Result<Vec<QuotaInfo>, Errno> {
        let mut looks = 0;
        loop {
            let moves = self.quotas.known().moves;
            let quotas = match self.ask(Query::QuotasOf { volume: self.volume(), ino }).await? {
                Answer::Quotas(quotas) => quotas,
                other => return Err(errno::of_wrong_answer(&other)),
            };
            looks += 1;
            if self.quotas.known().moves == moves || looks == LOOKS {
                self.quotas.learn(&quotas, moves);
                return Ok(quotas);
            }
        }
    }

    /// Sets limits of a directory, or of the volume if it is the root: `None` leaves one as it is, `u64::MAX` is none.
    ///
    /// Durable on return. A directory that had no quota is counted by then as far as one command gets;
    /// [`Vfs::run_counting`] does the rest, and until it is done limits hold for what is counted. `EBUSY` while another
    /// one is being counted, `ENOTDIR`, `ESTALE` if it is gone.
    pub async fn set_quota(&self, dir: Ino, bytes: Option<u64>, inodes: Option<u64>) -> Result<(), Errno> {
        self.change_quota(Command::SetQuota { dir, bytes, inodes }).await
    }

    /// Takes a directory's quota, or the volume's limits, away; `ENODATA` if there are none, `EBUSY` as
    /// [`Vfs::set_quota`].
    pub async fn remove_quota(&self, dir: Ino) -> Result<(), Errno> {
        self.change_quota(Command::RemoveQuota { dir }).await
    }

    async fn change_quota(&self, command: Command) -> Result<(), Errno> {
        self.unless_broken()?;
        let _one = self.quotas.change.lock().await;
        // From here on each write asks what it counts for, and what was accepted before is counted where it lies.
        self.quotas.set_counting(true);
        let flushed = self.flush_everything().await;
        let reply = match flushed {
            Ok(()) => self.call(command).await,
            Err(failed) => Err(failed.errno),
        };
        let is_counting = self.is_counting().await;
        if is_counting == Ok(false) {
            self.counted();
        }
        self.work.notify_one();
        self.counting.notify_one();
        match reply? {
            Reply::Left(_) => is_counting.map(drop),
            other => Err(errno::of_wrong_reply(&other)),
        }
    }

    async fn is_counting(&self) -> Result<bool, Errno> {
        match self.ask(Query::Volume { volume: self.volume() }).await? {
            Answer::Volume(volume) => Ok(volume.counting != NONE),
            other => Err(errno::of_wrong_answer(&other)),
        }
    }

    /// Labels are what they stay: what was remembered of them is forgotten.
    fn counted(&self) {
        self.table.forget_attrs();
        self.quotas.set_counting(false);
    }

    /// Goes on with a quota that is being counted, also one that an earlier start left, and waits for the next.
    /// Dropping it between two steps is safe: the rows know how far it came.
    pub async fn run_counting(&self) {
        loop {
            let next = self.counting.notified();
            if self.count_to_the_end().await.is_err() {
                if self.unless_broken().is_err() {
                    return;
                }
                self.clock.sleep(RETRY).await;
                continue;
            }
            next.await;
        }
    }

    pub(crate) async fn count_to_the_end(&self) -> Result<(), Errno> {
        while self.is_counting().await? {
            self.call(Command::CountQuota { steps: STEPS }).await?;
        }
        let _one = self.quotas.change.lock().await;
        if self.quotas.is_counting() && !self.is_counting().await? {
            // What was accepted under an old label is stored under the new one before that is relied upon.
            self.flush_everything().await.map_err(|failed| failed.errno)?;
            self.counted();
        }
        Ok(())
    }
}
