//! `/metrics`: the figures of the status document and the histograms of the mount, in the OpenMetrics text format.
//!
//! Names are `holdfast_<part>_<what>_<unit>`.

use client::{LATENCY_BOUNDS_US, OpFigures};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::report::{QuotaReport, Report};

type Labels = Vec<(String, String)>;

/// The operations of a mount, as counted up to a scrape.
#[derive(Debug)]
struct Operations {
    volume: String,
    figures: Vec<OpFigures>,
}

impl Operations {
    fn labels(&self, figures: &OpFigures) -> Labels {
        vec![("op".into(), figures.kind.name().into()), ("volume".into(), self.volume.clone())]
    }
}

impl Collector for Operations {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let seen = || self.figures.iter().filter(|f| f.succeeded > 0 || !f.failed.is_empty());
        let help = "How long requests of the kernel took, from arrival to reply";
        let mut family = encoder.encode_descriptor(
            "fuse_op_duration",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for figures in seen() {
            let bounds = LATENCY_BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(figures.latency).collect();
            let count = figures.latency.iter().sum();
            let labels = self.labels(figures);
            let mut one = family.encode_family(&labels)?;
            one.encode_histogram::<Labels>(figures.total_us as f64 / 1e6, count, &buckets, None)?;
        }
        let help = "Requests of the kernel that were answered with an error";
        let mut family = encoder.encode_descriptor("fuse_op_errors", help, None, MetricType::Counter)?;
        for figures in seen() {
            for (errno, count) in &figures.failed {
                let mut labels = self.labels(figures);
                labels.push(("result".into(), types::Errno(*errno).to_string()));
                family.encode_family(&labels)?.encode_counter::<Labels, _, f64>(count, None)?;
            }
        }
        Ok(())
    }
}

/// Gauges of one scrape, by name.
struct Gauges<'a> {
    registry: &'a mut Registry,
}

impl Gauges<'_> {
    fn each<T>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        label: &str,
        of: &[T],
        value: impl Fn(&T) -> (String, u64),
    ) {
        let family = Family::<Labels, Gauge>::default();
        for item in of {
            let (label_value, number) = value(item);
            let labels = vec![(label.to_string(), label_value)];
            family.get_or_create(&labels).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, family),
            None => self.registry.register(name, help, family),
        }
    }
}

/// The OpenMetrics text of a scrape: the status document, and what each volume's mount counted.
pub fn text(report: &Report, operations: Vec<(String, Vec<OpFigures>)>) -> String {
    let mut registry = registry(report);
    for (volume, figures) in operations {
        registry.register_collector(Box::new(Operations { volume, figures }));
    }
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => text,
        // Writing to a string does not fail; an encoder that does is told about, and the scrape is empty.
        Err(error) => {
            tracing::error!(%error, "cannot encode the metrics");
            "# EOF\n".to_string()
        }
    }
}

