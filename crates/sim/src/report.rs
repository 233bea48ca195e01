//! What a simulated run saw.

use std::collections::BTreeMap;

/// How many violations are kept word for word; further ones are only counted.
const VIOLATIONS_KEPT: usize = 20;

/// One broken promise, with all it takes to see it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The seed of the workload in which it happened: running the component with it and the same points repeats it.
    pub seed: u64,
    /// The operation that was cut.
    pub operation: String,
    /// After how many of its I/O steps.
    pub prefix: u64,
    /// What was promised and what was found.
    pub text: String,
}

/// What one component's run saw.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Per operation, how many distinct prefixes of it were cut (each pair of both is one crash point).
    pairs: BTreeMap<String, u64>,
    /// Crashes in all: one pair may be cut in several ways (clean, torn, lost, failed).
    crashes: u64,
    violations: Vec<Violation>,
    violations_seen: u64,
}

impl Report {
    /// A report of nothing.
    pub fn new() -> Report {
        Report::default()
    }

    /// Notes that `prefixes` distinct prefixes of one execution of `operation` were cut, in `crashes` ways in all.
    ///
    /// The caller counts an execution once: its position in its workload makes its prefixes distinct.
    pub fn crashed(&mut self, operation: &str, prefixes: u64, crashes: u64) {
        *self.pairs.entry(operation.to_owned()).or_default() += prefixes;
        self.crashes += crashes;
    }

    /// Notes a broken promise.
    pub fn violated(&mut self, violation: Violation) {
        self.violations_seen += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(violation);
        }
    }

    /// Distinct (operation, prefix) pairs per operation.
    pub fn pairs(&self) -> &BTreeMap<String, u64> {
        &self.pairs
    }

    /// Distinct (operation, prefix) pairs in all.
    pub fn points(&self) -> u64 {
        self.pairs.values().sum()
    }

    /// Crashes in all.
    pub fn crashes(&self) -> u64 {
        self.crashes
    }

    /// The first broken promises, at most 20.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many promises were broken.
    pub fn violations_seen(&self) -> u64 {
        self.violations_seen
    }

    /// Adds what another run of the same component saw.
    pub fn merge(&mut self, other: Report) {
        for (operation, prefixes) in other.pairs {
            *self.pairs.entry(operation).or_default() += prefixes;
        }
        self.crashes += other.crashes;
        self.violations_seen += other.violations_seen;
        let room = VIOLATIONS_KEPT - self.violations.len();
        self.violations.extend(other.violations.into_iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, VIOLATIONS_KEPT, Violation};

    #[test]
    fn merging_adds_and_keeps_the_bound() {
        let mut all = Report::new();
        for seed in 0..30 {
            let mut one = Report::new();
            one.crashed("put", 2, 5);
            one.violated(Violation { seed, operation: "put".into(), prefix: 1, text: "lost".into() });
            all.merge(one);
        }
        assert_eq!((all.points(), all.crashes(), all.violations_seen()), (60, 150, 30));
        assert_eq!(all.violations().len(), VIOLATIONS_KEPT);
    }
}
