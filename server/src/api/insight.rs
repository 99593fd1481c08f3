//! What a member sees of its load, for tools that show it. Not etcd's: its clients don't ask.

use prometheus::Histogram;
use prometheus::core::Metric;
use proto::insight as pb;

use super::{method, range, timing};
use crate::insight::{Counted, INSIGHT, Sizes, Split};
use crate::metrics::METRICS;
use crate::node::{Failure, Invalid, Node, stop_on};

/// The longest list of prefixes.
const PREFIXES_MAX: u32 = 256;

/// The counters as they stand, and the prefixes that are busy or large.
pub async fn sample(node: Node, request: pb::SampleRequest) -> Result<pb::SampleResponse, Failure> {
    let split = usize::try_from(request.depth).ok().and_then(|depth| Split::new(&request.delimiter, depth));
    let split = split.ok_or(Invalid::Split)?;
    let max = request.prefixes_max.min(PREFIXES_MAX) as usize;
    let counts = INSIGHT.counts(&split, max).ok_or(Invalid::TooManyViewers)?;
    let sizes = match counts.sizes {
        Some(sizes) => Some(sizes),
        None if max == 0 => None,
        None => {
            let view = node.serializable_view();
            let measure = move || INSIGHT.measure(&view, &split);
            Some(range::blocking(measure).await.unwrap_or_else(|fault| stop_on(fault)))
        }
    };
    let watchers = node.hub().counts();
    let storage = &METRICS.storage;
    Ok(pb::SampleResponse {
        cluster_id: node.cluster_id(),
        member_id: node.member_id(),
        revision: node.revision(),
        at_nanos: nanos(counts.at),
        methods: method::counted().map(method_of).collect(),
        puts_applied: storage.puts.get(),
        deletes_applied: storage.deletes.get(),
        txns_applied: storage.txns.get(),
        events_sent: storage.events.get(),
        leases_renewed: storage.leases_renewed.get(),
        latencies: latencies(),
        keys: node.serializable_view().keys(),
        leases: node.lessor().count() as u64,
        watchers: watchers.watchers as u64,
        watch_streams: watchers.streams as u64,
        slow_watchers: watchers.slow as u64,
        counting_since_nanos: nanos(counts.since),
        changed: counts.changed.into_iter().map(hot).collect(),
        read: counts.read.into_iter().map(hot).collect(),
        sizes: sizes.map(|sizes| sizes_of(sizes, max)),
    })
}

fn nanos(after: std::time::Duration) -> u64 {
    u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)
}

fn method_of((path, series): (&'static str, &crate::metrics::grpc::Method)) -> pb::Method {
    pb::Method {
        path: path.to_owned(),
        started: series.started.get(),
        failed: series.failed(),
        received: series.received.get(),
        sent: series.sent.get(),
    }
}

fn hot(counted: Counted) -> pb::Hot {
    let Counted { item, count, uncertain, bytes } = counted;
    pb::Hot { prefix: item.into(), count, uncertain, bytes }
}

fn sizes_of(sizes: Sizes, max: usize) -> pb::Sizes {
    let largest = sizes.largest.into_iter().take(max).map(|size| pb::Size {
        prefix: size.prefix.into(),
        keys: size.keys,
        bytes_estimate: size.bytes_estimate,
        undivided: size.undivided,
    });
    pb::Sizes { at_nanos: nanos(sizes.at), largest: largest.collect() }
}

/// What is measured of every request, and of the disk below.
fn latencies() -> Vec<pb::Latency> {
    [
        ("Range", timing::RANGE.succeeded()),
        ("Put", timing::PUT.succeeded()),
        ("DeleteRange", timing::DELETE_RANGE.succeeded()),
        ("Txn", timing::TXN.succeeded()),
        ("ReadonlyTxn", timing::READONLY_TXN.succeeded()),
        ("LeaseGrant", timing::LEASE_GRANT.succeeded()),
        ("log sync", &METRICS.storage.wal_fsync_seconds),
        ("state commit", &METRICS.storage.backend_commit_seconds),
    ]
    .map(|(what, histogram)| latency(what, histogram))
    .into()
}

fn latency(what: &str, histogram: &Histogram) -> pb::Latency {
    let metric = histogram.metric();
    let histogram = metric.get_histogram();
    let mut counts = Vec::with_capacity(histogram.get_bucket().len() + 1);
    let mut below = 0;
    for bucket in histogram.get_bucket() {
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    counts.push(histogram.get_sample_count().saturating_sub(below));
    pb::Latency {
        what: what.to_owned(),
        bounds: histogram.get_bucket().iter().map(prometheus::proto::Bucket::upper_bound).collect(),
        counts,
        seconds_sum: histogram.get_sample_sum(),
    }
}
