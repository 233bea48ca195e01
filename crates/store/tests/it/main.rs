//! The store on simulated and real disks.

mod bad;
mod bench;
mod faults;
mod life;
mod real;
mod refusals;
mod replace;
