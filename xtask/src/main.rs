//! The one door to verify, fix, test, simulate, crash and measure.
fn main() {}
