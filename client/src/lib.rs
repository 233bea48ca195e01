//! The engine of this node's mounts.
