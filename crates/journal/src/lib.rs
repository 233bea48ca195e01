//! The checksummed, segmented batch log that the store and Raft share.
