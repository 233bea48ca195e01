//! CRC-32C of blocks, and the checksum of an extent's content.
//!
//! CRC-32C is the Castagnoli polynomial of RFC 3720 section 12.1.

use types::BLOCK;

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// CRC-32C of several pieces, as if they stood behind one another.
pub fn crc32c_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for piece in pieces {
        digest.update(piece);
    }
    digest.finalize() as u32
}

/// CRC-32C of each block of `stored`, the last one padded with zeros to a whole block.
pub fn block_crcs(stored: &[u8]) -> Vec<u32> {
    let mut crcs = Vec::with_capacity(stored.len().div_ceil(BLOCK as usize));
    let (whole, rest) = stored.as_chunks::<{ BLOCK as usize }>();
    crcs.extend(whole.iter().map(|block| crc32c(block)));
    if !rest.is_empty() {
        let mut padded = [0; BLOCK as usize];
        padded[..rest.len()].copy_from_slice(rest);
        crcs.push(crc32c(&padded));
    }
    crcs
}

/// The checksum of a stored extent's content: CRC-32C over its block CRCs, each little-endian.
/// Equal in every replica, every layout and the extent row.
pub fn content_crc(block_crcs: &[u32]) -> u32 {
    let bytes: Vec<u8> = block_crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect();
    crc32c(&bytes)
}

#[cfg(test)]
mod tests {
    use super::{block_crcs, content_crc, crc32c, crc32c_of};

    #[test]
    fn crc32c_matches_the_vectors_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c_of([&[0xff; 10][..], &[0xff; 22][..]]), 0x62a8_ab43);
    }

    #[test]
    fn a_last_block_counts_as_padded_with_zeros() {
        let mut stored = vec![7; 5000];
        let short = block_crcs(&stored);
        stored.resize(8192, 0);
        assert_eq!(short, block_crcs(&stored));
        assert_eq!(short.len(), 2);
        assert_ne!(content_crc(&short), content_crc(&short[..1]));
    }
}
