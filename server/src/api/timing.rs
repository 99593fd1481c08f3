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

    /// Waits for a request and records how long it took.
    pub async fn of<T, E>(&self, request: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let started = Instant::now();
        let result = request.await;
        let histogram = if result.is_ok() { &self.succeeded } else { &self.failed };
        histogram.observe(started.elapsed().as_secs_f64());
        result
    }
}

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
