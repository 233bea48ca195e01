//! The work of each row.

pub(crate) mod list;
pub(crate) mod names;
pub(crate) mod read;
pub(crate) mod sqlite;
pub(crate) mod sync;
pub(crate) mod untar;

use std::time::{Duration, Instant};

use crate::row::Done;

/// The unit of most reads and writes.
pub(crate) const BLOCK: usize = 4096;

/// How many per second.
pub(crate) fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}

/// How long something took.
pub(crate) fn timed(work: impl FnOnce() -> Done<()>) -> Done<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// The median of single calls, in microseconds.
pub(crate) fn p50_us(calls: &[Duration]) -> f64 {
    let us: Vec<f64> = calls.iter().map(|call| call.as_secs_f64() * 1e6).collect();
    crate::median::median(&us).unwrap_or(f64::NAN)
}

/// Numbers that look random and are the same in every run (xorshift64*, Vigna 2016).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    /// So many bytes that do not compress.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}
