//! The metadata service: rows, and command slots that make a repeat harmless.

use crate::arena::{Dseq, Entry, SLOTS};
use crate::file::{Answer, File};
use crate::kernel::{UNIQUES, Unique};

/// A change of the rows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Command {
    Grant,
    /// A record's data enters the file's map.
    Commit {
        value: u8,
        dseq: Dseq,
        grant: u8,
    },
    Truncate,
    Create,
    Unlink,
    Exchange,
    /// Entries of the journal, in their order.
    Batch(Vec<Entry>),
}

/// What a command returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Reply {
    Answer(Answer),
    Grant(u8),
    /// The rows do not allow it: data that nobody can commit any more.
    Refused,
}

/// The rows, or an engine's copy of them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Rows {
    pub(crate) file: File,
    /// The last record that is in the map.
    pub(crate) applied: Dseq,
    /// The last write grant; 0 for none.
    pub(crate) grant: u8,
}

impl Rows {
    pub(crate) fn apply(&mut self, command: &Command) -> Reply {
        match *command {
            Command::Grant => {
                self.grant += 1;
                return Reply::Grant(self.grant);
            }
            Command::Commit { value, dseq, grant } => {
                if grant != self.grant || dseq <= self.applied {
                    return Reply::Refused;
                }
                (self.file.value, self.applied) = (value, dseq);
            }
            Command::Truncate => self.file.value = 0,
            Command::Exchange => self.file.swaps += 1,
            Command::Create => return Reply::Answer(self.file.set_name(true)),
            Command::Unlink => return Reply::Answer(self.file.set_name(false)),
            Command::Batch(_) => unreachable!("a batch is applied entry by entry"),
        }
        Reply::Answer(Answer::Done)
    }
}

/// A command on its way. It may arrive long after its engine died.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Message {
    /// Which engine waits for the reply.
    pub(crate) engine: u8,
    pub(crate) slot: usize,
    pub(crate) seq: u8,
    /// Of whom; 0 for nobody.
    pub(crate) unique: Unique,
    pub(crate) command: Command,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Kept {
    seq: u8,
    last: Option<(Command, Reply)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Service {
    pub(crate) rows: Rows,
    slots: [Kept; SLOTS],
    /// How often the effect of a request reached the rows, and a grant for it.
    pub(crate) applied: [u8; UNIQUES],
    pub(crate) granted: [u8; UNIQUES],
    /// A slot was used out of order, a commit refused, or an entry came to another result than it was answered with.
    pub(crate) has_refused: bool,
}

impl Service {
    /// Runs a command unless it was run: as `namespace` does, a sequence number lower than the last is not answered.
    pub(crate) fn receive(&mut self, message: &Message) -> Option<Reply> {
        let kept = &self.slots[message.slot];
        if message.seq < kept.seq {
            return None;
        }
        if message.seq == kept.seq
            && let Some((command, reply)) = &kept.last
            && *command == message.command
        {
            return Some(*reply);
        }
        if message.seq != kept.seq + 1 {
            self.has_refused = true;
            return None;
        }
        let reply = match &message.command {
            Command::Batch(entries) => {
                for entry in entries {
                    let reply = self.run(entry.unique, &entry.command);
                    self.has_refused |= reply != Reply::Answer(Answer::Done);
                }
                Reply::Answer(Answer::Done)
            }
            command => self.run(message.unique, command),
        };
        self.slots[message.slot] = Kept { seq: message.seq, last: Some((message.command.clone(), reply)) };
        Some(reply)
    }

    /// Whether a message is no news: it, or a later one of its slot, was received.
    pub(crate) fn knows(&self, message: &Message) -> bool {
        message.seq <= self.slots[message.slot].seq
    }

    fn run(&mut self, unique: Unique, command: &Command) -> Reply {
        let reply = self.rows.apply(command);
        match reply {
            Reply::Answer(Answer::Done) => self.applied[unique as usize] += 1,
            Reply::Answer(_) => {}
            Reply::Grant(_) => self.granted[unique as usize] += 1,
            Reply::Refused => self.has_refused = true,
        }
        reply
    }
}
