//! Access control lists, by the commands that people use.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use rustix::io::Errno;

use super::{Behaviour, Place, as_user, open_to_all, refused};
use crate::shell;

pub const ALL: &[Behaviour] = &[
    ("a_named_user_may_what_the_list_says", named_user),
    ("the_mask_bounds_what_a_list_gives", mask),
    ("chmod_moves_the_mask_and_a_list_the_mode", chmod),
    ("a_default_list_takes_the_place_of_the_umask", default_list),
    ("a_list_that_says_no_more_than_the_mode_is_the_mode", minimal),
    ("lists_are_kept_by_cp_and_removed_by_setfacl", copied_and_removed),
    ("a_list_that_is_not_valid_is_refused", invalid),
];

/// `setfacl`, with these arguments.
pub fn setfacl(args: &[&str], path: &Path) -> anyhow::Result<()> {
    shell::read(Command::new("setfacl").args(args).arg(path)).map(drop)
}

/// What `getfacl` prints, ids as numbers.
pub fn getfacl(path: &Path) -> anyhow::Result<String> {
    shell::read(Command::new("getfacl").args(["--omit-header", "--numeric", "--absolute-names"]).arg(path))
}

fn lines(path: &Path) -> anyhow::Result<Vec<String>> {
    Ok(getfacl(path)?.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn mode(path: &Path) -> anyhow::Result<u32> {
    Ok(fs::metadata(path)?.mode() & 0o7777)
}

fn named_user(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    fs::write(&path, "text")?;
    open_to_all(&path, 0o600)?;
    let read = format!("cat {}", path.display());
    ensure!(!as_user(1234, 1234, &read)?, "others can read a file of mode 600");
    setfacl(&["-m", "u:1234:r"], &path)?;
    ensure!(as_user(1234, 1234, &read)?, "the named user cannot read");
    ensure!(!as_user(1235, 1234, &read)?, "another user can read");
    ensure!(!as_user(1234, 1234, &format!("echo more >> {}", path.display()))?, "the named user can write");
    setfacl(&["-m", "g:4321:rw"], &path)?;
    ensure!(
        as_user(1235, 4321, &format!("echo more >> {}", path.display()))?,
        "the named group cannot write"
    );
    Ok(())
}

fn mask(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    fs::write(&path, "text")?;
    setfacl(&["-m", "u:1234:rw,m::r"], &path)?;
    ensure!(as_user(1234, 1234, &format!("cat {}", path.display()))?, "the mask takes reading away");
    ensure!(!as_user(1234, 1234, &format!("echo more >> {}", path.display()))?, "the mask does not bound");
    Ok(())
}

fn chmod(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    File::create(&path)?;
    open_to_all(&path, 0o640)?;
    setfacl(&["-m", "u:1234:rwx"], &path)?;
    ensure!(mode(&path)? == 0o670, "the mode's group bits are not the mask: {:o}", mode(&path)?);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604))?;
    let expected = [
        "user::rw-",
        "user:1234:rwx\t#effective:---",
        "group::r--\t#effective:---",
        "mask::---",
        "other::r--",
    ];
    let got: Vec<String> =
        lines(&path)?.iter().map(|line| line.replace("\t\t\t", "\t").replace("\t\t", "\t")).collect();
    ensure!(got == expected, "after chmod 604 the list is {got:?}");
    Ok(())
}

fn default_list(place: &Place) -> anyhow::Result<()> {
    setfacl(&["-d", "-m", "u::rwx,u:1234:rwx,g::rx,o::-,m::rwx"], &place.dir)?;
    let line = format!("umask 077; : > {0}/file; mkdir {0}/dir", place.dir.display());
    ensure!(as_user(1000, 1000, &line)?, "a user cannot create");
    ensure!(mode(&place.path("file"))? == 0o660, "the umask was applied: {:o}", mode(&place.path("file"))?);
    let file = lines(&place.path("file"))?;
    ensure!(file.iter().any(|line| line.starts_with("user:1234:rwx")), "the file's list is {file:?}");
    let dir = lines(&place.path("dir"))?;
    ensure!(dir.contains(&"default:user:1234:rwx".to_owned()), "the directory's list is {dir:?}");
    ensure!(as_user(1234, 1234, &format!("echo hello > {}/dir/new", place.dir.display()))?, "not inherited");
    let plain = place.elsewhere_in_mount()?;
    let line = format!("umask 027; : > {}/file", plain.display());
    ensure!(as_user(1000, 1000, &line)?, "a user cannot create");
    ensure!(mode(&plain.join("file"))? == 0o640, "without a default list the umask has no say");
    Ok(())
}

impl Place {
    /// A folder without lists, beside the test's own.
    fn elsewhere_in_mount(&self) -> anyhow::Result<std::path::PathBuf> {
        let path = self.dir.with_extension("plain");
        fs::create_dir_all(&path)?;
        open_to_all(&path, 0o777)?;
        Ok(path)
    }
}

fn minimal(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    File::create(&path)?;
    setfacl(&["-m", "u::rw,g::r,o::r"], &path)?;
    ensure!(mode(&path)? == 0o644, "the mode is {:o}", mode(&path)?);
    let mut buffer = [0; 4096];
    refused(
        "reading the list",
        rustix::fs::getxattr(&path, "system.posix_acl_access", &mut buffer[..]),
        Errno::NODATA,
    )
}

fn copied_and_removed(place: &Place) -> anyhow::Result<()> {
    let (from, to) = (place.path("from"), place.path("to"));
    File::create(&from)?;
    setfacl(&["-m", "u:1234:rw"], &from)?;
    shell::read(Command::new("cp").arg("-a").arg(&from).arg(&to))?;
    ensure!(getfacl(&from)? == getfacl(&to)?, "cp -a made {:?}", getfacl(&to)?);
    setfacl(&["-b"], &to)?;
    ensure!(lines(&to)?.len() == 3, "setfacl -b left {:?}", lines(&to)?);
    ensure!(lines(&from)?.len() == 5, "the original changed");
    Ok(())
}

fn invalid(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    File::create(&path)?;
    let set =
        |name: &str, value: &[u8]| rustix::fs::setxattr(&path, name, value, rustix::fs::XattrFlags::empty());
    // A named user without a mask: version, then tag, permissions and id of each entry.
    let entry = |tag: u8, id: u32| [&[tag, 0, 6, 0][..], &id.to_le_bytes()].concat();
    let nobody = u32::MAX;
    let list =
        [vec![2, 0, 0, 0], entry(1, nobody), entry(2, 1234), entry(4, nobody), entry(32, nobody)].concat();
    refused("a named user without a mask", set("system.posix_acl_access", &list), Errno::INVAL)?;
    let valid = [vec![2, 0, 0, 0], entry(1, nobody), entry(4, nobody), entry(32, nobody)].concat();
    refused("a default list of a file", set("system.posix_acl_default", &valid), Errno::ACCESS)
}
