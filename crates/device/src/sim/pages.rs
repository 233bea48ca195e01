//! A disk's blocks in memory: sparse, and cloned in constant time.

use std::sync::Arc;

/// The content of one block.
pub(super) type Page = Arc<[u8; 4096]>;

const FAN_BITS: u32 = 6;
const FAN: usize = 1 << FAN_BITS;

/// Blocks by number. Absent ones are zero. A clone shares everything, and a change copies one path of the tree.
#[derive(Clone)]
pub(super) struct Pages {
    root: Option<Arc<Node>>,
    levels: u32,
}

#[derive(Clone)]
enum Node {
    Inner([Option<Arc<Node>>; FAN]),
    Leaf([Option<Page>; FAN]),
}

impl Pages {
    /// Room for `blocks` zero blocks.
    pub(super) fn new(blocks: u64) -> Pages {
        let bits = u64::BITS - blocks.saturating_sub(1).leading_zeros();
        Pages { root: None, levels: bits.div_ceil(FAN_BITS).max(1) }
    }

    pub(super) fn get(&self, block: u64) -> Option<&Page> {
        let mut node = self.root.as_deref()?;
        for level in (0..self.levels).rev() {
            let slot = slot(block, level);
            match node {
                Node::Inner(children) => node = children[slot].as_deref()?,
                Node::Leaf(pages) => return pages[slot].as_ref(),
            }
        }
        None
    }

    /// Replaces a block; a zero one takes no memory.
    pub(super) fn set(&mut self, block: u64, page: Page) {
        let page = (*page != [0; 4096]).then_some(page);
        if page.is_none() && self.get(block).is_none() {
            return;
        }
        put(&mut self.root, block, self.levels - 1, page);
    }
}

fn slot(block: u64, level: u32) -> usize {
    (block >> (level * FAN_BITS)) as usize % FAN
}

fn put(node: &mut Option<Arc<Node>>, block: u64, level: u32, page: Option<Page>) {
    let node = node.get_or_insert_with(|| {
        Arc::new(if level == 0 {
            Node::Leaf([const { None }; FAN])
        } else {
            Node::Inner([const { None }; FAN])
        })
    });
    match Arc::make_mut(node) {
        Node::Inner(children) => put(&mut children[slot(block, level)], block, level - 1, page),
        Node::Leaf(pages) => pages[slot(block, 0)] = page,
    }
}

#[cfg(test)]
mod tests {
    use super::Pages;
    use std::sync::Arc;

    #[test]
    fn a_clone_keeps_what_the_original_changes() {
        let mut pages = Pages::new(1 << 20);
        for block in [0, 63, 64, 4095, 4096, (1 << 20) - 1] {
            pages.set(block, Arc::new([block as u8 | 1; 4096]));
        }
        let before = pages.clone();
        pages.set(64, Arc::new([9; 4096]));
        pages.set(63, Arc::new([0; 4096]));
        assert_eq!(before.get(64).map(|page| page[0]), Some(65));
        assert_eq!(before.get(63).map(|page| page[0]), Some(63));
        assert_eq!(pages.get(64).map(|page| page[0]), Some(9));
        assert!(pages.get(63).is_none() && pages.get(65).is_none());
        assert_eq!(pages.get((1 << 20) - 1).map(|page| page[0]), Some(255));
    }
}
