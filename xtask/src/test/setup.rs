//! What a bare machine lacks: packages and the two test programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::{shell, tree};

/// A file that shows that a Debian package is there.
const PACKAGES: &[(&str, &[&str])] = &[
    ("acl", &["/usr/bin/setfacl"]),
    ("fuse3", &["/usr/bin/fusermount3", "/bin/fusermount3"]),
    ("git", &["/usr/bin/git"]),
    ("rsync", &["/usr/bin/rsync"]),
    ("sqlite3", &["/usr/bin/sqlite3"]),
    ("tar", &["/usr/bin/tar", "/bin/tar"]),
    ("e2fsprogs", &["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"]),
    ("mount", &["/usr/sbin/losetup", "/sbin/losetup"]),
    ("util-linux", &["/usr/bin/unshare"]),
    // With pgbench and amcheck; pg_amcheck is there since 14.
    (
        "postgresql",
        &[
            "/usr/lib/postgresql/15/bin/pg_amcheck",
            "/usr/lib/postgresql/16/bin/pg_amcheck",
            "/usr/lib/postgresql/17/bin/pg_amcheck",
        ],
    ),
    ("python3", &["/usr/bin/python3"]),
    ("libacl1-dev", &["/usr/include/sys/acl.h"]),
];

/// Test programs from crates.io: name, exact version, the stage that runs it.
const PROGRAMS: &[(&str, &str, &str)] = &[("pjdfstest", "0.2.2", "pjdfstest"), ("fsx", "0.3.0", "fsx")];

/// Stages with real mounts.
const SERVED: &[&str] = &[
    "bad-input",
    "pjdfstest",
    "semantics",
    "fsx",
    "quota",
    "real-work",
    "memory",
    "postgres",
    "replicas",
    "full",
    "space",
    "crash",
    "kill",
    "flips",
];

/// Where the test programs are kept between runs.
fn tools() -> PathBuf {
    tree::target().join("tools")
}

/// One of the test programs.
pub fn program(name: &str) -> PathBuf {
    tools().join("bin").join(name)
}

/// Installs what `stages` need and is missing.
pub fn run(stages: &[&str]) -> anyhow::Result<()> {
    if stages.iter().any(|stage| SERVED.contains(stage)) {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the stages with real mounts need root: run this as root, or only others with --only"
        );
        packages()?;
        ensure!(Path::new("/dev/fuse").exists(), "there is no /dev/fuse: load the kernel module fuse");
    }
    for (name, version, stage) in PROGRAMS {
        if stages.contains(stage) {
            install(name, version)?;
        }
    }
    Ok(())
}

fn packages() -> anyhow::Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(_, files)| !files.iter().any(|file| Path::new(file).exists()))
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("== packages: {}", missing.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("install what these Debian packages hold, then run this again: {}", missing.join(" "));
    }
    shell::read(shell::program("apt-get").args(["update", "--quiet"]))
        .context("update the list of packages")?;
    let mut install = shell::program("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args([
        "install",
        "--quiet",
        "--yes",
        "--no-install-recommends",
    ]);
    shell::read(install.args(&missing)).context("install packages")?;
    Ok(())
}

/// The version is part of what is looked for, so that a newer pin installs anew.
fn install(name: &str, version: &str) -> anyhow::Result<()> {
    let mark = tools().join(format!("{name}-{version}"));
    if mark.exists() && program(name).exists() {
        return Ok(());
    }
    println!("== build of {name} {version}");
    let mut command = shell::cargo();
    command.args(["install", name, "--version", version, "--quiet", "--force", "--root"]).arg(tools());
    let build = tools().join("build");
    command.arg("--target-dir").arg(&build);
    shell::run(&mut command)?;
    std::fs::remove_dir_all(&build).context("clear what the build left")?;
    std::fs::write(&mark, "").context("note what was installed")?;
    Ok(())
}
