//! The metadata service: partitions, sessions, reclaim.
