//! How many names are asked for when the kernel reads a directory.
//!
//! fuser does not say how large the kernel's buffer is, and how many names fit depends on their lengths. So the
//! first request of a mount guesses, and later ones go by what has fitted: asking for too many costs only work, and
//! for too few only another request. Entries with attributes that were fetched but did not fit count references that
//! the kernel knows nothing of; they are forgotten at once.

use std::sync::atomic::{AtomicU32, Ordering};

/// The smallest and largest number asked for.
const BOUNDS: (u32, u32) = (16, 1024);

/// A running estimate of how many names fit into the kernel's buffer.
pub(crate) struct Estimate(AtomicU32);

impl Estimate {
    pub(crate) fn new(first: u32) -> Estimate {
        Estimate(AtomicU32::new(first.clamp(BOUNDS.0, BOUNDS.1)))
    }

    /// How many names to ask for.
    pub(crate) fn ask(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Learns that of `asked` names `got` came and `fitted` fitted.
    pub(crate) fn learn(&self, asked: u32, got: u32, fitted: u32) {
        let next = if fitted < got {
            fitted + fitted / 8 + 1
        } else if got == asked {
            asked * 2
        } else {
            return; // the directory's end says nothing about the buffer
        };
        self.0.store(next.clamp(BOUNDS.0, BOUNDS.1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Estimate;

    #[test]
    fn the_estimate_settles_just_above_what_fits() {
        let (estimate, fits) = (Estimate::new(128), 400);
        for _ in 0..8 {
            let asked = estimate.ask();
            estimate.learn(asked, asked, asked.min(fits));
        }
        assert!((400..=512).contains(&estimate.ask()), "{}", estimate.ask());
    }

    #[test]
    fn a_short_directory_changes_nothing_and_bounds_hold() {
        let estimate = Estimate::new(128);
        estimate.learn(128, 3, 3);
        assert_eq!(estimate.ask(), 128);
        estimate.learn(128, 128, 1);
        assert_eq!(estimate.ask(), 16);
        for _ in 0..20 {
            estimate.learn(estimate.ask(), estimate.ask(), estimate.ask());
        }
        assert_eq!(estimate.ask(), 1024);
    }
}
