//! Shared memory that holds a mount's accepted writes.
