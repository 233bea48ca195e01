//! Quotas of the running mount: listed for people and scrapers, changed by the admin socket.

use namespace::{Answer, Query, QuotaInfo, QuotaState};
use types::{Errno, Ino};

use crate::quota::{Order, Page};
use crate::report::QuotaReport;
use crate::up::parts::Parts;

/// Quotas that one page lists: it, and a scrape, stay of a bounded size.
const LISTED_MAX: u32 = 10_000;

/// Does what is ordered, and tells what there is then.
pub async fn obey(parts: &Parts, order: &Order) -> anyhow::Result<Page> {
    let done = match order {
        Order::Set { dir, bytes, inodes } => parts.mount.set_quota(Ino(*dir), *bytes, *inodes).await,
        Order::Remove { dir } => parts.mount.remove_quota(Ino(*dir)).await,
        Order::List => Ok(()),
    };
    let volume = parts.volume().await?;
    Ok(Page {
        refused: done.err().map(|errno: Errno| errno.to_string()),
        counting: volume.counting != Ino(0),
        inodes: volume.inodes,
        quotas: std::iter::once(QuotaReport {
            dir: "/".into(),
            ino: Ino::ROOT.0,
            limit_bytes: Some(volume.limit),
            limit_inodes: limit(volume.limit_inodes),
            used_bytes: volume.used,
            inodes: volume.inodes,
            state: "set".into(),
        })
        .chain(of_directories(parts).await?)
        .collect(),
    })
}

/// The quotas of directories.
pub async fn of_directories(parts: &Parts) -> anyhow::Result<Vec<QuotaReport>> {
    let quotas =
        match parts.ask(Query::Quotas { volume: parts.volume, after: Ino(0), max: LISTED_MAX }).await? {
            Answer::Quotas(quotas) => quotas,
            other => anyhow::bail!("the metadata service does not tell the quotas: {other:?}"),
        };
    let mut reports = Vec::with_capacity(quotas.len());
    for quota in quotas {
        // One whose directory was removed just now is none any more.
        if let Answer::Bytes(path) = parts.ask(Query::Path { volume: parts.volume, ino: quota.dir }).await? {
            reports.push(report(&quota, &path));
        }
    }
    Ok(reports)
}

fn report(quota: &QuotaInfo, path: &[u8]) -> QuotaReport {
    QuotaReport {
        dir: String::from_utf8_lossy(path).into_owned(),
        ino: quota.dir.0,
        limit_bytes: limit(quota.limit_bytes),
        limit_inodes: limit(quota.limit_inodes),
        used_bytes: quota.used_bytes,
        inodes: quota.inodes,
        state: match quota.state {
            QuotaState::Set => "set",
            QuotaState::Counting => "counting",
            QuotaState::Removing | QuotaState::Removed => "removing",
        }
        .to_string(),
    }
}

fn limit(limit: u64) -> Option<u64> {
    (limit < u64::MAX).then_some(limit)
}
