//! Messages as bytes: docs/FORMATS/holder-protocol.md draws them.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use mounts::{Agreed, Place, Way};

use crate::kept::{KeptMount, Name};

/// The only version so far.
pub(crate) const VERSION: u16 = 1;

/// The longest message.
pub(crate) const MESSAGE_MAX: usize = 16 << 10;

const MAGIC: [u8; 4] = *b"HFKP";
const HEADER: usize = 16;

/// Longer texts are cut before they are sent.
const TEXT_MAX: usize = 4096;

/// Who speaks to a holder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Serves the mounts: one at a time.
    Engine,
    /// Keeps what the holder keeps, in case that the holder dies.
    Keeper,
}

/// What is said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    /// The first word of whoever comes.
    Hello { role: Role },
    /// The answer: how many engines were started, this one included.
    Welcome { start: u64 },
    /// The answer to what is not done.
    Refused { why: String },
    /// Asks for all that is kept.
    Take,
    /// A mount that is to be kept.
    Mount(KeptMount),
    /// A descriptor that is to be kept; it travels beside the message.
    Put { mount: u32, name: Name },
    /// That was all: so many mounts and descriptors.
    End { mounts: u32, items: u32 },
    /// A mount is let go.
    Drop { mount: u32 },
    /// The engine serves all mounts.
    Ready,
    /// The engine ends for good, and why if it failed.
    Bye { failed: Option<String> },
    /// The answer to what was done.
    Done,
    /// A keeper that has all takes the holder's place.
    Succeed,
    /// Asks for an engine of another program in the place of the one that serves.
    Replace { program: PathBuf },
}

/// Why bytes are no message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadMessage {
    /// They do not begin like one.
    #[error("these bytes are no message of the holder's protocol")]
    Magic,
    /// Another version of the protocol.
    #[error("version {0} of the holder's protocol; version {VERSION} is spoken here")]
    Version(u16),
    /// No such kind.
    #[error("a message of kind {0}, which there is not")]
    Kind(u16),
    /// The length is not what the header or the kind says.
    #[error("a message of another length than it says")]
    Length,
    /// A field has a value that it cannot have.
    #[error("a message whose field {0} cannot be so")]
    Field(&'static str),
    /// Descriptors are missing, or there are too many.
    #[error("a message with {got} descriptors beside it instead of {wanted}")]
    Descriptors {
        /// How many came.
        got: usize,
        /// How many belong to it.
        wanted: usize,
    },
}

impl Message {
    fn kind(&self) -> u16 {
        match self {
            Message::Hello { .. } => 1,
            Message::Welcome { .. } => 2,
            Message::Refused { .. } => 3,
            Message::Take => 4,
            Message::Mount(_) => 5,
            Message::Put { .. } => 6,
            Message::End { .. } => 7,
            Message::Drop { .. } => 8,
            Message::Ready => 9,
            Message::Bye { .. } => 10,
            Message::Done => 11,
            Message::Succeed => 12,
            Message::Replace { .. } => 13,
        }
    }

    /// How many descriptors travel beside it.
    pub(crate) fn descriptors(&self) -> usize {
        usize::from(matches!(self, Message::Put { .. }))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        match self {
            Message::Hello { role } => out.push(match role {
                Role::Engine => 1,
                Role::Keeper => 2,
            }),
            Message::Welcome { start } => out.extend(start.to_le_bytes()),
            Message::Refused { why } => push_bytes(&mut out, cut(why).as_bytes()),
            Message::Take | Message::Ready | Message::Done | Message::Succeed => {}
            Message::Mount(mount) => push_mount(&mut out, mount),
            Message::Replace { program } => push_bytes(&mut out, program.as_os_str().as_bytes()),
            Message::Put { mount, name } => {
                out.extend(mount.to_le_bytes());
                push_bytes(&mut out, name.as_str().as_bytes());
            }
            Message::End { mounts, items } => {
                out.extend(mounts.to_le_bytes());
                out.extend(items.to_le_bytes());
            }
            Message::Drop { mount } => out.extend(mount.to_le_bytes()),
            Message::Bye { failed } => {
                out.push(u8::from(failed.is_some()));
                push_bytes(&mut out, cut(failed.as_deref().unwrap_or_default()).as_bytes());
            }
        }
        let body = (out.len() - HEADER) as u32;
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&self.kind().to_le_bytes());
        out[8..12].copy_from_slice(&body.to_le_bytes());
        out[12..16].copy_from_slice(&(self.descriptors() as u32).to_le_bytes());
        out
    }

    /// `got` descriptors came beside the bytes.
    pub(crate) fn decode(bytes: &[u8], got: usize) -> Result<Message, BadMessage> {
        let mut header = Reader(bytes.get(..HEADER).ok_or(BadMessage::Magic)?);
        if header.take(4)? != MAGIC {
            return Err(BadMessage::Magic);
        }
        let version = header.u16()?;
        if version != VERSION {
            return Err(BadMessage::Version(version));
        }
        let (kind, length, wanted) = (header.u16()?, header.u32()? as usize, header.u32()? as usize);
        let body = &bytes[HEADER..];
        if body.len() != length {
            return Err(BadMessage::Length);
        }
        let mut body = Reader(body);
        let message = body.message(kind)?;
        if !body.0.is_empty() {
            return Err(BadMessage::Length);
        }
        match message.descriptors() {
            own if own == wanted && own == got => Ok(message),
            own => Err(BadMessage::Descriptors { got, wanted: own }),
        }
    }
}

