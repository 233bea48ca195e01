//! Mounting as a user: the set-uid program fusermount3 mounts, and hands the device over through a socket.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};

use crate::init::TRANSFER_MAX;
use crate::place::{MountError, system};

const PROGRAM: &str = "fusermount3";

pub(crate) fn mount(dir: &Path, source: &str) -> Result<OwnedFd, MountError> {
    let at = system(dir, "socketpair(2)");
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| at(error.into()))?;
    let options = format!(
        "fsname={},subtype=holdfast,default_permissions,max_read={TRANSFER_MAX}",
        source.replace('\\', r"\\").replace(',', r"\,")
    );
    let output = Command::new(PROGRAM)
        .args(["-o", &options, "--"])
        .arg(dir)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(theirs)) // its end of the socket, as descriptor 0
        .output()
        .map_err(MountError::NoFusermount)?;
    let refused = |message| MountError::Fusermount { dir: dir.to_path_buf(), message };
    if !output.status.success() {
        return Err(refused(said(&output)));
    }
    // The program has ended, so what it sent is there and this cannot block.
    receive(&ours)
        .map_err(system(dir, "recvmsg(2)"))?
        .ok_or_else(|| refused("it sent no descriptor".to_string()))
}

fn receive(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let device = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(device)
}

/// A mount that is busy is `EBUSY` as from umount2(2).
pub(crate) fn unmount(dir: &Path, lazily: bool) -> io::Result<()> {
    let mut command = Command::new(PROGRAM);
    command.arg("-u");
    if lazily {
        command.arg("-z");
    }
    let output = command.arg("--").arg(dir).stdin(Stdio::null()).env("LC_ALL", "C").output()?;
    if output.status.success() {
        return Ok(());
    }
    let message = said(&output);
    if message.contains("busy") {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    Err(io::Error::other(message))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::{mount, unmount};
    use crate::place::Way;
    use crate::{point, rows};

    #[test]
    fn a_mount_through_fusermount_shows_type_and_source_and_goes_when_dead() {
        if !std::path::Path::new("/dev/fuse").exists() {
            eprintln!("skipped: this machine has no /dev/fuse");
            return;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().canonicalize().expect("its path");
        let device = mount(&dir, "holdfast:a,b\\c").expect("a mount");
        let row = rows().expect("the table").into_iter().find(|row| row.dir == dir).expect("our row");
        assert_eq!((row.fstype.as_str(), row.source.as_str()), ("fuse.holdfast", "holdfast:a,b\\c"));
        drop(device); // nobody serves it any more
        point::clear(&dir, Way::Fusermount).expect("the dead mount is detached");
        assert!(!rows().expect("the table").iter().any(|row| row.dir == dir));
        assert!(unmount(&dir, false).is_err(), "there is nothing to unmount");
    }
}
