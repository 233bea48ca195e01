//! A metadata service in memory, for tests: the real state machine, without a log.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use namespace::{Answer, Entry, Envelope, MemoryRows, Query, Reply, RowsError};
use types::Nanos;

use crate::{CallError, MetaFuture, MetaService};

/// What goes wrong with one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It is applied, and the reply is lost.
    LoseReply,
    /// It is lost before it is applied.
    LoseCall,
    /// It is refused before it is logged.
    ReadOnly,
    /// It is applied, and the service stops.
    StopAfter,
}

/// Applies commands one by one, each at a time of its own, a microsecond after the last. It forgets with the process.
#[derive(Debug, Default)]
pub struct MemoryService {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: MemoryRows,
    now: i64,
    faults: VecDeque<Fault>,
    stopped: bool,
}

impl MemoryService {
    /// A service without volumes.
    pub fn new() -> MemoryService {
        MemoryService::default()
    }

    /// The next calls meet these, one each.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, envelope: Envelope) -> Result<Reply, CallError> {
        self.now += 1000;
        let entry = Entry { time: Nanos(self.now), commands: vec![envelope] };
        let (batch, mut replies) = namespace::apply(&self.rows, &entry).map_err(stopped)?;
        self.rows.commit(&batch);
        Ok(replies.pop().expect("one command has one reply"))
    }

    fn call(&mut self, envelope: Envelope) -> Result<Reply, CallError> {
        if self.stopped {
            return Err(CallError::Stopped("stopped".into()));
        }
        match self.faults.pop_front() {
            None => self.apply(envelope),
            Some(Fault::LoseReply) => {
                self.apply(envelope)?;
                Err(CallError::Lost("the reply".into()))
            }
            Some(Fault::LoseCall) => Err(CallError::Lost("the call".into())),
            Some(Fault::ReadOnly) => Err(CallError::ReadOnly("full".into())),
            Some(Fault::StopAfter) => {
                self.apply(envelope)?;
                self.stopped = true;
                Err(CallError::Stopped("stopped".into()))
            }
        }
    }
}

fn stopped(error: RowsError) -> CallError {
    CallError::Stopped(error.to_string())
}

impl MetaService for MemoryService {
    fn call(&self, envelope: Envelope) -> MetaFuture<Reply> {
        Box::pin(std::future::ready(self.state().call(envelope)))
    }

    fn read(&self, query: Query) -> MetaFuture<Answer> {
        let state = self.state();
        let answer = match state.stopped {
            true => Err(CallError::Stopped("stopped".into())),
            false => namespace::query(&state.rows, &query).map_err(stopped),
        };
        Box::pin(std::future::ready(answer))
    }
}
