//! Scrub: every stored byte is read in a period, so that rot is found while another copy can heal it.

mod task;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use extents::{BadCopy, Group, Placement, Slot};
use meta_client::{CallError, MetaService};
use namespace::{Answer, ExtentRow, Query, SlotState};
use serde::{Deserialize, Serialize};
use store::{FragmentInfo, FragmentStore, ListError, ReadError};
use types::{ExtentId, FragmentId};

use crate::copies;

pub use task::Scrubbing;

/// Fragments that are listed, and whose extents are asked for, at once.
const BATCH: usize = 64;

/// Bytes that are read at most before the caller may pause.
const STEP_BYTES: u64 = 1 << 20;

/// However little there is, this much is read in a second: a small disk is done in minutes.
const RATE_MIN: u64 = 1 << 20;

/// Why a step of a scrub failed. It can be repeated.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScrubError {
    /// A store did not list its fragments.
    #[error("listing fragments failed")]
    List(#[from] ListError),
    /// The metadata service did not answer.
    #[error(transparent)]
    Ask(#[from] CallError),
    /// The metadata service answered something else than was asked.
    #[error("the metadata service does not speak our protocol")]
    Protocol,
}

/// How far a scrub has come, as it survives a restart.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubState {
    /// Passes that were finished.
    pub passes: u64,
    /// When the last one was, in seconds since 1970.
    pub last_pass: Option<u64>,
    /// Fragments that the last pass, or the one that is under way, found bad.
    pub bad_in_pass: u64,
    /// Fragments and bytes that the pass under way has read.
    pub fragments: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Where the pass under way goes on: group, slot, and the fragment read last in hexadecimal.
    pub group: u32,
    /// The slot in the group.
    pub slot: u32,
    /// The fragment.
    pub after: Option<String>,
}

impl ScrubState {
    /// Whether no pass is under way.
    pub fn is_between_passes(&self) -> bool {
        (self.fragments, self.group, self.slot) == (0, 0, 0) && self.after.is_none()
    }

    /// Reads a state; none, or one that cannot be read, is a scrub that begins anew: nothing is lost by it but time.
    pub fn load(path: &Path) -> ScrubState {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return ScrubState::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "where the scrub was cannot be read: it begins anew");
                return ScrubState::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "where the scrub was cannot be read: it begins anew");
            ScrubState::default()
        })
    }

    /// Writes it beside the old one and renames it. Not synced: an old state after a power cut reads some bytes again.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let beside = path.with_extension("new");
        std::fs::write(&beside, serde_json::to_vec(self).map_err(std::io::Error::other)?)?;
        std::fs::rename(&beside, path)
    }
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scrubbed {
    /// So many bytes were read.
    Bytes(u64),
    /// That was the end of a pass.
    Pass,
}

/// Reads every copy of every live extent and compares header, blocks and content with the extent's row, step by step,
/// again and again.
///
/// A copy that is bad is told with its extent, once in a pass, and so is one that is missing from a slot that should
/// have everything. Where there are other copies the placement hears of it, so that it is replaced. Fragments without a
/// row are left to [`Sweep`](crate::Sweep): they may be a moment old.
pub struct Scrub {
    placement: Arc<dyn Placement>,
    service: Arc<dyn MetaService>,
    state: ScrubState,
    listed: Vec<(FragmentInfo, ExtentRow)>,
    /// Copies that other slots lack.
    missing: Vec<(usize, ExtentRow)>,
}

/// What is next of a pass.
enum Next {
    /// Copies were listed, or passed over.
    Listed,
    /// Another slot.
    Slot,
    /// Nothing: that was all.
    End,
}

impl Scrub {
    /// A scrub of the groups of `placement` that goes on at `state`.
    pub fn new(placement: Arc<dyn Placement>, service: Arc<dyn MetaService>, state: ScrubState) -> Scrub {
        Scrub { placement, service, state, listed: Vec::new(), missing: Vec::new() }
    }

    /// Where it is.
    pub fn state(&self) -> &ScrubState {
        &self.state
    }

    /// How many bytes must be read in a second so that a pass takes no longer than `period`.
    pub fn rate(&self, period: Duration) -> u64 {
        // A tenth faster: reading takes time too, and the machine is off now and then.
        (self.stored() / 10 * 11 / period.as_secs().max(1)).max(RATE_MIN)
    }

    /// Bytes that are stored on all disks of the groups.
    pub fn stored(&self) -> u64 {
        let groups = self.placement.groups();
        let slots = groups.iter().flat_map(|group| &group.slots);
        let disks: BTreeMap<_, _> =
            slots.filter_map(|slot| slot.store.as_ref().map(|store| (slot.disk, store))).collect();
        let spaces = disks.values().map(|store| store.space());
        spaces.map(|space| space.total.saturating_sub(space.free)).sum()
    }

    /// Reads about a MiB; `now` is in seconds since 1970. After an error the same fragments are read again.
    pub async fn step(&mut self, now: u64) -> Result<Scrubbed, ScrubError> {
        let groups = self.placement.groups();
        let mut read = 0;
        while read < STEP_BYTES {
            let group = groups.iter().find(|group| group.id.0 >= self.state.group);
            if let Some(group) = group {
                if let Some((index, row)) = self.missing.pop() {
                    self.tell(group, index, &row, "it is not there").await;
                    continue;
                }
                if let Some((fragment, row)) = self.listed.pop() {
                    self.check(group, &fragment, &row).await;
                    read += u64::from(fragment.stored_len);
                    continue;
                }
            }
            match self.list(group).await? {
                Next::Listed => {}
                Next::Slot => return Ok(Scrubbed::Bytes(read)),
                Next::End => {
                    self.end(now);
                    return Ok(Scrubbed::Pass);
                }
            }
        }
        Ok(Scrubbed::Bytes(read))
    }

