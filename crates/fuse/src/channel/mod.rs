//! Our own channel to the kernel, beside fuser's: FUSE 7.31 to 7.45, read from and written to the device by ourselves.
//!
//! | module | what it does |
//! |---|---|
//! | `wire`, `header`, `parse` | requests as operations, without I/O |
//! | `reply`, `attr` | outcomes as replies, without I/O |
//! | `buffer`, `connection` | reading and writing the device |
//! | `answer` | a reply that waits for its outcome |
//! | `waiting` | callers that are killed while their request waits |
//! | `session` | the threads |
//!
//! A request that an earlier reader of the connection was given already (bit 63 of its number) is run as any other, and
//! answered under the number that it came with; operations are told the number without that bit.

mod answer;
mod attr;
mod buffer;
mod connection;
mod header;
mod parse;
mod reply;
mod session;
mod waiting;
mod wire;

pub(crate) use session::{serve, take_over};
