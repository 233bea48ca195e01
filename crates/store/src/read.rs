//! Reading fragments: index → header's checksum → block checksums → data.

use std::ops::Range;
use std::sync::Arc;

use checksum::crc32c;
use device::{IoBuf, IoClass, IoError, IoVec};
use types::{BLOCK, ByteOffset, FragmentId};

use crate::fragments::{Checked, ReadError, Verified};
use crate::header::{Header, INLINE_AT, INLINE_MAX, header_crc};
use crate::index::Entry;
use crate::layout::DiskId;
use crate::shared::Shared;

/// Checks a header's block against what the index and the disk say of it.
pub(crate) fn verify_header(block: &[u8], id: &FragmentId, entry: &Entry, disk: DiskId) -> Option<Header> {
    if header_crc(block) != entry.header_crc && !planted::is(planted::Bug::NoCrc) {
        return None;
    }
    let header = Header::decode(block).ok()?;
    let expected = header.id == *id && header.block == entry.block && header.stored_len == entry.stored_len;
    (expected && header.disk == disk && header.epoch == entry.epoch).then_some(header)
}

/// The first of `blocks` whose checksum is not the one in `crcs`.
pub(crate) fn first_damaged(blocks: &[u8], crcs: &[u32]) -> Option<usize> {
    if planted::is(planted::Bug::NoCrc) {
        return None;
    }
    blocks.chunks(BLOCK as usize).zip(crcs).position(|(block, crc)| crc32c(block) != *crc)
}

impl Shared {
    /// Reads a fragment's header and verifies it against the index.
    pub(crate) async fn read_header(&self, id: FragmentId, entry: Entry) -> Result<Arc<Header>, ReadError> {
        if let Some(header) = self.headers.get(&entry) {
            return Ok(header);
        }
        let at = entry.block * BLOCK;
        let block = self.dev.read(ByteOffset(at), IoBuf::zeroed(BLOCK as usize), IoClass::Read).await?;
        self.checked(&block, id, entry)
    }

    fn checked(&self, block: &[u8], id: FragmentId, entry: Entry) -> Result<Arc<Header>, ReadError> {
        let at = entry.block * BLOCK;
        let header = verify_header(block, &id, &entry, self.disk);
        let header = Arc::new(header.ok_or(ReadError::Damaged { id, block: 0, at })?);
        self.headers.keep(&entry, Arc::clone(&header));
        Ok(header)
    }

    /// Reads a range of a fragment. The caller keeps the blocks from being handed out meanwhile.
    pub(crate) async fn read_range(
        &self,
        id: FragmentId,
        entry: Entry,
        range: Range<u32>,
        class: IoClass,
    ) -> Result<Verified, ReadError> {
        if range.start > range.end || range.end > entry.stored_len {
            return Err(ReadError::OutOfRange(id));
        }
        let start = range.start as usize;
        let len = range.len();
        if len == 0 {
            return Ok(Verified { blocks: IoVec::new(), range: 0..0 });
        }
        let header_at = ByteOffset(entry.block * BLOCK);
        let one_block = || IoBuf::zeroed(BLOCK as usize);
        if entry.stored_len <= INLINE_MAX {
            let block = self.dev.read(header_at, one_block(), class).await?;
            let header = self.checked(&block, id, entry)?;
            self.check_inline(&block, &header)?;
            let from = INLINE_AT + start;
            return Ok(Verified { blocks: vec![block], range: from..from + len });
        }
        let first = start / BLOCK as usize;
        let count = (start + len).div_ceil(BLOCK as usize) - first;
        let data_at = ByteOffset((entry.block + 1 + first as u64) * BLOCK);
        let cached = self.headers.get(&entry);
        // Both are under way before either is waited for.
        let header_read = cached.is_none().then(|| self.dev.read(header_at, one_block(), class));
        let data_read = self.dev.read(data_at, IoBuf::zeroed(count * BLOCK as usize), class);
        let header = match (cached, header_read) {
            (Some(header), _) => header,
            (None, Some(read)) => self.checked(&read.await?, id, entry)?,
            (None, None) => return Err(ReadError::Io(IoError::Gone)),
        };
        let data = data_read.await?;
        if let Some(bad) = first_damaged(&data, &header.crcs[first..first + count]) {
            let block = (first + bad) as u32 + 1;
            return Err(ReadError::Damaged { id, block, at: (entry.block + u64::from(block)) * BLOCK });
        }
        let from = start % BLOCK as usize;
        Ok(Verified { blocks: vec![data], range: from..from + len })
    }

    /// The header's checksum covers small data already; its own checksum shows a writer that was wrong.
    fn check_inline(&self, block: &[u8], header: &Header) -> Result<(), ReadError> {
        let data = &block[INLINE_AT..INLINE_AT + header.stored_len as usize];
        if checksum::block_crcs(data) == header.crcs || planted::is(planted::Bug::NoCrc) {
            return Ok(());
        }
        Err(ReadError::Damaged { id: header.id, block: 1, at: header.block * BLOCK })
    }

    /// Reads all of a fragment, header and data, past the cache.
    pub(crate) async fn verify_fragment(&self, id: FragmentId, entry: Entry) -> Result<Checked, ReadError> {
        let run = entry.run();
        let at = ByteOffset(run.block * BLOCK);
        let bytes = run.blocks as usize * BLOCK as usize;
        let read = self.dev.read(at, IoBuf::zeroed(bytes), IoClass::Background).await?;
        let (block, data) = read.split_at(BLOCK as usize);
        let header = verify_header(block, &id, &entry, self.disk).ok_or(ReadError::Damaged {
            id,
            block: 0,
            at: at.0,
        })?;
        let content_crc = checksum::content_crc(&header.crcs);
        let whole = Checked { stored_len: header.stored_len, content_crc };
        if header.is_inline() {
            return self.check_inline(block, &header).map(|()| whole);
        }
        match first_damaged(data, &header.crcs) {
            None => Ok(whole),
            Some(bad) => {
                let block = bad as u32 + 1;
                Err(ReadError::Damaged { id, block, at: at.0 + u64::from(block) * BLOCK })
            }
        }
    }
}
