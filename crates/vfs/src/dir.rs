//! Directories, read.

use namespace::{Answer, DirEntry, FileKind, Query};
use types::{Errno, Ino};

use crate::errno;
use crate::op::{Listed, Outcome, TimeToLive};
use crate::vfs::Vfs;

/// The cookies of `.` and `..`; those of names are above.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// More entries than that are not answered at once: they are in memory as long as the answer.
const ENTRIES_MAX: u32 = 4096;

impl Vfs {
    pub(crate) async fn readdir(&self, ino: Ino, after: u64, max: u32, plus: bool) -> Result<Outcome, Errno> {
        let max = max.min(ENTRIES_MAX) as usize;
        let node = self.node(ino);
        let mut entries = Vec::new();
        let unknown = TimeToLive { entry: self.absent_ttl(), attr: self.absent_ttl() };
        let dot = |cookie, ino, name: &[u8]| Listed {
            entry: DirEntry { cookie, ino, kind: FileKind::Directory, name: name.to_vec(), attr: None },
            ttl: unknown,
        };
        if after < DOT && entries.len() < max {
            entries.push(dot(DOT, ino, b"."));
        }
        if after < DOT_DOT && entries.len() < max {
            let parent = match self.parent_of(ino).await {
                // It was removed while somebody has it open.
                Err(Errno::ENOENT | Errno::ESTALE) if node.state().is_nameless() => ino,
                parent => parent?,
            };
            entries.push(dot(DOT_DOT, parent, b".."));
        }
        if entries.len() < max {
            let query = Query::ReadDir {
                volume: self.volume(),
                ino,
                after: after.max(DOT_DOT),
                max: (max - entries.len()) as u32,
                attrs: plus,
            };
            let asked = self.table.asked();
            let named = match self.ask(query).await? {
                Answer::Entries(named) => named,
                other => return Err(errno::of_wrong_answer(&other)),
            };
            for mut entry in named {
                let mut ttl = unknown;
                if let Some(attr) = entry.attr {
                    let node = self.refer(asked, attr);
                    let (shown, shown_ttl) = self.show(&node, attr);
                    (entry.attr, ttl) = (Some(shown), shown_ttl);
                }
                entries.push(Listed { entry, ttl });
            }
        }
        if after == 0 {
            self.touch(&node);
        }
        Ok(Outcome::Entries(entries))
    }
}
