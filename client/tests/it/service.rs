//! A metadata service in memory: the real state machine over an ordered map.

use std::sync::{Arc, Mutex, PoisonError};

use clock::{Clock, SystemClock};
use meta_client::{CallError, MetaFuture, MetaService};
use namespace::{Answer, Command, Cred, Entry, Envelope, MemoryRows, Query, Reply};
use types::GroupId;

/// A partition with one volume, `main`, and one group.
pub struct MemoryMeta {
    rows: Mutex<MemoryRows>,
    clock: SystemClock,
}

impl MemoryMeta {
    pub fn new() -> (Arc<MemoryMeta>, GroupId) {
        let meta = MemoryMeta { rows: Mutex::default(), clock: SystemClock::new() };
        let cred = Cred { uid: 0, gid: 0 };
        let volume = Command::CreateVolume {
            name: b"main".to_vec(),
            limit: 1 << 40,
            hash_key: [7; 16],
            mode: 0o755,
            cred,
        };
        assert!(matches!(meta.apply(Envelope { slot: None, command: volume }), Reply::Volume(_)));
        let disk = Command::AddDisk { disk: [1; 16], bytes: 1 << 40 };
        assert_eq!(meta.apply(Envelope { slot: None, command: disk }), Reply::Done);
        let group = Command::AddGroup { disks: vec![[1; 16]] };
        let Reply::Group(group) = meta.apply(Envelope { slot: None, command: group }) else {
            panic!("no group was made")
        };
        (Arc::new(meta), group)
    }

    /// A start of the node.
    pub fn register(&self, node: u64, incarnation: u64) {
        let command = Command::RegisterNode { node, incarnation };
        assert_eq!(self.apply(Envelope { slot: None, command }), Reply::Done);
    }

    fn apply(&self, envelope: Envelope) -> Reply {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry { time: self.clock.now(), commands: vec![envelope] };
        let (batch, mut replies) =
            namespace::apply(&*rows, &entry).expect("rows that the state machine wrote");
        rows.commit(&batch);
        replies.remove(0)
    }
}

impl MetaService for MemoryMeta {
    fn call(&self, envelope: Envelope) -> MetaFuture<Reply> {
        let reply = self.apply(envelope);
        Box::pin(async move {
            tokio::task::yield_now().await; // so that no answer is there at once, as with a disk
            Ok(reply)
        })
    }

    fn read(&self, query: Query) -> MetaFuture<Answer> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = namespace::query(&*rows, &query).map_err(|error| CallError::Stopped(error.to_string()));
        Box::pin(std::future::ready(answer))
    }
}
