//! What is explored: who does what, how often engines die, and which mistake they make.

/// How many applications there are. Each has one system call in flight.
pub(crate) const APPS: usize = 2;

/// Calls of one application at most.
pub(crate) const CALLS_MAX: usize = 4;

/// What an application asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Op {
    /// write(2) of a value over the whole file.
    Write(u8),
    /// write(2) with O_APPEND: the value becomes one more than it is.
    Append,
    /// ftruncate(2) to nothing. Only on exclusive mounts.
    Truncate,
    /// creat(2) with O_EXCL of the one name.
    Create,
    /// unlink(2) of it.
    Unlink,
    /// renameat2(2) with RENAME_EXCHANGE of two names.
    Exchange,
    /// read(2), stat(2) and a lookup in one: everything that can be seen.
    Read,
    /// fsync(2).
    Fsync,
}

/// Who runs commands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// The service: each goes through a command slot and is answered with the service's reply. The first write takes
    /// a write grant, so that it has two steps.
    Shared,
    /// The mount: each goes into the journal and is answered at once; batches of the journal go through one slot.
    Exclusive,
}

/// A way to get the take-over wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mistake {
    /// The new engine does not wait for the old one's death.
    NoWait,
    /// The resend is asked for when requests were read already.
    ResendAfterRead,
    /// A command is sent before its slot is in the arena.
    SlotAfterSend,
    /// A write is answered before its record is accepted.
    RecordAfterReply,
    /// A command is answered before it is in the journal.
    JournalAfterReply,
    /// Requests that come again are not compared with records.
    RecordsNotMatched,
    /// A mapped record is freed although its request can come again.
    RecordFreedEarly,
    /// A settled journal entry is freed although its request can come again.
    EntryFreedEarly,
    /// A command slot is freed although its request can come again.
    SlotFreedEarly,
    /// A busy slot is sent again with a new sequence number.
    NewSequence,
    /// The journal is replayed over rows of the service before the fate of the batch in flight is known.
    RowsBeforeBatch,
    /// Records are compared with the service's rows instead of the rows with the journal over them.
    RecordsAgainstService,
    /// A batch's slot is freed before the mark of what is settled is stored.
    SlotBeforeMark,
    /// Without RESEND: a request is copied to its request slot after it was read.
    CopyAfterRead,
    /// Without RESEND: a request slot does not say what the answer is before it is given.
    NoAnswerInSlot,
}

/// One exploration.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Who runs commands.
    pub mode: Mode,
    /// Whether the kernel has FUSE_NOTIFY_RESEND (Linux 6.9). If not, requests are read into request slots.
    pub resend: bool,
    /// The calls of each application, in order; at most four each.
    pub scripts: [&'static [Op]; APPS],
    /// How often an engine dies, at most.
    pub deaths: u8,
    /// What the engines get wrong.
    pub mistake: Option<Mistake>,
}

impl Scope {
    pub(crate) fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    pub(crate) fn is_exclusive(&self) -> bool {
        self.mode == Mode::Exclusive
    }
}
