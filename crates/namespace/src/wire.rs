//! Bytes of rows and commands: fixed little-endian fields in order, counted lists, one tag byte per variant.

use alloc::vec::Vec;
use types::{Dseq, Epoch, Errno, ExtentId, Grant, GroupId, Ino, LayoutId, Nanos, SessionId, VolumeId};

/// Why bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// A field reaches past the end.
    #[error("the bytes end inside a field")]
    Short,
    /// Something follows the last field.
    #[error("{0} bytes follow the last field")]
    Trailing(usize),
    /// Written by a program that this one does not know.
    #[error("version {0} is unknown")]
    Version(u8),
    /// A variant that does not exist.
    #[error("{what} has no variant {tag}")]
    Tag {
        /// The type.
        what: &'static str,
        /// The byte found.
        tag: u8,
    },
    /// A list or a number is larger than any program writes.
    #[error("{0} is over its bound")]
    Bound(&'static str),
}

/// The rest of some bytes.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        if len > self.0.len() {
            return Err(DecodeError::Short);
        }
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(head)
    }

    /// The next byte, which stays.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// The value, if nothing follows it.
    pub(crate) fn whole<T: Wire>(mut self) -> Result<T, DecodeError> {
        let value = T::read(&mut self)?;
        match self.0.len() {
            0 => Ok(value),
            rest => Err(DecodeError::Trailing(rest)),
        }
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    fn left(&self) -> usize {
        self.0.len()
    }
}

/// A type with one byte form.
pub(crate) trait Wire: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The items without their count.
    fn write_all(items: &[Self], out: &mut Vec<u8>) {
        for item in items {
            item.write(out);
        }
    }

    fn read_all(count: usize, from: &mut Reader<'_>) -> Result<Vec<Self>, DecodeError> {
        // Every item takes at least a byte, so a forged count cannot ask for more memory than it brought.
        if count > from.left() {
            return Err(DecodeError::Short);
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(Self::read(from)?);
        }
        Ok(items)
    }
}

impl Wire for u8 {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn read(from: &mut Reader<'_>) -> Result<u8, DecodeError> {
        Ok(from.take(1)?[0])
    }

    fn write_all(items: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(items);
    }

    fn read_all(count: usize, from: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
        Ok(from.take(count)?.to_vec())
    }
}

macro_rules! wire_number {
    ($($number:ty),*) => {
        $(impl Wire for $number {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn read(from: &mut Reader<'_>) -> Result<$number, DecodeError> {
                Ok(<$number>::from_le_bytes(from.array()?))
            }
        })*
    };
}

wire_number!(u16, u32, u64, i32, i64);

macro_rules! wire_newtype {
    ($($name:ident),*) => {
        $(impl Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                self.0.write(out);
            }

            fn read(from: &mut Reader<'_>) -> Result<$name, DecodeError> {
                Ok($name(Wire::read(from)?))
            }
        })*
    };
}

wire_newtype!(Dseq, Epoch, Errno, Grant, GroupId, Ino, LayoutId, Nanos, VolumeId);

impl Wire for SessionId {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<SessionId, DecodeError> {
        let id = u64::read(from)?;
        if id < 1 << 48 { Ok(SessionId(id)) } else { Err(DecodeError::Bound("a session id")) }
    }
}

impl Wire for ExtentId {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Result<ExtentId, DecodeError> {
        Ok(ExtentId::from_bytes(&from.array()?))
    }
}

impl Wire for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn read(from: &mut Reader<'_>) -> Result<bool, DecodeError> {
        match u8::read(from)? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::Tag { what: "a flag", tag }),
        }
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<[u8; N], DecodeError> {
        from.array()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        let count = u32::try_from(self.len()).expect("no list of a command or row has 2^32 items");
        count.write(out);
        T::write_all(self, out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Vec<T>, DecodeError> {
        let count = u32::read(from)?;
        T::read_all(count as usize, from)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Option<T>, DecodeError> {
        if bool::read(from)? { Ok(Some(T::read(from)?)) } else { Ok(None) }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<(A, B), DecodeError> {
        Ok((A::read(from)?, B::read(from)?))
    }
}

/// The fields of a struct, in the order written here: that order is the format.
macro_rules! wire_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn write(&self, out: &mut alloc::vec::Vec<u8>) {
                $($crate::wire::Wire::write(&self.$field, out);)*
            }

            fn read(
                from: &mut $crate::wire::Reader<'_>,
            ) -> Result<$name, $crate::wire::DecodeError> {
                Ok($name { $($field: $crate::wire::Wire::read(from)?),* })
            }
        }
    };
}

/// A tag byte, then the variant's fields in the order written here.
macro_rules! wire_enum {
    ($name:ident { $($tag:literal => $variant:ident $(( $($item:ident),* ))? $({ $($field:ident),* $(,)? })?),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn write(&self, out: &mut alloc::vec::Vec<u8>) {
                match self {
                    $($name::$variant $(( $($item),* ))? $({ $($field),* })? => {
                        out.push($tag);
                        $($($crate::wire::Wire::write($item, out);)*)?
                        $($($crate::wire::Wire::write($field, out);)*)?
                    })*
                }
            }

            fn read(
                from: &mut $crate::wire::Reader<'_>,
            ) -> Result<$name, $crate::wire::DecodeError> {
                let tag = <u8 as $crate::wire::Wire>::read(from)?;
                match tag {
                    $($tag => {
                        $($(let $item = $crate::wire::Wire::read(from)?;)*)?
                        $($(let $field = $crate::wire::Wire::read(from)?;)*)?
                        Ok($name::$variant $(( $($item),* ))? $({ $($field),* })?)
                    })*
                    tag => Err($crate::wire::DecodeError::Tag { what: stringify!($name), tag }),
                }
            }
        }
    };
}

pub(crate) use {wire_enum, wire_struct};
