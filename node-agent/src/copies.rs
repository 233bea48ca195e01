//! Whole copies, read and written.

use checksum::{block_crcs, content_crc};
use device::{IoBuf, IoVec};
use namespace::ExtentRow;
use store::{Checked, FragmentStore, Put, ReadError};
use types::{Epoch, FragmentId};

/// All stored bytes of a fragment, verified by its store.
pub(crate) async fn read(store: &dyn FragmentStore, id: FragmentId, len: u32) -> Result<Vec<u8>, ReadError> {
    let verified = store.read(id, 0..len).await?;
    let bytes: Vec<u8> = verified.blocks.iter().flat_map(|buf| buf.iter().copied()).collect();
    Ok(bytes.get(verified.range).unwrap_or_default().to_vec())
}

/// What a store needs to keep `bytes` as the fragment `id`.
pub(crate) fn put(id: FragmentId, epoch: Epoch, bytes: &[u8]) -> (Put, IoVec) {
    let block_crcs = block_crcs(bytes);
    let content_crc = content_crc(&block_crcs);
    let stored_len = u32::try_from(bytes.len()).expect("a fragment is at most 1 MiB and a block");
    (Put { id, epoch, stored_len, block_crcs, content_crc }, vec![IoBuf::from_bytes(bytes)])
}

/// The content checksum of stored bytes, as an extent's row has it.
pub(crate) fn content(bytes: &[u8]) -> u32 {
    content_crc(&block_crcs(bytes))
}

/// Whether a copy is what its extent's row says.
pub(crate) fn is_of(copy: &Checked, row: &ExtentRow) -> bool {
    (copy.stored_len, copy.content_crc) == (row.stored_len, row.content_crc)
}
