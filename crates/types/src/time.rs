//! Points in time, as file attributes carry them.

use core::fmt;

/// Nanoseconds since the Unix epoch; negative before it. Covers the years 1677 to 2262.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(pub i64);

impl Nanos {
    /// The nearest point to `secs + nanos` that the type can hold: POSIX lets a filesystem clamp what it cannot store.
    pub fn from_parts(secs: i64, nanos: u32) -> Nanos {
        Nanos(secs.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos)))
    }

    /// Whole seconds, rounded down.
    pub fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// The nanoseconds after [`Nanos::secs`], 0 to 999,999,999.
    pub fn subsec_nanos(self) -> u32 {
        self.0.rem_euclid(1_000_000_000) as u32
    }
}

impl fmt::Debug for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.secs(), self.subsec_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::Nanos;

    #[test]
    fn parts_before_the_epoch_round_down() {
        let t = Nanos(-1);
        assert_eq!((t.secs(), t.subsec_nanos()), (-1, 999_999_999));
        assert_eq!(Nanos::from_parts(-1, 999_999_999), t);
        assert_eq!(Nanos::from_parts(i64::MAX, 0), Nanos(i64::MAX));
    }
}
