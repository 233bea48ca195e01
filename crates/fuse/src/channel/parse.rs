//! Requests as operations. Nothing here does I/O, and no bytes make it panic.

use namespace::{NewKind, SetAttr, SetTime};
use types::{Errno, Ino, Nanos};
use vfs::{Handle, Op};

use super::header::Header;
use super::reply::Shape;
use super::wire::{FSYNC_FDATASYNC, Fields, Malformed, WRITE_KILL_SUIDGID, fattr, opcode as code};
use crate::convert;

/// What is to be done with a request.
#[derive(PartialEq, Debug)]
pub(super) enum Call {
    /// Run it, and answer in this shape.
    Run(Op, Shape),
    /// Answer with the error.
    Refuse(Errno),
    /// Answer that it is done.
    Done,
    /// Drop references of inodes; nobody waits for an answer.
    Forget(Vec<(Ino, u64)>),
    /// Whoever waits for the request of this number would rather not; nobody waits for an answer.
    Interrupt(u64),
    /// Nobody waits for an answer.
    Ignore,
}

/// How many names are asked for, without and with attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) names: u32,
    pub(super) plus: u32,
}

/// Any request but WRITE.
pub(super) fn request(header: &Header, body: &[u8], asked: Asked) -> Result<Call, Malformed> {
    let mut fields = Fields(body);
    let (call, ino) = (&mut fields, header.node);
    match header.opcode {
        code::LOOKUP => run(Op::Lookup { parent: ino, name: call.name()? }, Shape::Entry),
        code::FORGET => Ok(Call::Forget(vec![(ino, call.u64()?)])),
        code::BATCH_FORGET => forgets(call),
        code::GETATTR => run(Op::GetAttr { ino }, Shape::Attr),
        code::STATX => run(Op::GetAttr { ino }, Shape::Statx),
        code::SETATTR => setattr(ino, call),
        code::READLINK => run(Op::ReadLink { ino }, Shape::Bytes),
        code::SYMLINK | code::MKNOD | code::MKDIR | code::CREATE => create(header, call),
        code::UNLINK => run(Op::Unlink { parent: ino, name: call.name()? }, Shape::Empty),
        code::RMDIR => run(Op::Rmdir { parent: ino, name: call.name()? }, Shape::Empty),
        code::RENAME | code::RENAME2 => rename(header, call),
        code::LINK => {
            let linked = Ino(call.u64()?);
            run(Op::Link { ino: linked, parent: ino, name: call.name()? }, Shape::Entry)
        }
        code::OPEN => run(Op::Open { ino, flags: convert::open_flags(call.u32()? as i32) }, Shape::Open),
        code::OPENDIR => run(Op::OpenDir { ino }, Shape::Open),
        code::READ | code::READDIR | code::READDIRPLUS => read(header, call, asked),
        code::STATFS => run(Op::StatFs { ino }, Shape::StatFs),
        code::FLUSH | code::RELEASE | code::RELEASEDIR => close(header, call),
        code::FSYNC | code::FSYNCDIR => sync(header, call),
        code::SETXATTR | code::GETXATTR | code::LISTXATTR | code::REMOVEXATTR => xattr(header, call),
        code::FALLOCATE => fallocate(ino, call),
        code::LSEEK => seek(ino, call),
        code::COPY_FILE_RANGE | code::COPY_FILE_RANGE_64 => copy(header, call),
        code::INTERRUPT => Ok(Call::Interrupt(call.u64()? & !mounts::RESENT)),
        code::DESTROY => Ok(Call::Done),
        code::NOTIFY_REPLY => Ok(Call::Ignore),
        code::IOCTL => Ok(Call::Refuse(Errno::ENOTTY)),
        // ENOSYS makes the kernel remember and do it itself (poll: always ready; O_TMPFILE: not there). Locks are not
        // negotiated, so they never come.
        _ => Ok(Call::Refuse(Errno::ENOSYS)),
    }
}

/// A WRITE: its fields, and its data, which need not lie behind them.
pub(super) fn write(header: &Header, body: &[u8], data: impl FnOnce() -> Vec<u8>) -> Result<Call, Malformed> {
    let mut fields = Fields(body);
    let handle = Handle(fields.u64()?);
    let offset = fields.u64()?;
    let size = fields.u32()?;
    let kill_priv = fields.u32()? & WRITE_KILL_SUIDGID != 0;
    fields.skip::<16>()?; // lock owner, flags of the open file
    let data = data();
    if data.len() != size as usize {
        return Err(Malformed::Length { said: u64::from(size), came: data.len() as u64 });
    }
    run(Op::Write { ino: header.node, handle, offset, data, kill_priv }, Shape::Written)
}