/// At a letter's border.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u16).to_le_bytes());
    out.extend(bytes);
}

fn push_mount(out: &mut Vec<u8>, mount: &KeptMount) {
    let KeptMount { number, volume, place, agreed } = mount;
    out.extend(number.to_le_bytes());
    out.push(match place.way {
        Way::Privileged => 1,
        Way::Fusermount => 2,
    });
    out.extend(place.dev.0.to_le_bytes());
    out.extend(place.dev.1.to_le_bytes());
    out.extend(place.id.to_le_bytes());
    out.extend(agreed.minor.to_le_bytes());
    out.extend(agreed.max_readahead.to_le_bytes());
    out.extend(agreed.offered.to_le_bytes());
    out.extend(agreed.flags.to_le_bytes());
    out.extend(agreed.max_write.to_le_bytes());
    push_bytes(out, volume.as_bytes());
    push_bytes(out, place.dir.as_os_str().as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], BadMessage> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BadMessage::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadMessage> {
        self.take(N)?.try_into().map_err(|_| BadMessage::Length)
    }

    fn u8(&mut self) -> Result<u8, BadMessage> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, BadMessage> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BadMessage> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, BadMessage> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], BadMessage> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn text(&mut self, field: &'static str) -> Result<String, BadMessage> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| BadMessage::Field(field))
    }

    /// From the root on.
    fn path(&mut self, field: &'static str) -> Result<PathBuf, BadMessage> {
        let path = PathBuf::from(OsString::from_vec(self.bytes()?.to_vec()));
        if path.is_absolute() { Ok(path) } else { Err(BadMessage::Field(field)) }
    }

    fn message(&mut self, kind: u16) -> Result<Message, BadMessage> {
        Ok(match kind {
            1 => match self.u8()? {
                1 => Message::Hello { role: Role::Engine },
                2 => Message::Hello { role: Role::Keeper },
                _ => return Err(BadMessage::Field("role")),
            },
            2 => Message::Welcome { start: self.u64()? },
            3 => Message::Refused { why: self.text("why")? },
            4 => Message::Take,
            5 => Message::Mount(self.mount()?),
            6 => {
                let mount = self.u32()?;
                let name = Name::new(&self.text("name")?).map_err(|_| BadMessage::Field("name"))?;
                Message::Put { mount, name }
            }
            7 => Message::End { mounts: self.u32()?, items: self.u32()? },
            8 => Message::Drop { mount: self.u32()? },
            9 => Message::Ready,
            10 => {
                let failed = self.u8()?;
                let why = self.text("why")?;
                match failed {
                    0 if why.is_empty() => Message::Bye { failed: None },
                    1 => Message::Bye { failed: Some(why) },
                    _ => return Err(BadMessage::Field("failed")),
                }
            }
            11 => Message::Done,
            12 => Message::Succeed,
            13 => Message::Replace { program: self.path("program")? },
            other => return Err(BadMessage::Kind(other)),
        })
    }

    fn mount(&mut self) -> Result<KeptMount, BadMessage> {
        let number = self.u32()?;
        let way = match self.u8()? {
            1 => Way::Privileged,
            2 => Way::Fusermount,
            _ => return Err(BadMessage::Field("way")),
        };
        let (dev, id) = ((self.u32()?, self.u32()?), self.u64()?);
        let agreed = Agreed {
            minor: self.u32()?,
            max_readahead: self.u32()?,
            offered: self.u64()?,
            flags: self.u64()?,
            max_write: self.u32()?,
        };
        let volume = self.text("volume")?;
        let dir = self.path("dir")?;
        Ok(KeptMount { number, volume, place: Place { dir, way, dev, id }, agreed })
    }
}

#[cfg(test)]
#[path = "wire/tests.rs"]
mod tests;
