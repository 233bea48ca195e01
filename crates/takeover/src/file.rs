//! The one object that all of it is about, as an application may see it.

use crate::scope::Op;

/// What a call returns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Answer {
    Done,
    /// EEXIST or ENOENT.
    Failed,
    Seen {
        value: u8,
        name: bool,
        swaps: u8,
    },
}

/// A file of one value, a name, and a counter of exchanges.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct File {
    pub(crate) value: u8,
    pub(crate) name: bool,
    pub(crate) swaps: u8,
}

impl File {
    pub(crate) fn seen(self) -> Answer {
        Answer::Seen { value: self.value, name: self.name, swaps: self.swaps }
    }

    /// Creates or removes the name.
    pub(crate) fn set_name(&mut self, name: bool) -> Answer {
        match std::mem::replace(&mut self.name, name) {
            was if was == name => Answer::Failed,
            _ => Answer::Done,
        }
    }

    /// Does what is asked for, as if nobody else did anything.
    pub(crate) fn run(&mut self, op: Op) -> Answer {
        match op {
            Op::Write(value) => self.value = value,
            Op::Append => self.value += 1,
            Op::Truncate => self.value = 0,
            Op::Exchange => self.swaps += 1,
            Op::Create => return self.set_name(true),
            Op::Unlink => return self.set_name(false),
            Op::Read => return self.seen(),
            Op::Fsync => {}
        }
        Answer::Done
    }
}
