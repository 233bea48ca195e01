//! The log on a disk: records in the journal's batches.

use std::sync::Arc;

use device::{BlockDev, Durability};
use journal::{AppendError, Batch, Log, Lsn, Recovery, Room, Shape, Start};

use super::{LogBackend, LogError, Recovered};
use crate::rows::FormatError;

/// Bytes of a batch that its header and one record's header take, at most.
const OVERHEAD: usize = 128;

/// Raft's records in a journal of their own.
pub struct JournalLog {
    log: Log,
}

impl JournalLog {
    /// Opens the log and gives all that it holds. A torn tail, which nobody was told of, is dropped for good;
    /// anything else that is missing or damaged is an error.
    pub async fn open(
        dev: Arc<dyn BlockDev>,
        shape: Shape,
    ) -> Result<(JournalLog, Vec<Recovered>), LogError> {
        let (log, recovery) = Log::open(dev, shape, Start::Oldest).await?;
        let records = read_all(recovery).await?;
        // What was found is durable now: opening flushed it.
        log.flushed(log.end());
        Ok((JournalLog { log }, records))
    }

    /// All that a log holds, without opening it: nothing is written.
    pub async fn read(dev: Arc<dyn BlockDev>, shape: Shape) -> Result<Vec<Recovered>, LogError> {
        read_all(Recovery::read(dev, shape, Start::Oldest).await?).await
    }

    /// Writes batches one behind the other and waits until all are durable.
    async fn write(&self, batches: Vec<Batch>, room: Room) -> Result<Lsn, LogError> {
        let mut first = None;
        let mut appends = Vec::with_capacity(batches.len());
        for batch in batches {
            let append = self.log.append(batch, Durability::Durable, room)?;
            first.get_or_insert(append.lsn);
            appends.push(append);
        }
        let mut end = Lsn::default();
        for append in appends {
            append.written.await?;
            end = append.end;
        }
        self.log.flushed(end);
        Ok(first.unwrap_or(end))
    }
}

async fn read_all(mut recovery: Recovery) -> Result<Vec<Recovered>, LogError> {
    let mut records = Vec::new();
    while let Some(batch) = recovery.next().await? {
        if batch.records().any(|record| record.flags != 0) {
            let source = FormatError::Reserved { what: "log record's header" };
            return Err(LogError::Format { lsn: batch.lsn.0, source });
        }
        records.extend(batch.records().map(|record| Recovered {
            lsn: batch.lsn.0,
            kind: record.kind,
            body: record.body.to_vec(),
        }));
    }
    Ok(records)
}

impl LogBackend for JournalLog {
    async fn append(&mut self, records: Vec<(u16, Vec<u8>)>) -> Result<u64, LogError> {
        let (mut batches, mut batch) = (Vec::new(), self.log.batch());
        // What frees space may take the last of it.
        let mut room = Room::Reserve;
        for (kind, body) in records {
            if kind == crate::record::ENTRY {
                room = Room::Ordinary;
            }
            if batch.room() < body.len() {
                batches.push(std::mem::replace(&mut batch, self.log.batch()));
            }
            batch.push(kind, 0, &body).map_err(|full| LogError::TooLarge { bytes: full.bytes })?;
        }
        batches.push(batch);
        batches.retain(|batch| !batch.is_empty());
        Ok(self.write(batches, room).await?.0)
    }

    async fn free_before(&mut self, lsn: u64) -> Result<(), LogError> {
        self.log.free_before(Lsn(lsn));
        Ok(())
    }

    async fn stamp(&mut self) -> Result<(), LogError> {
        match self.write(vec![self.log.batch()], Room::Ordinary).await {
            // Whoever makes room writes, and that says the same.
            Ok(_) | Err(LogError::Append(AppendError::LogFull { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn used(&self) -> u64 {
        self.log.usage().used
    }

    fn capacity(&self) -> u64 {
        self.log.usage().capacity
    }

    fn record_max(&self) -> usize {
        self.log.shape().batch_max() as usize - OVERHEAD
    }
}
