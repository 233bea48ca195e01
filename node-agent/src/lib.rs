//! The node agent: this node's disks, and what runs on them in the background.
