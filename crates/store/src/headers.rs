//! A bounded cache of what fragments' headers say of their blocks.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::header::Header;
use crate::index::Entry;

/// How many headers are kept: about a KiB each.
const HEADERS_MAX: usize = 4096;

/// Where a header is and its checksum. A block that is reused has another checksum, so nothing here can be stale.
type Key = (u64, u32);

/// Verified headers; the oldest one goes when there is no room.
#[derive(Default)]
pub(crate) struct HeaderCache {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    headers: HashMap<Key, Arc<Header>>,
    order: VecDeque<Key>,
}

fn key(entry: &Entry) -> Key {
    (entry.block, entry.header_crc)
}

impl HeaderCache {
    pub(crate) fn get(&self, entry: &Entry) -> Option<Arc<Header>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).headers.get(&key(entry)).cloned()
    }

    /// Keeps a header that was verified against its entry. Small fragments are not kept: their data lies in the
    /// header's block, which is read anyway.
    pub(crate) fn keep(&self, entry: &Entry, header: Arc<Header>) {
        if header.is_inline() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.headers.insert(key(entry), header).is_none() {
            kept.order.push_back(key(entry));
            if kept.order.len() > HEADERS_MAX
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.headers.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HEADERS_MAX, HeaderCache};
    use crate::header::Header;
    use crate::index::Entry;
    use crate::layout::DiskId;
    use std::sync::Arc;
    use types::{Epoch, FragmentId};

    #[test]
    fn the_cache_is_bounded_and_forgets_the_oldest() {
        let cache = HeaderCache::default();
        let entry = |block| Entry { block, stored_len: 4096, header_crc: 1, epoch: Epoch(1), heat: 0 };
        let header = Arc::new(Header {
            epoch: Epoch(1),
            id: FragmentId::from_bytes(&[0; 32]).expect("zeros are an id"),
            disk: DiskId([0; 16]),
            block: 0,
            stored_len: 4096,
            crcs: vec![0],
            content_crc: 0,
        });
        for block in 0..=HEADERS_MAX as u64 {
            cache.keep(&entry(block), Arc::clone(&header));
            cache.keep(&entry(block), Arc::clone(&header));
        }
        assert!(cache.get(&entry(0)).is_none());
        assert!(cache.get(&entry(1)).is_some());
        assert!(cache.get(&Entry { header_crc: 2, ..entry(1) }).is_none());
    }
}
