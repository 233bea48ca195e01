//! The kernel's FUSE protocol over the vfs.
