//! Rows come here from the service.

use namespace::{Answer, Query};
use tokio::sync::MutexGuard;
use types::Ino;

use super::view::Missing;
use super::{Exclusive, Look, State, wrong_answer};
use crate::SessionError;

/// Rows that are fetched at once: the beginning of a directory, or what comes next of it.
const FETCH_ROWS: u32 = 1024;

/// Key and value.
type Row = (Vec<u8>, Vec<u8>);

impl Exclusive {
    /// Gets rows that were missing: `Some` with the key of a row of no inode that does not exist.
    pub(super) async fn fetch(
        &self,
        mut state: MutexGuard<'_, State>,
        missing: Missing,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        match missing {
            Missing::Blocked(_, seq) => {
                drop(state);
                self.queue.wait(seq).await?;
            }
            Missing::Shared(key) => match self.row(&key).await?.pop() {
                Some((key, value)) => state.cache.learn_shared(key, value),
                None => return Ok(Some(key)),
            },
            Missing::Rows(ino, from, to) => {
                let (first, end) = namespace::siblings(&from);
                let settled = self.queue.settled();
                let unread = state.cache.group(ino, settled).is_none_or(|group| !group.knows(&first));
                let is_one = to.len() == from.len() + 1 && to.starts_with(&from);
                // The beginning of a directory first: most are known whole after that, and then absent names too.
                let (from, to) = match unread && !is_one && first.len() < from.len() {
                    true => (first, end),
                    false => (from, to),
                };
                let (rows, until) = match is_one {
                    true => (self.row(&from).await?, to),
                    false => self.rows(&from, &to).await?,
                };
                state.cache.learn(ino, settled, &from, &until, rows);
            }
            Missing::Foreign => unreachable!("what only the service can run is not fetched"),
        }
        Ok(None)
    }

    /// Asks the service for rows.
    async fn stored(&self, query: Query) -> Result<Vec<Row>, SessionError> {
        match self.session.read(query).await? {
            Answer::Rows(rows) => Ok(rows),
            other => Err(wrong_answer(&other)),
        }
    }

    /// One row, if it exists: by its key, because a range steps over all versions that a row had lately.
    async fn row(&self, key: &[u8]) -> Result<Vec<Row>, SessionError> {
        self.stored(Query::RowsAt { keys: vec![key.to_vec()] }).await
    }

    /// Rows of a range, and where the part ends that they are all of.
    async fn rows(&self, from: &[u8], to: &[u8]) -> Result<(Vec<Row>, Vec<u8>), SessionError> {
        let query = Query::Rows { from: from.to_vec(), to: to.to_vec(), max: FETCH_ROWS };
        let rows = self.stored(query).await?;
        let until = match rows.last() {
            Some((last, _)) if rows.len() >= FETCH_ROWS as usize => {
                let mut after = last.clone();
                after.push(0);
                after
            }
            _ => to.to_vec(),
        };
        Ok((rows, until))
    }

    /// Gets the rows of all inodes at once that a directory's listing with attributes needs and that are not here.
    pub(super) async fn fetch_named(&self, state: &mut State, listing: &Query) -> Result<(), SessionError> {
        let Query::ReadDir { volume, ino, after, max, .. } = *listing else { return Ok(()) };
        let names = Query::ReadDir { volume, ino, after, max, attrs: false };
        let Look::Found(Answer::Entries(entries)) = state.answer(&self.queue, volume, &names, &[])? else {
            return Ok(());
        };
        let settled = self.queue.settled();
        let wanted: Vec<(Ino, Vec<u8>)> = entries
            .iter()
            .map(|entry| (entry.ino, namespace::inode_key(volume, entry.ino)))
            .filter(|(ino, key)| {
                let group = state.cache.group(*ino, settled);
                group.is_none_or(|group| group.blocked == 0 && !group.knows(key))
            })
            .collect();
        let keys = wanted.iter().map(|(_, key)| key.clone()).collect();
        let mut rows = self.stored(Query::RowsAt { keys }).await?.into_iter().peekable();
        for (ino, key) in wanted {
            let row = rows.next_if(|(found, _)| *found == key);
            let after = [key.as_slice(), &[0]].concat();
            state.cache.learn(ino, settled, &key, &after, row.into_iter().collect());
        }
        Ok(())
    }
}
