//! Scrub: every stored byte is read in a period, so that rot is found while another copy can heal it.

mod task;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use checksum::{block_crcs, content_crc};
use extents::Group;
use meta_client::{CallError, MetaService};
use namespace::{Answer, ExtentRow, Query};
use serde::{Deserialize, Serialize};
use store::{FragmentInfo, FragmentStore, ListError, ReadError};
use types::{ExtentId, FragmentId};

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

/// Reads every fragment of a live extent and compares header, blocks and content with the extent's row, step by step,
/// again and again.
///
/// A fragment that is bad is told with its extent, once in a pass. Fragments without a row are left to
/// [`Sweep`](crate::Sweep): they may be a moment old.
pub struct Scrub {
    groups: Vec<Group>,
    service: Arc<dyn MetaService>,
    state: ScrubState,
    listed: Vec<(FragmentInfo, ExtentRow)>,
}

impl Scrub {
    /// A scrub that goes on at `state`.
    pub fn new(groups: Vec<Group>, service: Arc<dyn MetaService>, state: ScrubState) -> Scrub {
        Scrub { groups, service, state, listed: Vec::new() }
    }

    /// Where it is.
    pub fn state(&self) -> &ScrubState {
        &self.state
    }

    /// How many bytes it must read in a second so that a pass takes no longer than `period`.
    pub fn rate(&self, period: Duration) -> u64 {
        // A tenth faster: reading takes time too, and the machine is off now and then.
        (self.stored() / 10 * 11 / period.as_secs().max(1)).max(RATE_MIN)
    }

    /// Bytes that are stored in all slots.
    pub fn stored(&self) -> u64 {
        let spaces = self.groups.iter().flat_map(|group| &group.slots).map(|slot| slot.space());
        spaces.map(|space| space.total.saturating_sub(space.free)).sum()
    }

    /// Reads about a MiB; `now` is in seconds since 1970. After an error the same fragments are read again.
    pub async fn step(&mut self, now: u64) -> Result<Scrubbed, ScrubError> {
        let mut read = 0;
        while read < STEP_BYTES {
            let Some((fragment, row)) = self.listed.pop() else {
                match self.list().await? {
                    Listed::More => continue,
                    Listed::NextSlot => return Ok(Scrubbed::Bytes(read)),
                    Listed::End => {
                        let passes = self.state.passes + 1;
                        let bad_in_pass = self.state.bad_in_pass;
                        let (fragments, bytes) = (self.state.fragments, self.state.bytes);
                        tracing::info!(fragments, bytes, bad = bad_in_pass, "a scrub has read everything");
                        self.state =
                            ScrubState { passes, last_pass: Some(now), bad_in_pass, ..ScrubState::default() };
                        return Ok(Scrubbed::Pass);
                    }
                }
            };
            self.check(&fragment, &row).await;
            read += u64::from(fragment.stored_len);
        }
        Ok(Scrubbed::Bytes(read))
    }

    /// Lists more fragments that live extents need, the first one last.
    async fn list(&mut self) -> Result<Listed, ScrubError> {
        let Some(group) = self.groups.iter().find(|group| group.id.0 >= self.state.group) else {
            return Ok(Listed::End);
        };
        if group.id.0 > self.state.group {
            (self.state.group, self.state.slot, self.state.after) = (group.id.0, 0, None);
        }
        if self.state.fragments == 0 {
            self.state.bad_in_pass = 0;
        }
        let Some(store) = group.slots.get(self.state.slot as usize) else {
            (self.state.group, self.state.slot, self.state.after) = (group.id.0 + 1, 0, None);
            return Ok(Listed::NextSlot);
        };
        let after = self.state.after.as_deref().and_then(fragment_of_text);
        let listed = store.list(group.id, after, BATCH).await?;
        let Some(last) = listed.last() else {
            (self.state.slot, self.state.after) = (self.state.slot + 1, None);
            return Ok(Listed::NextSlot);
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
        needed.reverse();
        if needed.is_empty() {
            self.state.after = Some(text_of_fragment(last.id));
        }
        self.listed = needed;
        Ok(Listed::More)
    }

    async fn check(&mut self, fragment: &FragmentInfo, row: &ExtentRow) {
        let group = self.groups.iter().find(|group| group.id == fragment.id.group);
        let store = group.and_then(|group| group.slots.get(self.state.slot as usize));
        let verdict = match store {
            Some(store) => check(store.as_ref(), fragment.id, row).await,
            None => Ok(()),
        };
        self.state.after = Some(text_of_fragment(fragment.id));
        self.state.fragments += 1;
        self.state.bytes += u64::from(fragment.stored_len);
        let Err(why) = verdict else { return };
        // Deleted since it was listed: nobody misses it.
        let ids = vec![row.id];
        let alive = self.service.read(Query::ExtentRows { ids }).await;
        if !matches!(alive, Ok(Answer::Extents(rows)) if rows.is_empty()) {
            self.state.bad_in_pass += 1;
            tracing::error!(extent = %row.id, group = %row.group, slot = self.state.slot, %why, "a stored copy is bad");
        }
    }
}

/// What listing led to.
enum Listed {
    More,
    NextSlot,
    End,
}

/// Compares a fragment with its row; says what is wrong.
async fn check(store: &dyn FragmentStore, id: FragmentId, row: &ExtentRow) -> Result<(), String> {
    match store.read(id, 0..row.stored_len).await {
        Ok(verified) => {
            let bytes: Vec<u8> = verified.blocks.iter().flat_map(|buf| buf.iter().copied()).collect();
            let stored = bytes.get(verified.range).unwrap_or_default();
            match content_crc(&block_crcs(stored)) == row.content_crc {
                true => Ok(()),
                false => Err("it holds other content than its extent's row says".to_string()),
            }
        }
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
