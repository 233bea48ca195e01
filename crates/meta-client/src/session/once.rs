//! Exactly once, with the real state machine behind calls that get lost.

use std::sync::Arc;

use namespace::{Answer, Command, Cred, Envelope, NewKind, Query, Reply};
use types::{Errno, Ino, VolumeId};

use super::Session;
use crate::memory::{Fault, MemoryService};
use crate::{MetaService, OpenSessionError, SessionError};

const ROOT: Cred = Cred { uid: 0, gid: 0 };

async fn slotless(service: &MemoryService, command: Command) -> Reply {
    service.call(Envelope { slot: None, command }).await.expect("a reply")
}

/// A service with one volume, on a node in its first start.
async fn prepared() -> (Arc<MemoryService>, VolumeId) {
    let service = Arc::new(MemoryService::new());
    assert_eq!(slotless(&service, Command::RegisterNode { node: 7, incarnation: 1 }).await, Reply::Done);
    let volume = Command::CreateVolume {
        name: b"v".to_vec(),
        limit: 1 << 30,
        hash_key: [1; 16],
        mode: 0o755,
        cred: ROOT,
    };
    match slotless(&service, volume).await {
        Reply::Volume(volume) => (service, volume),
        other => panic!("{other:?}"),
    }
}

async fn open(
    service: &Arc<MemoryService>,
    volume: VolumeId,
    incarnation: u64,
) -> Result<Session, OpenSessionError> {
    Session::open(Arc::clone(service) as Arc<dyn MetaService>, volume, 7, incarnation).await
}

fn make(name: String) -> Command {
    let name = name.into_bytes();
    Command::Create { parent: Ino::ROOT, name, kind: NewKind::File, mode: 0o644, umask: 0, cred: ROOT }
}

async fn names(session: &Session) -> usize {
    let query =
        Query::ReadDir { volume: session.info().volume, ino: Ino::ROOT, after: 2, max: 9999, attrs: false };
    match session.read(query).await {
        Ok(Answer::Entries(entries)) => entries.len(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_repeated_create_is_answered_as_the_first() {
    let (service, volume) = prepared().await;
    let session = open(&service, volume, 1).await.expect("a session");
    for n in 0..100 {
        service.fail_next([Fault::LoseReply, Fault::LoseCall, Fault::LoseReply]);
        let reply = session.call(make(format!("f{n}"))).await;
        assert!(matches!(reply, Ok(Reply::Attr(_))), "{reply:?}: a second execution answers EEXIST");
    }
    assert_eq!(names(&session).await, 100);
    let reply = session.call(make("f1".into())).await;
    assert_eq!(reply, Ok(Reply::Failed(Errno::EEXIST)), "another command is no repeat");
}

#[tokio::test]
async fn a_session_ends_with_its_node_or_its_close() {
    let (service, volume) = prepared().await;
    let first = open(&service, volume, 1).await.expect("a session");
    assert_eq!(open(&service, volume, 1).await.err(), Some(OpenSessionError::Busy));
    assert_eq!(open(&service, VolumeId(99), 1).await.err(), Some(OpenSessionError::NoVolume(VolumeId(99))));
    assert_eq!(first.settle(5).await, Ok(()));
    first.close().await.expect("closed");
    let second = open(&service, volume, 1).await.expect("the volume is free");
    assert_ne!(second.info().session, first.info().session);

    assert_eq!(slotless(&service, Command::RegisterNode { node: 7, incarnation: 2 }).await, Reply::Done);
    assert_eq!(second.call(make("late".into())).await, Err(SessionError::Fenced));
    assert_eq!(second.settle(9).await, Err(SessionError::Fenced));
    assert_eq!(open(&service, volume, 1).await.err(), Some(OpenSessionError::OldIncarnation));
    let third = open(&service, volume, 2).await.expect("a session");
    assert_eq!(names(&third).await, 0);
}
