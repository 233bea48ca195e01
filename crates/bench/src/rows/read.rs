//! Reads of a file that the kernel has in its page cache.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use super::{BLOCK, Numbers, rate, timed};
use crate::row::{At, Done};

const CHUNK: usize = 1 << 20;

/// Writes the file, durably, so that nothing is written back during the rounds.
pub(crate) fn prepare(at: &At<'_>) -> Done<()> {
    let chunk = Numbers::new(1).bytes(CHUNK);
    let mut file = File::create(at.dir.join("file"))?;
    for _ in 0..at.scale.read_bytes / CHUNK as u64 {
        at.go_on()?;
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    pass(at, &mut vec![0; CHUNK])
}

/// Writes the file anew for a round: how large the pieces are in which the kernel keeps a file's pages, and so how fast
/// they are read, is decided by chance when they are written.
fn begin(at: &At<'_>) -> Done<()> {
    if at.round > 0 { prepare(at) } else { Ok(()) }
}

/// Megabytes per second. Each pass opens the file anew, as another process would.
pub(crate) fn sequential(at: &At<'_>) -> Done<f64> {
    begin(at)?;
    let mut buffer = vec![0; CHUNK];
    pass(at, &mut buffer)?;
    let took = timed(|| (0..at.scale.read_passes).try_for_each(|_| pass(at, &mut buffer)))?;
    Ok(rate(at.scale.read_bytes * at.scale.read_passes, took) / 1e6)
}

fn pass(at: &At<'_>, buffer: &mut [u8]) -> Done<()> {
    let mut file = File::open(at.dir.join("file"))?;
    let mut total = 0;
    loop {
        at.go_on()?;
        match file.read(buffer)? {
            0 => break,
            got => total += got as u64,
        }
    }
    if total == at.scale.read_bytes {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("{total} bytes were read of {}", at.scale.read_bytes)).into())
    }
}

/// Reads per second.
pub(crate) fn random(at: &At<'_>) -> Done<f64> {
    begin(at)?;
    pass(at, &mut vec![0; CHUNK])?;
    let file = File::open(at.dir.join("file"))?;
    let mut numbers = Numbers::new(at.round);
    let blocks = at.scale.read_bytes / BLOCK as u64;
    let mut buffer = [0; BLOCK];
    let took = timed(|| {
        for _ in 0..at.scale.random_reads {
            file.read_exact_at(&mut buffer, numbers.below(blocks) * BLOCK as u64)?;
        }
        Ok(())
    })?;
    Ok(rate(at.scale.random_reads, took))
}
