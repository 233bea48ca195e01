//! Reading and writing the four copies of a disk's superblock.

use std::collections::BTreeMap;

use device::{BlockDev, Durability, IoBuf, IoClass, IoError};
use types::{BLOCK, ByteOffset, ByteSize};

use crate::error::OpenError;
use crate::layout::ENDS;
use crate::superblock::{Superblock, SuperblockError, choose};

/// Why a place holds no copy of a superblock.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CopyError {
    /// What is there is none.
    #[error(transparent)]
    Invalid(#[from] SuperblockError),
    /// It is the copy of another place.
    #[error("it is copy {found} at the place of copy {expected}")]
    Misplaced {
        /// The copy that was found.
        found: u32,
        /// The copy that belongs there.
        expected: u32,
    },
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// One place of a superblock and what is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copy {
    /// Where it is, in bytes.
    pub at: u64,
    /// Which copy belongs there, 0 to 3.
    pub number: u32,
    /// What was found.
    pub found: Result<Superblock, CopyError>,
}

/// Reads every copy that there may be: both at the start, and those at the ends that a copy at the start names or
/// that the device has. After a growth that was cut these are two ends.
pub async fn read_copies(dev: &dyn BlockDev) -> Vec<Copy> {
    let bytes = dev.geometry().bytes;
    let mut copies: BTreeMap<u64, Copy> = BTreeMap::new();
    let mut ends = vec![bytes];
    for number in 0..2 {
        let at = Superblock::places(u64::MAX)[number as usize];
        if let Some(copy) = read_copy(dev, at, number).await {
            ends.extend(copy.found.as_ref().ok().map(|superblock| superblock.disk_bytes));
            copies.insert(at, copy);
        }
    }
    for end in ends.into_iter().filter(|end| *end >= 2 * ENDS) {
        for number in 2..4 {
            let at = Superblock::places(end)[number as usize];
            if let Some(copy) = read_copy(dev, at, number).await {
                copies.insert(at, copy);
            }
        }
    }
    copies.into_values().collect()
}

/// Reads one place; `None` if the device ends before it.
async fn read_copy(dev: &dyn BlockDev, at: u64, number: u32) -> Option<Copy> {
    if at + BLOCK > dev.geometry().bytes {
        return None;
    }
    let read = dev.read(ByteOffset(at), IoBuf::zeroed(BLOCK as usize), IoClass::Log).await;
    let found = match read {
        Err(error) => Err(CopyError::Io(error)),
        Ok(block) => match Superblock::decode(&block) {
            Err(error) => Err(CopyError::Invalid(error)),
            Ok((_, found)) if found != number => Err(CopyError::Misplaced { found, expected: number }),
            Ok((superblock, _)) => Ok(superblock),
        },
    };
    Some(Copy { at, number, found })
}

/// Whether the ends of a disk, where only superblocks of ours ever are, are zeros: others have their roots in the same
/// ends but at other places, so blank copies alone do not make a disk blank.
pub(crate) async fn ends_are_blank(dev: &dyn BlockDev) -> Result<bool, IoError> {
    let bytes = dev.geometry().bytes / BLOCK * BLOCK;
    let len = bytes.min(ENDS);
    for at in [0, bytes - len] {
        if len > 0 {
            let end = dev.read(ByteOffset(at), IoBuf::zeroed(len as usize), IoClass::Log).await?;
            if end.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The superblock that counts, or why the disk cannot be opened.
pub(crate) fn pick(copies: &[Copy], device_bytes: u64) -> Result<Superblock, OpenError> {
    let valid: Vec<Superblock> = copies.iter().filter_map(|copy| copy.found.as_ref().ok().copied()).collect();
    let agreed = choose(&valid);
    // A single valid copy of a file that was cut off is enough to say so.
    if let Some(need) = agreed.or(valid.first().copied()).map(|superblock| superblock.disk_bytes)
        && need > device_bytes
    {
        return Err(OpenError::Truncated { have: ByteSize(device_bytes), need: ByteSize(need) });
    }
    if let Some(superblock) = agreed {
        return Ok(superblock);
    }
    let mut blank = true;
    let mut foreign = true;
    for copy in copies {
        match &copy.found {
            Err(CopyError::Io(error)) => return Err(OpenError::Io(error.clone())),
            Err(CopyError::Invalid(SuperblockError::Newer { version, incompat })) => {
                return Err(OpenError::NewerFormat { version: *version, features: *incompat });
            }
            Err(CopyError::Invalid(SuperblockError::Blank)) => {}
            Err(CopyError::Invalid(SuperblockError::NotSuperblock)) => blank = false,
            Ok(_) | Err(_) => (blank, foreign) = (false, false),
        }
    }
    // Formatting writes the copies at the start first and those at the end last; no other cut leaves these blank.
    let unfinished = copies.iter().all(|copy| match &copy.found {
        Ok(superblock) => copy.number < 2 && superblock.sequence == 1,
        Err(CopyError::Invalid(SuperblockError::Blank)) => true,
        Err(CopyError::Invalid(SuperblockError::BadCrc)) => copy.number < 2,
        Err(_) => false,
    });
    Err(match (blank, foreign) {
        (true, _) => OpenError::Blank,
        (_, true) => OpenError::NotHoldfast,
        _ if unfinished => OpenError::HalfFormatted,
        _ => OpenError::Damaged(crate::error::Damage::Superblocks),
    })
}

/// Writes all four copies, two at a time, so that at every moment two that agree are durable. Durable on return.
pub(crate) async fn write(dev: &dyn BlockDev, superblock: &Superblock) -> Result<(), IoError> {
    write_pair(dev, superblock, [0, 1]).await?;
    write_pair(dev, superblock, [2, 3]).await
}

/// Which copies are not `superblock`, 0 to 3.
pub(crate) fn stray(copies: &[Copy], superblock: &Superblock) -> Vec<u32> {
    let places = Superblock::places(superblock.disk_bytes);
    let intact = |number: &u32| {
        let at = places[*number as usize];
        copies.iter().any(|copy| copy.at == at && copy.found.as_ref() == Ok(superblock))
    };
    (0..4).filter(|number| !intact(number)).collect()
}

/// Writes stray copies anew and touches no other: an update relies on the pair that it does not write. Durable on
/// return.
pub(crate) async fn heal(dev: &dyn BlockDev, superblock: &Superblock, stray: &[u32]) -> Result<(), IoError> {
    if stray.is_empty() {
        return Ok(());
    }
    let places = Superblock::places(superblock.disk_bytes);
    for number in stray {
        let at = ByteOffset(places[*number as usize]);
        let block = vec![superblock.encode(*number)];
        dev.write(at, block, Durability::Buffered, IoClass::Log).await?;
    }
    dev.flush().await
}

/// Writes two copies and flushes.
pub(crate) async fn write_pair(
    dev: &dyn BlockDev,
    superblock: &Superblock,
    pair: [u32; 2],
) -> Result<(), IoError> {
    let places = Superblock::places(superblock.disk_bytes);
    let [one, other] = pair.map(|number| {
        let at = ByteOffset(places[number as usize]);
        dev.write(at, vec![superblock.encode(number)], Durability::Buffered, IoClass::Log)
    });
    one.await?;
    other.await?;
    dev.flush().await
}
