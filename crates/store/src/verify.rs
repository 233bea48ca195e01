//! Reading everything on a disk, for `fsck`.

use device::IoError;
use types::FragmentId;

use crate::fragments::ReadError;
use crate::index::SHARDS;
use crate::store::Store;

/// How far a verification is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Fragments that were read.
    pub fragments: u64,
    /// Fragments in all, as far as known when it began.
    pub fragments_total: u64,
    /// Bytes that were read, headers included.
    pub bytes: u64,
}

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Fragments that were read.
    pub fragments: u64,
    /// Bytes that were read, headers included.
    pub bytes: u64,
    /// Fragments that are not what was written, or cannot be read, each with why.
    pub damaged: Vec<(FragmentId, ReadError)>,
    /// Fragments whose blocks the allocator takes for free: a bug of ours.
    pub not_allocated: Vec<FragmentId>,
    /// Blocks that the allocator takes for used and that no fragment has and that are not withheld: a bug of ours. Only meaningful while nothing is
    /// put or deleted.
    pub blocks_leaked: u64,
}

impl VerifyReport {
    /// Whether everything is as it should be.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.not_allocated.is_empty() && self.blocks_leaked == 0
    }
}

impl Store {
    /// Reads every fragment with all its checksums, and compares the allocator with the index. Fragments that are put
    /// meanwhile may be missed. `progress` is called after each one.
    pub async fn verify(&self, mut progress: impl FnMut(Progress) + Send) -> Result<VerifyReport, IoError> {
        let shared = &self.shared;
        let mut report = VerifyReport::default();
        let mut blocks = 0;
        let fragments_total = shared.index.len();
        for shard in 0..SHARDS {
            for (id, _) in shared.index.copy_shard(shard) {
                let Some(pinned) = shared.pin(id) else { continue };
                let run = pinned.entry.run();
                blocks += u64::from(run.blocks);
                if !shared.is_taken(run) {
                    report.not_allocated.push(id);
                }
                match shared.verify_fragment(id, pinned.entry).await {
                    Ok(_) => {}
                    Err(ReadError::Io(IoError::Gone)) => return Err(IoError::Gone),
                    Err(error) => report.damaged.push((id, error)),
                }
                report.fragments += 1;
                report.bytes += u64::from(run.blocks) * types::BLOCK;
                progress(Progress { fragments: report.fragments, fragments_total, bytes: report.bytes });
            }
        }
        let withheld = shared.bad.bytes() / types::BLOCK;
        report.blocks_leaked = shared.alloc.used().saturating_sub(blocks + withheld);
        Ok(report)
    }
}
