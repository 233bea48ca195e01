//! A disk that forgets: what was written since the last flush is lost at a power cut, all of it or some of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::random::Random;

/// The unit in which writes are kept or lost.
const BLOCK: u64 = 4096;

/// What a disk writes at once even while its power fails.
const SECTOR: usize = 512;

/// Of a block that is written again and again between two flushes, a disk may have kept any state: so many are remembered.
const VERSIONS_MAX: usize = 3;

type Block = Box<[u8; BLOCK as usize]>;

/// What the cache does with unflushed writes when the power goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// All are lost.
    All,
    /// Each block is kept with this probability, in one of the states it had.
    Some {
        /// Of 100.
        kept_percent: u64,
    },
    /// As `Some`, and half of the kept blocks are only partly written.
    Torn {
        /// Of 100.
        kept_percent: u64,
    },
}

impl Loss {
    /// One of the ways, with one of the probabilities.
    pub fn choose(random: &mut Random) -> Loss {
        let kept_percent = [10, 50, 90][random.below(3) as usize];
        match random.below(3) {
            0 => Loss::All,
            1 => Loss::Some { kept_percent },
            _ => Loss::Torn { kept_percent },
        }
    }
}

/// What a power cut did to the blocks that were written and not flushed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cut {
    /// Blocks that kept nothing of what was written since the last flush.
    pub lost: u64,
    /// Blocks that kept one of the states they had.
    pub kept: u64,
    /// Blocks that kept some sectors.
    pub torn: u64,
}

/// The disk. Its stable part is a file; what is not flushed is in memory.
#[derive(Debug)]
pub struct Image {
    stable: File,
    len: u64,
    unflushed: BTreeMap<u64, Vec<Block>>,
    powered: bool,
    lying: bool,
}

impl Image {
    /// An empty disk of `len` bytes (whole blocks) in `stable`.
    pub fn new(stable: File, len: u64) -> io::Result<Image> {
        assert!(len.is_multiple_of(BLOCK), "a disk has whole blocks");
        stable.set_len(len)?;
        Ok(Image { stable, len, unflushed: BTreeMap::new(), powered: true, lying: false })
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads; beyond the end there is nothing.
    pub fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.check_power()?;
        let end = self.len.min(at.saturating_add(len as u64));
        let mut bytes = vec![0; end.saturating_sub(at) as usize];
        self.stable.read_exact_at(&mut bytes, at)?;
        for (block, part) in parts(at, bytes.len()) {
            if let Some(versions) = self.unflushed.get(&block) {
                let latest = versions.last().expect("a block that is remembered has a version");
                let from = (at + part.start as u64 - block * BLOCK) as usize;
                bytes[part.clone()].copy_from_slice(&latest[from..from + part.len()]);
            }
        }
        Ok(bytes)
    }

    /// Writes into the cache.
    pub fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        self.check_power()?;
        if at.checked_add(data.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        for (block, part) in parts(at, data.len()) {
            let mut new = self.latest(block)?;
            let from = (at + part.start as u64 - block * BLOCK) as usize;
            new[from..from + part.len()].copy_from_slice(&data[part]);
            let versions = self.unflushed.entry(block).or_default();
            if versions.len() == VERSIONS_MAX {
                versions.remove(0);
            }
            versions.push(new);
        }
        Ok(())
    }

    /// Makes everything that was written stable.
    pub fn flush(&mut self) -> io::Result<()> {
        self.check_power()?;
        if self.lying {
            return Ok(());
        }
        for (block, versions) in std::mem::take(&mut self.unflushed) {
            let latest = versions.last().expect("a block that is remembered has a version");
            self.stable.write_all_at(&latest[..], block * BLOCK)?;
        }
        Ok(())
    }

    /// From now on a flush succeeds and does nothing, as on a disk whose cache lies.
    pub fn lie(&mut self) {
        self.lying = true;
    }

    /// How many blocks wait for a flush.
    pub fn unflushed(&self) -> usize {
        self.unflushed.len()
    }

    /// Cuts the power: from now on everything fails, until [`Image::revive`].
    pub fn cut(&mut self, loss: Loss, random: &mut Random) -> io::Result<Cut> {
        self.powered = false;
        let mut cut = Cut::default();
        for (block, versions) in std::mem::take(&mut self.unflushed) {
            let (kept_percent, may_tear) = match loss {
                Loss::All => (0, false),
                Loss::Some { kept_percent } => (kept_percent, false),
                Loss::Torn { kept_percent } => (kept_percent, true),
            };
            if !random.percent(kept_percent) {
                cut.lost += 1;
                continue;
            }
            let version = &versions[random.below(versions.len() as u64) as usize];
            if !(may_tear && random.percent(50)) {
                cut.kept += 1;
                self.stable.write_all_at(&version[..], block * BLOCK)?;
                continue;
            }
            cut.torn += 1;
            for (sector, bytes) in version.chunks(SECTOR).enumerate() {
                if random.percent(50) {
                    self.stable.write_all_at(bytes, block * BLOCK + (sector * SECTOR) as u64)?;
                }
            }
        }
        Ok(cut)
    }

