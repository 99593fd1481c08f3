//! How long requests take, by kind: the histograms, looked up once.

use std::sync::LazyLock;
use std::time::Instant;

use prometheus::Histogram;

use crate::metrics::METRICS;

/// The histograms of one kind of request.
pub struct Timing {
    succeeded: Histogram,
    failed: Histogram,
}

impl Timing {
    fn new(kind: &str) -> Self {
        let seconds = &METRICS.server.request_seconds;
        Self {
            succeeded: seconds.with_label_values(&[kind, "true"]),
            failed: seconds.with_label_values(&[kind, "false"]),
        }
    }

    /// How long those took that succeeded.
    pub fn succeeded(&self) -> &Histogram {
        &self.succeeded
    }

    /// Begins to measure one request. Not a wrapper around its future: that would double the future's size,
    /// which every request pays for.
    pub fn start(&'static self) -> Running {
        Running { timing: self, started: Instant::now() }
    }
}

/// One request that is being measured.
pub struct Running {
    timing: &'static Timing,
    started: Instant,
}

impl Running {
    /// Records how long the request took, with its result.
    pub fn end<T, E>(self, result: Result<T, E>) -> Result<T, E> {
        let histogram = if result.is_ok() { &self.timing.succeeded } else { &self.timing.failed };
        histogram.observe(self.started.elapsed().as_secs_f64());
        result
    }
}

/// Ranges, once their revision is known.
pub static READING: LazyLock<Timing> = LazyLock::new(|| {
    let seconds = &METRICS.server.range_seconds;
    Timing { succeeded: seconds.with_label_values(&["true"]), failed: seconds.with_label_values(&["false"]) }
});

macro_rules! timings {
    ($($name:ident $kind:literal;)*) => {
        $(#[doc = concat!("Requests of kind ", $kind, ".")]
        pub static $name: LazyLock<Timing> = LazyLock::new(|| Timing::new($kind));)*
    };
}

timings! {
    RANGE "Range";
    PUT "Put";
    DELETE_RANGE "DeleteRange";
    TXN "Txn";
    READONLY_TXN "ReadonlyTxn";
    COMPACTION "Compaction";
    LEASE_GRANT "LeaseGrant";
    LEASE_REVOKE "LeaseRevoke";
    ALARM "Alarm";
}
