//! What an earlier engine had accepted.

use arena::Record;
use namespace::{Answer, Attr, Query};
use types::{BLOCK, Dseq, Errno, Ino};

use crate::errno;
use crate::space::Charge;
use crate::vfs::{Parts, Vfs};
use crate::write::extend_run;

impl Vfs {
    /// A mount over the arena of an engine that is dead, and a session whose commands are all at the service
    /// ([`meta_client::Exclusive::resume`]). Extents must be numbered above those of every engine before.
    ///
    /// On return everything that was accepted shows, and is flushed as this engine's own; what a commit has taken, or
    /// nobody wants, is gone. Dropping the future leaves the arena to the next engine.
    ///
    /// # Errors
    /// If the service does not answer, or the arena is not that of the session. What was accepted stays in the arena.
    pub async fn resume(parts: Parts) -> Result<Vfs, Errno> {
        let vfs = Vfs::new(parts);
        vfs.look_at_space().await?;
        for dirty in vfs.arena.dirty(usize::MAX) {
            vfs.adopt(dirty.ino).await?;
        }
        Ok(vfs)
    }

    /// Takes over the records of an inode.
    async fn adopt(&self, ino: Ino) -> Result<(), Errno> {
        let attr = match self.ask(Query::GetAttr { volume: self.volume(), ino }).await {
            Ok(Answer::Attr(attr)) => attr,
            Ok(other) => return Err(errno::of_wrong_answer(&other)),
            // It was deleted, and the records were to go next.
            Err(Errno::ESTALE) => return self.free(ino, Dseq(u64::MAX)),
            Err(error) => return Err(error),
        };
        let records = self.arena.records(ino, Dseq(u64::MAX));
        let mapped = records.iter().take_while(|record| is_mapped(record, &attr)).count();
        let (mapped, left) = records.split_at(mapped);
        if let Some(last) = mapped.last() {
            self.free(ino, last.dseq)?;
        }
        if left.iter().any(|record| record.grant != attr.grant) {
            tracing::error!(ino = ino.0, "accepted writes have a grant that the file does not know");
            return Err(Errno::EIO);
        }
        if left.is_empty() {
            return Ok(());
        }
        let node = self.node(ino);
        let label = self.label_of(&node).await?;
        if label != Ino(0) {
            self.look_at_quotas(ino).await?;
        }
        let mut state = node.state();
        state.grant = Some(attr.grant);
        for record in left {
            let range = record.range();
            let (run, growth) =
                extend_run(state.charged_run, (range.start / BLOCK, range.end.div_ceil(BLOCK)));
            let charge = Charge::of(&range, growth, label);
            // There was room for it when it was accepted, and nothing of that was given to others.
            match self.charge_new(charge, 0) {
                true => self.add_charge(&mut state.charge, charge),
                false => tracing::warn!(ino = ino.0, "accepted data has less room than it had"),
            }
            state.charged_run = run;
            if record.kill_priv {
                state.kill_priv = Some(record.dseq);
            }
            if record.times_set {
                state.set_times(record.dseq);
            }
        }
        Ok(())
    }

    fn free(&self, ino: Ino, through: Dseq) -> Result<(), Errno> {
        self.arena.mapped(ino, through).map(drop).map_err(|failed| errno::of_memory(&failed))
    }
}

/// Whether a commit has taken it. A file gets a new grant only when all records of the one before are taken.
fn is_mapped(record: &Record, attr: &Attr) -> bool {
    record.grant < attr.grant || (record.grant == attr.grant && record.dseq <= attr.applied)
}
