//! What was committed in the order of the mount's commands, and what is to be done once that is durable.
//!
//! A commit is answered at once, and its records are freed: it shows, and whatever is done to the file comes after it.
//! What others may only learn when rows of the service say the same waits here: extents that are no garbage any more,
//! and space that was charged and is used now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use meta_client::Place;
use namespace::Attr;
use types::{Errno, ExtentId, Ino};

use crate::space::Charge;
use crate::vfs::Vfs;

/// Commits of one file that are on their way.
#[derive(Debug)]
pub(crate) struct Landing {
    pub(crate) ino: Ino,
    /// Extents that they name.
    pub(crate) ids: Vec<ExtentId>,
    /// Where those start that are shorter than a window of compaction.
    pub(crate) pieces: Vec<u64>,
    /// Bytes that the file took of the volume before, and its attributes after.
    pub(crate) moved: Option<(u64, Attr)>,
    /// What was charged for it.
    pub(crate) charge: Charge,
}

impl Landing {
    /// One that changes nothing yet.
    pub(crate) fn of(ino: Ino) -> Landing {
        Landing { ino, ids: Vec::new(), pieces: Vec::new(), moved: None, charge: Charge::default() }
    }
}

/// In the order in which they become durable. There are never more than commands that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Landings(Mutex<BTreeMap<Place, Vec<Landing>>>);

impl Landings {
    /// Waits for what was put in order up to `place`. Whether nothing was waiting before.
    fn add(&self, place: Place, landing: Landing) -> bool {
        let mut all = self.all();
        let first = all.is_empty();
        all.entry(place).or_default().push(landing);
        first
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Place, Vec<Landing>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vfs {
    /// Does what is to be done once everything that was put in order so far is durable, at once if it is.
    pub(crate) fn land_later(&self, landing: Landing) {
        if self.landings.add(self.session.mark(), landing) {
            // The flusher waits for the first, if nobody else does.
            self.tell_flusher();
        }
        self.land();
    }

    /// Does what waited for what is durable by now.
    pub(crate) fn land(&self) {
        loop {
            let landed = {
                let mut all = self.landings.all();
                match all.first_entry().filter(|first| self.session.is_durable(*first.key())) {
                    Some(first) => first.remove(),
                    None => return,
                }
            };
            for landing in landed {
                landing.ids.iter().for_each(|id| self.extents.committed(*id));
                if let Some((before, attr)) = landing.moved {
                    self.moved(before, &attr);
                    // Not before: the rows that compaction looks at are the service's.
                    self.written_in_pieces(landing.ino, attr.size, &landing.pieces);
                }
                self.give_back(landing.charge);
            }
        }
    }

    /// Resolves when something can land or never will; never while nothing is on its way.
    pub(crate) async fn next_landing(&self) {
        match self.first_landing() {
            Some(place) => self.session.passed(place).await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn first_landing(&self) -> Option<Place> {
        self.landings.all().first_key_value().map(|(place, _)| *place)
    }

    /// How many files have commits that are not durable.
    pub(crate) fn in_the_air(&self) -> usize {
        let all = self.landings.all();
        all.values().flatten().map(|landing| landing.ino).collect::<BTreeSet<Ino>>().len()
    }

    /// Nothing can be stored any more: files with commits that will never be durable. Their extents stay in flight.
    pub(crate) fn take_lost_landings(&self) -> Vec<Ino> {
        self.land();
        let lost = std::mem::take(&mut *self.landings.all());
        lost.into_values().flatten().map(|landing| landing.ino).collect()
    }

    /// Waits until everything that was answered is durable.
    pub(crate) async fn settle(&self) -> Result<(), Errno> {
        self.settle_to(self.session.mark()).await
    }

    /// Waits until everything up to this place is durable.
    pub(crate) async fn settle_to(&self, place: Place) -> Result<(), Errno> {
        self.unless_broken()?;
        let settled = self.session.sync_to(place).await;
        self.land();
        settled.map_err(|error| self.no_answer(&error))
    }
}
