//! A mount's registration with its volume's partition.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use namespace::{Answer, Command, Envelope, Query, Reply, SessionInfo, SlotRef};
use tokio::sync::Semaphore;
use types::{Errno, VolumeId};

use crate::owed::Owed;
use crate::slots::{SLOTS, SlotTable};
use crate::{CallError, MetaService};

/// How often a command whose reply was lost is sent again before the session gives up.
const REPEATS_MAX: u32 = 16;

/// Why a session was not opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenSessionError {
    /// Another session has the volume exclusively.
    #[error("the volume is mounted elsewhere")]
    Busy,
    /// There is no such volume.
    #[error("there is no volume {0}")]
    NoVolume(VolumeId),
    /// The node has been started again since: this process is an old one.
    #[error("this node was started again elsewhere with the same identity")]
    OldIncarnation,
    /// The service refused with an error that opening a session does not have.
    #[error("the metadata service refused the session: {0}")]
    Refused(Errno),
    /// The service answered something that is no answer to the command.
    #[error("the metadata service does not speak our protocol")]
    Protocol,
    /// There was no answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a command or a read of a session has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SessionError {
    /// The session was closed or fenced by the service: the command was not applied, and no later one will be.
    #[error("the session is over: another one may have the volume")]
    Fenced,
    /// The session was closed here.
    #[error("the session is closed")]
    Closed,
    /// The service found a slot used out of order. It is a bug, and the session is of no more use.
    #[error("a command slot was used out of order: this is a bug; unmount and mount again")]
    SlotMisuse,
    /// The service came to another result than this mount, which had answered for it already. It is a bug: what the
    /// mount answered since cannot be kept.
    #[error(
        "the metadata service disagrees with what this mount did: {0}; this is a bug; unmount and mount again"
    )]
    Diverged(String),
    /// The service gave no answer. After `ReadOnly` the session goes on; after anything else it is of no more use,
    /// and whether the command was applied is unknown.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// One mount's registration with the partition of its volume. Cheap to share behind an `Arc`.
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    service: Arc<dyn MetaService>,
    info: SessionInfo,
    /// As many permits as `slots` has free ones.
    permits: Semaphore,
    slots: Mutex<SlotTable>,
    /// Why the session is over, once it is.
    over: Mutex<Option<SessionError>>,
}

impl Session {
    /// Registers a mount of `volume` on `node`, in the start `incarnation` of that node.
    ///
    /// Durable on return. Dropping the future may leave an open session behind, which a later incarnation of the node
    /// closes.
    pub async fn open(
        service: Arc<dyn MetaService>,
        volume: VolumeId,
        node: u64,
        incarnation: u64,
    ) -> Result<Session, OpenSessionError> {
        let command = Command::OpenSession { volume, node, incarnation };
        let info = match service.call(Envelope { slot: None, command }).await? {
            Reply::Session(info) => info,
            Reply::Failed(Errno::EBUSY) => return Err(OpenSessionError::Busy),
            Reply::Failed(Errno::ENOENT) => return Err(OpenSessionError::NoVolume(volume)),
            Reply::Failed(Errno::ESTALE) => return Err(OpenSessionError::OldIncarnation),
            Reply::Failed(errno) => return Err(OpenSessionError::Refused(errno)),
            _ => return Err(OpenSessionError::Protocol),
        };
        Ok(Session::with(service, info, SlotTable::new()))
    }

    /// Goes on with a session that another process opened, which used its first slot only, and there `answered` as the last
    /// sequence whose fate is known. That process is dead: two would void each other's commands.
    ///
    /// # Errors
    /// `Fenced` if the session is not open any more.
    pub(crate) async fn resume(
        service: Arc<dyn MetaService>,
        info: SessionInfo,
        answered: u64,
    ) -> Result<Session, SessionError> {
        match service.read(Query::Sessions { volume: info.volume }).await? {
            Answer::Sessions(open) if open.contains(&info) => {
                Ok(Session::with(service, info, SlotTable::resumed(answered)))
            }
            _ => Err(SessionError::Fenced),
        }
    }

    fn with(service: Arc<dyn MetaService>, info: SessionInfo, slots: SlotTable) -> Session {
        let (permits, slots) = (Semaphore::new(SLOTS), Mutex::new(slots));
        let inner = Inner { service, info, permits, slots, over: Mutex::new(None) };
        Session { inner: Arc::new(inner) }
    }

