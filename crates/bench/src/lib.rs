//! Measures a mount beside a plain directory of the same disk, and beside two trivial FUSE filesystems that show what
//! FUSE itself allows.
//!
//! Rounds are interleaved: in each round every subject does the same work, and another one goes first. What is told of a
//! subject is the median of its rounds, so a disturbance of the machine hits all of them or falls out.
//!
//! | module | what it does |
//! |---|---|
//! | `subject` | what is measured |
//! | `row`, `rows` | the work, and the goal that each row has |
//! | `floor` | the two trivial filesystems, each served by a process of its own |
//! | `stage`, `child` | where the work is done: made, started, stopped, removed |
//! | `space` | how much is written, and whether there is room for it |
//! | `run` | the rounds |
//! | `report`, `median`, `machine` | what comes out |

mod child;
mod error;
mod floor;
mod machine;
mod median;
mod report;
mod row;
mod rows;
mod run;
mod space;
mod stage;
mod subject;

pub use error::BenchError;
pub use floor::{Floor, FloorError, serve};
pub use machine::Machine;
pub use report::{LeftOut, Report, RowReport};
pub use row::{Better, Goal, Row, Scale, rows};
pub use run::{Options, Plan, Step};
pub use subject::Subject;
