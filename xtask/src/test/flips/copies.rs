//! Flips where everything lies on several disks: nothing may be missed, and the bad copy is made good.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Files, Verdict};
use crate::served::{Served, Up, number};

/// How long a bad copy that was met may take to be replaced.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// Has everything kept in so many copies, each on a disk file in `folder`.
pub fn ask_for(up: &mut Up, folder: &Path, copies: u32) {
    up.args.extend(["--redundancy".into(), format!("replica:{copies}")]);
    for number in 0..copies {
        up.args.extend(["--disk".into(), folder.join(format!("disk-{number}")).display().to_string()]);
    }
}

/// Reads everything, waits until what was found bad is good, and has every stored byte checked after the stop.
pub fn heals(up: &Up, files: &Files) -> anyhow::Result<Verdict> {
    let served = up.start().context("data keeps it from starting")?;
    let seen = files.read(served.mount())?;
    ensure!(seen.is_all_right(), "another copy is good, and these were refused: {seen:?}");
    let was_met = said(up)?.contains("a copy is bad, another one served");
    if was_met {
        wait_until_healed(&served)?;
    }
    served.stop()?;
    let said = said(up)?;
    ensure!(!said.contains("panicked"), "it panicked:\n{said}");
    if !was_met {
        return Ok(Verdict::Void);
    }
    up.fsck().context("it says that all copies are good")?;
    Ok(Verdict::Healed)
}

fn said(up: &Up) -> anyhow::Result<String> {
    fs::read_to_string(&up.log).context("read what it said")
}

/// All copies that were found bad are good on return.
fn wait_until_healed(served: &Served) -> anyhow::Result<()> {
    served.status_until(HEALED_WITHIN, "healed", |status| {
        let (bad, repaired) = (number(status, "/data/bad_copies")?, number(status, "/data/repaired")?);
        Ok(bad > 0 && bad == repaired)
    })?;
    Ok(())
}