    /// The sequence of the next [`Session::call`], of a session that has one command in flight at a time.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.inner.slots().next_of_first()
    }

    /// Which session it is.
    pub fn info(&self) -> SessionInfo {
        self.inner.info
    }

    /// Logs and applies a command of the mount, once. Its effect is durable when the reply arrives; `Reply::Failed`
    /// is a reply.
    ///
    /// At most 256 are in flight; more wait for their turn. Dropping the future before it was first polled, or while
    /// it waits for its turn, does nothing; later it leaves the command to be applied, and a task of the current tokio
    /// runtime waits for its reply, because the slot must not be used before.
    pub async fn call(&self, command: Command) -> Result<Reply, SessionError> {
        let inner = &self.inner;
        let permit = inner.permits.acquire().await.map_err(|_closed| inner.why_over())?;
        let (slot, seq) = inner.slots().take().expect("a permit is a free slot");
        permit.forget();
        let info = inner.info;
        let slot_ref = SlotRef { volume: info.volume, session: info.session, epoch: info.epoch, slot, seq };
        let envelope = Envelope { slot: Some(slot_ref), command };
        let slot_use = Arc::clone(inner).use_slot(slot, envelope);
        Owed::new(slot_use).await
    }

    /// Reads rows that hold the effect of every command answered before this was called. Dropping it is safe.
    pub async fn read(&self, query: Query) -> Result<Answer, SessionError> {
        if let Some(over) = self.inner.over().clone() {
            return Err(over);
        }
        Ok(self.inner.service.read(query).await?)
    }

    /// Tells the service that every extent counter below `mark` is committed or given up: later commits of them are
    /// refused, and fragments of them that no row names are garbage.
    ///
    /// Durable on return. The mark never moves down, so a repeat or a dropped future does no harm.
    pub async fn settle(&self, mark: u64) -> Result<(), SessionError> {
        let SessionInfo { volume, session, .. } = self.inner.info;
        let command = Command::Settle { volume, session, settled: mark };
        if let Some(over) = self.inner.over().clone() {
            return Err(over);
        }
        match self.inner.send(Envelope { slot: None, command }).await? {
            Reply::Done => Ok(()),
            _ => Err(self.inner.end(SessionError::Fenced)),
        }
    }

    /// Ends the session when every command in flight has its reply; later ones get `Closed`.
    ///
    /// Durable on return. Dropping the future leaves the session open until a later incarnation of the node.
    pub async fn close(&self) -> Result<(), SessionError> {
        let inner = &self.inner;
        let all = inner.permits.acquire_many(SLOTS as u32).await.map_err(|_closed| inner.why_over())?;
        all.forget();
        let SessionInfo { volume, session, .. } = inner.info;
        let command = Command::CloseSession { volume, session };
        let reply = inner.send(Envelope { slot: None, command }).await;
        inner.end(SessionError::Closed);
        match reply? {
            Reply::Done => Ok(()),
            _ => Err(SessionError::Fenced),
        }
    }
}

impl Inner {
    /// Sends a command under a taken slot and settles what becomes of the slot.
    async fn use_slot(self: Arc<Inner>, slot: u8, envelope: Envelope) -> Result<Reply, SessionError> {
        match self.send(envelope).await {
            Ok(Reply::Fenced) => Err(self.end(SessionError::Fenced)),
            // Nobody waits for an older sequence of a slot: it is taken again only after its reply.
            Ok(Reply::SlotMisuse | Reply::ReplyGone) => Err(self.end(SessionError::SlotMisuse)),
            Ok(reply) => {
                self.slots().answered(slot);
                self.permits.add_permits(1);
                Ok(reply)
            }
            Err(error @ CallError::ReadOnly(_)) => {
                self.slots().unused(slot);
                self.permits.add_permits(1);
                Err(error.into())
            }
            Err(error) => Err(self.end(error.into())),
        }
    }

    /// Sends until there is a reply or an error that a repeat does not help. The same envelope each time: the service
    /// knows a repeat by its slot, and commands without a slot are idempotent.
    async fn send(&self, envelope: Envelope) -> Result<Reply, CallError> {
        let mut lost = None;
        for _ in 0..=REPEATS_MAX {
            match (self.service.call(envelope.clone()).await, lost.take()) {
                (Err(error @ CallError::Lost(_)), _) => lost = Some(error),
                // Refused now, but an earlier sending may have been applied.
                (Err(CallError::ReadOnly(_)), Some(earlier)) => return Err(earlier),
                (answer, _) => return answer,
            }
        }
        Err(lost.expect("only a lost reply is repeated"))
    }

    /// Notes why the session is of no more use, unless a reason is known, and turns waiting callers away.
    fn end(&self, why: SessionError) -> SessionError {
        let mut over = self.over();
        if over.is_none() {
            tracing::debug!(session = %self.info.session, reason = %why, "the session ends");
            *over = Some(why.clone());
            self.permits.close();
        }
        why
    }

    fn why_over(&self) -> SessionError {
        self.over().clone().unwrap_or(SessionError::Closed)
    }

    fn over(&self) -> MutexGuard<'_, Option<SessionError>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, SlotTable> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod once;
#[cfg(test)]
mod tests;