fn registry(report: &Report) -> Registry {
    let mut registry = Registry::with_prefix("holdfast");
    let bytes = || Some(Unit::Bytes);
    let mut gauges = Gauges { registry: &mut registry };
    let mounts = &report.mounts;
    gauges.each("volume_limit", "Most bytes of file data", bytes(), "volume", mounts, |m| {
        (m.volume.clone(), m.limit_bytes)
    });
    gauges.each("volume_used", "Bytes of file data", bytes(), "volume", mounts, |m| {
        (m.volume.clone(), m.used_bytes)
    });
    gauges.each("volume_inodes", "Files, directories and the like", None, "volume", mounts, |m| {
        (m.volume.clone(), m.inodes)
    });
    gauges.each("client_dirty", "Bytes accepted and not yet on disk", bytes(), "volume", mounts, |m| {
        (m.volume.clone(), m.dirty_bytes)
    });
    gauges.each("client_pending", "Commands answered and not sent yet", None, "volume", mounts, |m| {
        (m.volume.clone(), m.pending_commands)
    });
    gauges.each("client_nodes", "Inodes that are remembered", None, "volume", mounts, |m| {
        (m.volume.clone(), m.nodes)
    });
    gauges.each("client_flush_failures", "Flushes that failed", None, "volume", mounts, |m| {
        (m.volume.clone(), m.flush_failures)
    });
    gauges.each("client_files_lost", "Files whose accepted data was lost", None, "volume", mounts, |m| {
        (m.volume.clone(), m.lost)
    });
    let quotas: Vec<&QuotaReport> = mounts.iter().flat_map(|mount| &mount.quotas).collect();
    gauges.each("quota_used", "Bytes below a directory with a quota", bytes(), "dir", &quotas, |q| {
        (q.dir.clone(), q.used_bytes)
    });
    gauges.each("quota_inodes", "Inodes below a directory with a quota", None, "dir", &quotas, |q| {
        (q.dir.clone(), q.inodes)
    });
    let limited: Vec<_> = quotas.iter().filter_map(|q| Some((&q.dir, q.limit_bytes?))).collect();
    gauges.each("quota_limit", "Most bytes below a directory", bytes(), "dir", &limited, |(dir, limit)| {
        (dir.to_string(), *limit)
    });
    let limited: Vec<_> = quotas.iter().filter_map(|q| Some((&q.dir, q.limit_inodes?))).collect();
    gauges.each(
        "quota_inodes_limit",
        "Most inodes below a directory",
        None,
        "dir",
        &limited,
        |(dir, limit)| (dir.to_string(), *limit),
    );
    gauges.each("compaction", "Bytes that compaction wrote anew", bytes(), "volume", mounts, |m| {
        (m.volume.clone(), m.compacted_bytes)
    });
    gauges.each("reclaim_waiting", "Dead bytes that are not freed yet", bytes(), "volume", mounts, |m| {
        (m.volume.clone(), m.to_reclaim_bytes)
    });
    let scrub = [&report.scrub];
    let node = |value: u64| ("0".to_string(), value);
    gauges.each("scrub_bad", "Bad copies that the last pass found", None, "node", &scrub, |s| node(s.bad));
    gauges.each("scrub_passes", "Passes that were finished", None, "node", &scrub, |s| node(s.passes));
    gauges.each("scrub_read", "Bytes that the pass under way has read", bytes(), "node", &scrub, |s| {
        node(s.bytes)
    });
    let disks = &report.disks;
    gauges.each("disk_data", "Bytes that fragments may take", bytes(), "device", disks, |d| {
        (d.uuid.to_string(), d.data_bytes)
    });
    gauges.each("disk_free", "Bytes that are free for fragments", bytes(), "device", disks, |d| {
        (d.uuid.to_string(), d.free_bytes)
    });
    gauges.each("disk_fragments", "Fragments on the disk", None, "device", disks, |d| {
        (d.uuid.to_string(), d.fragments)
    });
    gauges.each("disk_failed", "1 if the disk failed", None, "device", disks, |d| {
        (d.uuid.to_string(), u64::from(d.state != "ok"))
    });
    let data = [&report.data];
    let all = |value: u64| ("all".to_string(), value);
    gauges.each("data_copies", "Copies that each file has at least", None, "groups", &data, |d| {
        all(d.copies_now)
    });
    gauges.each(
        "data_at_risk",
        "1 if files have fewer copies than they should",
        None,
        "groups",
        &data,
        |d| all(u64::from(d.at_risk)),
    );
    gauges.each("data_slots_absent", "Slots whose disk is away", None, "groups", &data, |d| {
        all(d.slots_absent)
    });
    gauges.each("data_slots_filling", "Slots that are being filled", None, "groups", &data, |d| {
        all(d.slots_filling)
    });
    gauges.each("data_fill_done", "Copied into the slot that is filled", bytes(), "groups", &data, |d| {
        all(d.fill_done_bytes)
    });
    gauges.each("data_fill_total", "Lacking when its fill began", bytes(), "groups", &data, |d| {
        all(d.fill_total_bytes)
    });
    gauges.each("data_bad_copies", "Copies found bad since the start", None, "groups", &data, |d| {
        all(d.bad_copies)
    });
    gauges.each("data_reclaimed", "Dead extents freed since the start", None, "groups", &data, |d| {
        all(d.reclaimed)
    });
    gauges.each("data_repaired", "Bad copies replaced since the start", None, "groups", &data, |d| {
        all(d.repaired)
    });
    let raft = [&report.metadata];
    let voter = |value: u64| ("0".to_string(), value);
    gauges.each("raft_applied", "Index of the last applied entry", None, "partition", &raft, |m| {
        voter(m.applied)
    });
    gauges.each("raft_synced", "Index up to which the rows are durable", None, "partition", &raft, |m| {
        voter(m.synced)
    });
    gauges.each("raft_log_used", "Bytes of the log that are in use", bytes(), "partition", &raft, |m| {
        voter(m.log_used_bytes)
    });
    gauges.each("raft_log_size", "Bytes of the log", bytes(), "partition", &raft, |m| voter(m.log_bytes));
    registry.register("starts", "How often the data directory was started", ConstCounter::new(report.starts));
    let ready = Gauge::<i64>::default();
    ready.set(i64::from(report.state == "ready"));
    registry.register("ready", "1 if the mount can be used and written", ready);
    registry
}

#[cfg(test)]
mod tests {
    use super::{OpFigures, text};
    use crate::report::Report;
    use client::{BUCKETS, OpKind};

    #[test]
    fn a_scrape_has_figures_and_histograms() {
        let report = Report::blank();
        let mut latency = [0; BUCKETS];
        latency[1] = 2;
        let read = OpFigures {
            kind: OpKind::Read,
            succeeded: 1,
            failed: [(5, 1)].into(),
            latency,
            total_us: 30,
            bytes: 9,
        };
        let text = text(&report, vec![("default".into(), vec![read])]);
        for line in [
            "holdfast_raft_applied{partition=\"0\"} 7",
            "holdfast_ready 1",
            "holdfast_starts_total 3",
            "holdfast_fuse_op_errors_total{op=\"read\",volume=\"default\",result=\"EIO\"} 1",
            "holdfast_fuse_op_duration_seconds_bucket{le=\"0.00002\",op=\"read\",volume=\"default\"} 2",
            "holdfast_fuse_op_duration_seconds_bucket{le=\"+Inf\",op=\"read\",volume=\"default\"} 2",
            "holdfast_fuse_op_duration_seconds_count{op=\"read\",volume=\"default\"} 2",
            "# EOF",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}
