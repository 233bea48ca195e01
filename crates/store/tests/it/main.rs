//! The store on simulated and real disks.

mod bench;
mod life;