    fn end(&mut self, now: u64) {
        let ScrubState { passes, bad_in_pass, fragments, bytes, .. } = self.state;
        tracing::info!(fragments, bytes, bad = bad_in_pass, "a scrub has read everything");
        let (passes, last_pass) = (passes + 1, Some(now));
        self.state = ScrubState { passes, last_pass, bad_in_pass, ..ScrubState::default() };
    }

    /// Lists more fragments of `group`, the first one that is not done, that live extents need; the first one last.
    async fn list(&mut self, group: Option<&Group>) -> Result<Next, ScrubError> {
        let Some(group) = group else { return Ok(Next::End) };
        if group.id.0 > self.state.group {
            (self.state.group, self.state.slot, self.state.after) = (group.id.0, 0, None);
        }
        if self.state.fragments == 0 {
            self.state.bad_in_pass = 0;
        }
        let at = self.state.slot as usize;
        let Some(slot) = group.slots.get(at) else {
            (self.state.group, self.state.slot, self.state.after) = (group.id.0 + 1, 0, None);
            return Ok(Next::Slot);
        };
        let after = self.state.after.as_deref().and_then(fragment_of_text);
        let listed = match readable(slot) {
            Some(store) => store.list(group.id, after, BATCH).await?,
            // Away or failed: what is on it is copied to others, or told of elsewhere.
            None => Vec::new(),
        };
        let Some(last) = listed.last() else {
            (self.state.slot, self.state.after) = (self.state.slot + 1, None);
            return Ok(Next::Slot);
        };
        let ids: BTreeSet<ExtentId> = listed.iter().map(|fragment| fragment.id.extent).collect();
        let query = Query::ExtentRows { ids: ids.into_iter().collect() };
        let rows: HashMap<ExtentId, ExtentRow> = match self.service.read(query).await? {
            Answer::Extents(rows) => rows.into_iter().map(|row| (row.id, row)).collect(),
            _ => return Err(ScrubError::Protocol),
        };
        let needed = |fragment: &FragmentInfo| {
            let row = rows.get(&fragment.id.extent)?;
            (row.group == fragment.id.group && row.layout == fragment.id.layout).then_some((*fragment, *row))
        };
        let mut needed: Vec<_> = listed.iter().filter_map(needed).collect();
        let missing = missing(group, at, &needed).await?;
        if needed.is_empty() {
            self.state.after = Some(text_of_fragment(last.id));
        }
        needed.reverse();
        (self.listed, self.missing) = (needed, missing);
        Ok(Next::Listed)
    }

    async fn check(&mut self, group: &Group, fragment: &FragmentInfo, row: &ExtentRow) {
        let index = self.state.slot as usize;
        let verdict = match group.slots.get(index).and_then(readable) {
            Some(store) if group.id == row.group => check(store, fragment.id, row).await,
            // The groups have changed since it was listed.
            _ => Ok(()),
        };
        self.state.after = Some(text_of_fragment(fragment.id));
        self.state.fragments += 1;
        self.state.bytes += u64::from(fragment.stored_len);
        if let Err(why) = verdict {
            self.tell(group, index, row, &why).await;
        }
    }

    async fn tell(&mut self, group: &Group, index: usize, row: &ExtentRow, why: &str) {
        // Deleted since it was listed: nobody misses it.
        let alive = self.service.read(Query::ExtentRows { ids: vec![row.id] }).await;
        if matches!(alive, Ok(Answer::Extents(rows)) if rows.is_empty()) {
            return;
        }
        let Some(slot) = group.slots.get(index) else { return };
        self.state.bad_in_pass += 1;
        tracing::error!(extent = %row.id, group = %row.group, disk = %slot.disk, %why, "a stored copy is bad");
        if group.present().count() > 1 {
            self.placement.bad_copy(BadCopy { row: *row, index, disk: slot.disk });
        }
    }
}

/// The store of a slot that may hold copies and answers.
fn readable(slot: &Slot) -> Option<&dyn FragmentStore> {
    slot.store.as_deref().filter(|store| slot.is_present() && !store.has_failed())
}

/// Which of the copies in the slot at `at` are not in others that should have everything. Each is found once: by the
/// first slot that has it.
async fn missing(
    group: &Group,
    at: usize,
    here: &[(FragmentInfo, ExtentRow)],
) -> Result<Vec<(usize, ExtentRow)>, ScrubError> {
    let (mut missing, mut earlier) = (Vec::new(), vec![false; here.len()]);
    for (index, slot) in group.present().filter(|(index, _)| *index != at) {
        let Some(store) = readable(slot).filter(|_| slot.state == SlotState::In) else { continue };
        let ids = here.iter().map(|(_, row)| group.fragment(row.id, row.layout, index)).collect();
        for (n, has) in store.have(ids).await?.into_iter().enumerate() {
            earlier[n] |= has && index < at;
            if !has && !earlier[n] {
                missing.push((index, here[n].1));
            }
        }
    }
    Ok(missing)
}

/// Compares a fragment with its row; says what is wrong.
async fn check(store: &dyn FragmentStore, id: FragmentId, row: &ExtentRow) -> Result<(), String> {
    match store.check(id).await {
        Ok(whole) if copies::is_of(&whole, row) => Ok(()),
        Ok(_) => Err("it holds other content than its extent's row says".to_string()),
        // The disk as a whole is gone, and others tell of that.
        Err(ReadError::Io(device::IoError::Gone)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn text_of_fragment(id: FragmentId) -> String {
    id.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fragment_of_text(text: &str) -> Option<FragmentId> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    FragmentId::from_bytes(&bytes)
}
