//! The mount table of this process: /proc/self/mountinfo, see proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its number.
    pub id: u64,
    /// The number of the mount it is mounted on.
    pub parent: u64,
    /// The number of its superblock.
    pub dev: (u32, u32),
    /// Where it is.
    pub dir: PathBuf,
    /// Its type, with the subtype of FUSE mounts.
    pub fstype: String,
    /// Its source.
    pub source: String,
}

/// All mounts, later ones on top of earlier ones at the same place.
pub fn rows() -> io::Result<Vec<Row>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

fn parse(line: &[u8]) -> Option<Row> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let _root = fields.next()?;
    let dir = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field: &[u8]| OsString::from_vec(unescape(field)).to_string_lossy().into_owned();
    let fstype = text(rest.next()?);
    let source = text(rest.next()?);
    Some(Row { id, parent, dev: (major.parse().ok()?, minor.parse().ok()?), dir, fstype, source })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        bytes.push(match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                rest = after;
                (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')
            }
            _ => *first,
        });
    }
    bytes
}

impl Row {
    /// What it is, for a message.
    pub(crate) fn describe(&self) -> String {
        format!("{} ({})", self.source, self.fstype)
    }

    /// Whether it lies below `dir` and not at it.
    pub fn is_below(&self, dir: &std::path::Path) -> bool {
        self.dir != dir && self.dir.starts_with(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, parse, unescape};
    use std::path::{Path, PathBuf};

    #[test]
    fn a_line_of_the_table() {
        let line = b"36 35 98:4 / /mnt\\0402 rw,noatime master:1 unbindable - fuse.holdfast holdfast:main rw,user_id=0";
        let row = Row {
            id: 36,
            parent: 35,
            dev: (98, 4),
            dir: PathBuf::from("/mnt 2"),
            fstype: "fuse.holdfast".into(),
            source: "holdfast:main".into(),
        };
        assert_eq!(parse(line), Some(row.clone()));
        assert!(
            row.is_below(Path::new("/"))
                && !row.is_below(Path::new("/mn"))
                && !row.is_below(Path::new("/mnt 2"))
        );
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 98:4 / /mnt rw -"), None);
    }

    #[test]
    fn only_whole_octal_escapes_are_undone() {
        assert_eq!(unescape(br"a\040b\134\011"), b"a b\\\t");
        assert_eq!(unescape(br"\04"), br"\04");
        assert_eq!(unescape(br"\777"), br"\777");
    }
}