fn run(op: Op, shape: Shape) -> Result<Call, Malformed> {
    Ok(Call::Run(op, shape))
}

/// An operation, unless one of its arguments is refused.
fn run_if(op: Result<Op, Errno>, shape: Shape) -> Result<Call, Malformed> {
    Ok(op.map_or_else(Call::Refuse, |op| Call::Run(op, shape)))
}

fn forgets(fields: &mut Fields<'_>) -> Result<Call, Malformed> {
    let count = fields.u32()?;
    fields.skip::<4>()?;
    let came = fields.0.len() as u64 / 16;
    if u64::from(count) > came {
        return Err(Malformed::Length { said: u64::from(count), came });
    }
    let forgets = (0..count).map(|_| Ok((Ino(fields.u64()?), fields.u64()?)));
    forgets.collect::<Result<_, _>>().map(Call::Forget)
}

fn setattr(ino: Ino, fields: &mut Fields<'_>) -> Result<Call, Malformed> {
    let valid = fields.u32()?;
    fields.skip::<12>()?; // padding, handle
    let size = fields.u64()?;
    fields.skip::<8>()?; // lock owner
    let secs = (fields.u64()? as i64, fields.u64()? as i64);
    fields.skip::<8>()?; // ctime: comes only with the kernel's write-back cache
    let nanos = (fields.u32()?, fields.u32()?);
    fields.skip::<4>()?;
    let mode = fields.u32()?;
    fields.skip::<4>()?;
    let owner = (fields.u32()?, fields.u32()?);
    fields.skip::<4>()?;
    let given = |bit: u32| valid & bit != 0;
    let time = |to: u32, now: u32, secs, nanos| match () {
        () if given(now) => Some(SetTime::Now),
        () if given(to) => Some(SetTime::To(Nanos::from_parts(secs, nanos))),
        () => None,
    };
    let set = SetAttr {
        mode: given(fattr::MODE).then_some(mode & 0o7777),
        uid: given(fattr::UID).then_some(owner.0),
        gid: given(fattr::GID).then_some(owner.1),
        size: given(fattr::SIZE).then_some(size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, secs.0, nanos.0),
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, secs.1, nanos.1),
    };
    // Under HANDLE_KILLPRIV_V2 dropping set-id bits is ours: at each chown, which the kernel does not flag, and where it
    // does. What sets nothing is its "only drop the set-id bits".
    let chown = given(fattr::UID | fattr::GID);
    let kill_priv = given(fattr::KILL_SUIDGID) || chown || set == SetAttr::default();
    run(Op::SetAttr { ino, set, kill_priv }, Shape::Attr)
}

fn create(header: &Header, fields: &mut Fields<'_>) -> Result<Call, Malformed> {
    let parent = header.node;
    let (kind, mode, umask, open, name);
    match header.opcode {
        code::SYMLINK => {
            name = fields.name()?;
            (mode, umask, open) = (0o777, 0, None);
            kind = Ok(NewKind::Symlink(fields.name()?));
        }
        code::MKNOD => {
            (mode, open) = (fields.u32()?, None);
            let rdev = fields.u32()?;
            umask = fields.u32()?;
            fields.skip::<4>()?;
            name = fields.name()?;
            kind = convert::new_kind(mode, rdev);
        }
        code::MKDIR => {
            (mode, umask, open) = (fields.u32()?, fields.u32()?, None);
            name = fields.name()?;
            kind = Ok(NewKind::Directory);
        }
        _ => {
            open = Some(convert::open_flags(fields.u32()? as i32));
            (mode, umask) = (fields.u32()?, fields.u32()?);
            fields.skip::<4>()?;
            name = fields.name()?;
            kind = Ok(NewKind::File);
        }
    }
    let shape = if open.is_some() { Shape::Created } else { Shape::Entry };
    run_if(kind.map(|kind| Op::Create { parent, name, kind, mode: mode & 0o7777, umask, open }), shape)
}

fn rename(header: &Header, fields: &mut Fields<'_>) -> Result<Call, Malformed> {
    let (parent, new_parent) = (header.node, Ino(fields.u64()?));
    let mut flags = 0;
    if header.opcode == code::RENAME2 {
        flags = fields.u32()?;
        fields.skip::<4>()?;
    }
    let (name, new_name) = (fields.name()?, fields.name()?);
    let flags = convert::rename_flags(fuser::RenameFlags::from_bits_retain(flags));
    run_if(flags.map(|flags| Op::Rename { parent, name, new_parent, new_name, flags }), Shape::Empty)
}

