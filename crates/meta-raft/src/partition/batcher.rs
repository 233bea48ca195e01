//! Calls into entries: what came while the last append was under way goes into one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use clock::Clock;
use namespace::Entry;
use openraft::Raft;
use openraft::impls::ProgressResponder;
use openraft_rt::AsyncRuntime;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use super::{Call, Counts};
use crate::machine::{Machine, StateMachine};
use crate::raft_types::{Proposal, Types};
use crate::rows::RowStore;
use crate::runtime::Rt;
use crate::stop::Stop;

/// Entries that are proposed and not yet answered, at most.
pub(super) const IN_FLIGHT: usize = 2;

/// Commands of an entry, at most.
const COMMANDS: usize = 512;

/// Bytes of an entry beyond which no command is added.
const BYTES: usize = 256 * 1024;

/// Makes entries of calls.
pub(super) struct Batcher<R: RowStore, M: StateMachine> {
    pub(super) raft: Raft<Types, Machine<R, M>>,
    pub(super) machine: Arc<M>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) calls: mpsc::Receiver<Call>,
    /// Bytes of an entry, at most.
    pub(super) entry_max: usize,
    pub(super) space: watch::Receiver<(u64, u64)>,
    pub(super) pressed: Arc<Notify>,
    pub(super) counts: Arc<Counts>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) stop: Stop,
}

impl<R: RowStore, M: StateMachine> Batcher<R, M> {
    /// Runs until calls can come no more.
    pub(super) async fn run(mut self) {
        // A call that found no room in the entry before.
        let mut held: Option<Call> = None;
        loop {
            let first = match held.take() {
                Some(call) => call,
                None => match self.calls.recv().await {
                    Some(call) => call,
                    None => return,
                },
            };
            // The other calls after the slot: so whatever arrives while both are under way goes together.
            let Ok(slot) = self.slots.clone().acquire_owned().await else { return };
            self.wait_for_space().await;
            let mut bytes = first.bytes;
            let mut commands = vec![first.envelope];
            let mut replies = vec![first.reply];
            while commands.len() < COMMANDS && bytes < BYTES {
                let Ok(call) = self.calls.try_recv() else { break };
                if bytes + call.bytes > self.entry_max {
                    held = Some(call);
                    break;
                }
                bytes += call.bytes;
                commands.push(call.envelope);
                replies.push(call.reply);
            }
            let entry = Entry { time: self.clock.now(), commands };
            let proposal = Proposal(self.machine.encode(&entry).into());
            let (responder, answered) = ProgressResponder::complete_only();
            if let Err(error) = self.raft.client_write_ff(proposal, Some(responder)).await {
                self.stop.fail(format!("Raft stopped: {error}"));
                return;
            }
            self.counts.entries.fetch_add(1, Ordering::Relaxed);
            let stop = self.stop.clone();
            Rt::spawn(async move {
                let result = answered.await;
                drop(slot);
                match result {
                    Ok(Ok(response)) => answer(replies, response.data),
                    // The only voter leads as long as it runs, so a refusal is as bad as an end.
                    Ok(Err(error)) => stop.fail(format!("Raft refused an entry: {error}")),
                    Err(_) => stop.fail("Raft stopped and dropped an entry"),
                }
            });
        }
    }

    /// Waits while three quarters of the log are in use: the next sync of the rows makes room.
    async fn wait_for_space(&mut self) {
        loop {
            let (used, capacity) = *self.space.borrow_and_update();
            if used <= capacity / 4 * 3 {
                return;
            }
            self.pressed.notify_one();
            if self.space.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Hands each caller its reply.
fn answer(callers: Vec<oneshot::Sender<namespace::Reply>>, replies: Vec<namespace::Reply>) {
    assert!(callers.len() == replies.len(), "the state machine answers each command of an entry");
    for (caller, reply) in callers.into_iter().zip(replies) {
        // The caller may have gone away.
        let _ = caller.send(reply);
    }
}