    /// Gives it power again, with what it kept.
    pub fn revive(&mut self) {
        self.powered = true;
    }

    fn check_power(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(io::Error::other("the power is cut")) }
    }

    fn latest(&self, block: u64) -> io::Result<Block> {
        if let Some(versions) = self.unflushed.get(&block) {
            return Ok(versions.last().expect("a block that is remembered has a version").clone());
        }
        let mut bytes = Box::new([0; BLOCK as usize]);
        self.stable.read_exact_at(&mut bytes[..], block * BLOCK)?;
        Ok(bytes)
    }
}

/// The blocks that a range touches, each with the part of the range that lies in it.
fn parts(at: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let end = at + len as u64;
    (at / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let from = at.max(block * BLOCK) - at;
        let to = end.min((block + 1) * BLOCK) - at;
        (block, from as usize..to as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Cut, Image, Loss};
    use crate::random::Random;

    fn disk() -> Image {
        Image::new(tempfile::tempfile().expect("a file"), 16 * BLOCK).expect("a disk")
    }

    #[test]
    fn flushed_bytes_survive_and_others_are_lost() {
        let mut disk = disk();
        disk.write(100, b"flushed").expect("write");
        disk.flush().expect("flush");
        disk.write(100, b"dropped").expect("write");
        disk.write(2 * BLOCK - 3, b"across").expect("write");
        assert_eq!(disk.read(100, 7).expect("read"), b"dropped");
        assert_eq!(disk.read(2 * BLOCK - 3, 6).expect("read"), b"across");
        let cut = disk.cut(Loss::All, &mut Random::new(1)).expect("cut");
        assert_eq!(cut, Cut { lost: 3, kept: 0, torn: 0 });
        assert!(disk.read(0, 1).is_err() && disk.write(0, b"x").is_err() && disk.flush().is_err());
        disk.revive();
        assert_eq!(disk.read(100, 7).expect("read"), b"flushed");
        assert_eq!(disk.read(2 * BLOCK - 3, 6).expect("read"), [0; 6]);
    }

    #[test]
    fn some_blocks_are_kept_in_a_state_that_they_had() {
        let mut disk = disk();
        for round in 1..=2_u8 {
            for block in 0..16 {
                disk.write(block * BLOCK, &[round; BLOCK as usize]).expect("write");
            }
        }
        let cut = disk.cut(Loss::Some { kept_percent: 50 }, &mut Random::new(2)).expect("cut");
        assert!(cut.lost > 0 && cut.kept > 0 && cut.torn == 0, "{cut:?}");
        disk.revive();
        let mut seen = [0; 3];
        for block in 0..16 {
            let bytes = disk.read(block * BLOCK, BLOCK as usize).expect("read");
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a whole block");
            seen[usize::from(bytes[0])] += 1;
        }
        assert_eq!(seen[0], cut.lost);
        assert!(seen[1] > 0 && seen[2] > 0, "old and new states: {seen:?}");
    }

    #[test]
    fn torn_blocks_keep_whole_sectors() {
        let mut disk = disk();
        disk.write(0, &[1; 16 * BLOCK as usize]).expect("write");
        let cut = disk.cut(Loss::Torn { kept_percent: 90 }, &mut Random::new(3)).expect("cut");
        assert!(cut.torn > 0, "{cut:?}");
        disk.revive();
        let bytes = disk.read(0, 16 * BLOCK as usize).expect("read");
        assert!(
            bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])),
            "whole sectors"
        );
        let mixed = bytes.chunks(BLOCK as usize).filter(|block| block.contains(&0) && block.contains(&1));
        assert!(mixed.count() > 0, "some block is mixed");
    }

    #[test]
    fn a_lying_disk_flushes_nothing() {
        let mut disk = disk();
        disk.lie();
        disk.write(0, b"flushed").expect("write");
        disk.flush().expect("it says that it did");
        assert_eq!(disk.unflushed(), 1);
        disk.cut(Loss::All, &mut Random::new(4)).expect("cut");
        disk.revive();
        assert_eq!(disk.read(0, 7).expect("read"), [0; 7]);
    }

    #[test]
    fn the_end_is_the_end() {
        let mut disk = disk();
        assert!(disk.write(16 * BLOCK - 1, b"xy").is_err());
        assert_eq!(disk.read(16 * BLOCK - 1, 2).expect("read"), [0]);
        assert_eq!(disk.read(99 * BLOCK, 2).expect("read"), [0; 0]);
    }
}
