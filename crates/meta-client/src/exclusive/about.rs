//! What commands and questions are about.

use namespace::{Command, Content, Query};
use types::{ExtentId, Ino};

/// Extents that the command brings in; `None` if it also names others, whose rows only the service has.
pub(super) fn fresh_extents(command: &Command) -> Option<Vec<ExtentId>> {
    let Command::Commit(commit) = command else { return Some(Vec::new()) };
    let Content::Segments { extents, segments } = &commit.content else { return Some(Vec::new()) };
    let fresh: Vec<ExtentId> = extents.iter().map(|extent| extent.id).collect();
    segments.iter().all(|segment| fresh.contains(&segment.extent)).then_some(fresh)
}

/// The inode to whose map the command adds: if nothing is known of it, it most likely has one, which only the service has,
/// and fetching its row to find out is not worth the while.
pub(super) fn inode_with_map(command: &Command) -> Option<Ino> {
    match command {
        Command::Commit(commit) if matches!(commit.content, Content::Segments { .. }) => Some(commit.ino),
        _ => None,
    }
}

/// The inodes whose rows a command may change that only the service can run; `None`: it can be any.
pub(super) fn inodes_of(command: &Command) -> Option<Vec<Ino>> {
    match command {
        Command::Commit(commit) => Some(vec![commit.ino]),
        // The source stays as it is.
        Command::CopyRange { to, .. } => Some(vec![*to]),
        Command::SetAttr { ino, .. }
        | Command::Fallocate { ino, .. }
        | Command::SetXattr { ino, .. }
        | Command::RemoveXattr { ino, .. }
        | Command::GrantWrite { ino }
        | Command::Rewrite { ino, .. }
        | Command::Touch { ino, .. } => Some(vec![*ino]),
        _ => None,
    }
}

/// The inode whose data, or size, a command may change.
pub(super) fn content_of(command: &Command) -> Option<Ino> {
    match command {
        Command::Commit(commit) => Some(commit.ino),
        Command::SetAttr { ino, set, .. } if set.size.is_some() => Some(*ino),
        Command::Fallocate { ino, .. } => Some(*ino),
        Command::CopyRange { to, .. } => Some(*to),
        _ => None,
    }
}

/// The inode that a question is about, if it can be answered from an inode's rows.
pub(super) fn inode_of(query: &Query) -> Option<Ino> {
    match query {
        Query::Lookup { parent: ino, .. }
        | Query::GetAttr { ino, .. }
        | Query::Parent { ino, .. }
        | Query::ReadDir { ino, .. }
        | Query::ReadLink { ino, .. }
        | Query::GetXattr { ino, .. }
        | Query::ListXattr { ino, .. }
        | Query::Map { ino, .. } => Some(*ino),
        _ => None,
    }
}

/// Whether a question is about what the service does by itself, which no command has to come there for.
pub(super) fn is_of_service(query: &Query) -> bool {
    matches!(
        query,
        Query::Volume { .. }
            | Query::VolumeByName { .. }
            | Query::Volumes
            | Query::Groups
            | Query::Disks
            | Query::Scattered { .. }
            | Query::Sessions { .. }
            | Query::DeadExtents { .. }
            | Query::Garbage { .. }
            | Query::ExtentRows { .. }
            | Query::Time
    )
}
