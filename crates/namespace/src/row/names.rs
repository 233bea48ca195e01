//! `D`, `P`, `X`, `Y`: names, back-pointers, extended attributes, targets.

use alloc::vec::Vec;
use types::Ino;

use crate::query::FileKind;
use crate::wire::wire_struct;

/// `D`, by directory and cookie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Dentry {
    pub(crate) ino: Ino,
    pub(crate) kind: FileKind,
    pub(crate) name: Vec<u8>,
}
wire_struct!(Dentry { ino, kind, name });

/// `X`, by inode and name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Xattr {
    pub(crate) value: Vec<u8>,
}
wire_struct!(Xattr { value });

/// `Y`, by inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) path: Vec<u8>,
}
wire_struct!(Target { path });