fn read(header: &Header, fields: &mut Fields<'_>, asked: Asked) -> Result<Call, Malformed> {
    let (ino, handle) = (header.node, Handle(fields.u64()?));
    let (offset, size) = (fields.u64()?, fields.u32()?);
    fields.skip::<20>()?; // flags, lock owner
    let list = |max, plus| Op::ReadDir { ino, handle, after: offset, max, plus };
    match header.opcode {
        code::READ => run(Op::Read { ino, handle, offset, len: size }, Shape::Bytes),
        code::READDIR => run(list(asked.names, false), Shape::Listing { size, asked: asked.names }),
        _ => run(list(asked.plus, true), Shape::ListingPlus { size, asked: asked.plus }),
    }
}

fn close(header: &Header, fields: &mut Fields<'_>) -> Result<Call, Malformed> {
    let (ino, handle) = (header.node, Handle(fields.u64()?));
    fields.skip::<16>()?; // flags, lock owner
    let op = match header.opcode {
        code::FLUSH => Op::Flush { ino, handle },
        code::RELEASE => Op::Release { ino, handle },
        _ => Op::ReleaseDir { ino, handle },
    };
    run(op, Shape::Empty)
}

fn sync(header: &Header, fields: &mut Fields<'_>) -> Result<Call, Malformed> {
    let (ino, handle) = (header.node, Handle(fields.u64()?));
    let data_only = fields.u32()? & FSYNC_FDATASYNC != 0;
    fields.skip::<4>()?;
    let op = match header.opcode {
        code::FSYNC => Op::Fsync { ino, handle, data_only },
        _ => Op::FsyncDir { ino, handle, data_only },
    };
    run(op, Shape::Empty)
}

fn xattr(header: &Header, fields: &mut Fields<'_>) -> Result<Call, Malformed> {
    let ino = header.node;
    match header.opcode {
        code::SETXATTR => {
            let (size, flags) = (fields.u32()?, fields.u32()? as i32);
            let (name, value) = (fields.name()?, fields.bytes(size)?.to_vec());
            let op = convert::xattr_mode(flags).map(|mode| Op::SetXattr { ino, name, value, mode });
            run_if(op, Shape::Empty)
        }
        code::REMOVEXATTR => run(Op::RemoveXattr { ino, name: fields.name()? }, Shape::Empty),
        of_size => {
            let size = fields.u32()?;
            fields.skip::<4>()?;
            let op = match of_size {
                code::GETXATTR => Op::GetXattr { ino, name: fields.name()? },
                _ => Op::ListXattr { ino },
            };
            run(op, Shape::Value { size })
        }
    }
}

fn fallocate(ino: Ino, fields: &mut Fields<'_>) -> Result<Call, Malformed> {
    let handle = Handle(fields.u64()?);
    let (offset, len, mode) = (fields.u64()?, fields.u64()?, fields.u32()? as i32);
    fields.skip::<4>()?;
    let mode = convert::fallocate_mode(mode);
    run_if(mode.map(|mode| Op::Fallocate { ino, handle, mode, offset, len }), Shape::Empty)
}

fn seek(ino: Ino, fields: &mut Fields<'_>) -> Result<Call, Malformed> {
    let handle = Handle(fields.u64()?);
    let (offset, whence) = (fields.u64()? as i64, fields.u32()? as i32);
    fields.skip::<4>()?;
    let found = convert::seek(offset, whence);
    run_if(found.map(|(offset, to)| Op::Seek { ino, handle, offset, to }), Shape::Offset)
}

fn copy(header: &Header, fields: &mut Fields<'_>) -> Result<Call, Malformed> {
    let op = Op::CopyRange {
        ino: header.node,
        handle: Handle(fields.u64()?),
        offset: fields.u64()?,
        to: Ino(fields.u64()?),
        to_handle: Handle(fields.u64()?),
        to_offset: fields.u64()?,
        len: fields.u64()?,
    };
    fields.skip::<8>()?; // flags: the kernel refuses all that there are
    let wide = header.opcode == code::COPY_FILE_RANGE_64;
    run(op, if wide { Shape::Copied } else { Shape::Written })
}

#[cfg(test)]
mod tests;
