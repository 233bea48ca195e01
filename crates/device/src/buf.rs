//! Buffers that a disk can read and write without a copy.

/// Bytes in whole blocks, aligned to a block: what O_DIRECT asks for.
pub struct IoBuf {
    blocks: Vec<Block>,
}

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; 4096]);

impl IoBuf {
    /// A buffer of zeros that holds at least `bytes`, rounded up to whole blocks.
    pub fn zeroed(bytes: usize) -> IoBuf {
        IoBuf { blocks: vec![Block([0; 4096]); bytes.div_ceil(4096)] }
    }

    /// A buffer that holds `bytes`, padded with zeros to whole blocks.
    pub fn from_bytes(bytes: &[u8]) -> IoBuf {
        // Not zeros first: a large write would touch its memory twice.
        let (whole, rest) = bytes.as_chunks();
        let mut blocks = Vec::with_capacity(bytes.len().div_ceil(4096));
        blocks.extend(whole.iter().map(|block| Block(*block)));
        if !rest.is_empty() {
            let mut last = Block([0; 4096]);
            last.0[..rest.len()].copy_from_slice(rest);
            blocks.push(last);
        }
        IoBuf { blocks }
    }
}

#[allow(unsafe_code)]
impl std::ops::Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: Block is repr(C) around a byte array whose size is its alignment, so a slice of blocks is one
        // initialised run of bytes without padding.
        unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.blocks.len() * 4096) }
    }
}

#[allow(unsafe_code)]
impl std::ops::DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; every byte pattern is a valid Block, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), self.blocks.len() * 4096) }
    }
}

impl std::fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoBuf({} bytes)", self.len())
    }
}
