//! Runs the real store, log and state machine through simulated crashes.
