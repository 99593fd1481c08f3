//! How long applying takes, by kind of command.

use std::time::Duration;

use prometheus::Histogram;
use state::{Reply, Response};

use crate::metrics::METRICS;

/// The histograms, looked up once.
pub(crate) struct Timing {
    /// What takes longer is slow.
    slow: Duration,
    put: Histogram,
    delete_range: Histogram,
    txn: Histogram,
    compaction: Histogram,
    lease_grant: Histogram,
    lease_revoke: Histogram,
    alarm: Histogram,
}

impl Timing {
    pub fn new(slow: Duration) -> Self {
        let of = |op| METRICS.server.apply_seconds.with_label_values(&["v3", op, "true"]);
        Self {
            slow,
            put: of("Put"),
            delete_range: of("DeleteRange"),
            txn: of("Txn"),
            compaction: of("Compaction"),
            lease_grant: of("LeaseGrant"),
            lease_revoke: of("LeaseRevoke"),
            alarm: of("Alarm"),
        }
    }

    /// A group was applied: each of its commands took as long as all of them. What was refused is not counted, since
    /// its kind is not told.
    pub fn took(&self, replies: &[Reply], took: Duration) {
        let seconds = took.as_secs_f64();
        for reply in replies {
            let histogram = match &reply.result {
                Ok(Response::Put(_)) => &self.put,
                Ok(Response::DeleteRange(_)) => &self.delete_range,
                Ok(Response::Txn(_)) => &self.txn,
                Ok(Response::Compaction) => &self.compaction,
                Ok(Response::LeaseGrant(_)) => &self.lease_grant,
                Ok(Response::LeaseRevoke) => &self.lease_revoke,
                Ok(Response::Alarm(_)) => &self.alarm,
                Ok(Response::Done) | Err(_) => continue,
            };
            histogram.observe(seconds);
        }
        METRICS.storage.backend_commit_seconds.observe(seconds);
        if took > self.slow && !self.slow.is_zero() {
            METRICS.server.slow_applies.inc();
            tracing::warn!(
                ?took,
                "expected-duration" = ?self.slow,
                commands = replies.len(),
                "apply request took too long"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_is_counted_by_kind_and_what_is_slow_beside_that() {
        let timing = Timing::new(Duration::from_millis(100));
        let reply = |result| Reply { revision: 1, result };
        let replies =
            [reply(Ok(Response::Done)), reply(Ok(Response::Compaction)), reply(Err(state::Refusal::NoSpace))];
        let slow = METRICS.server.slow_applies.get();
        let compactions = timing.compaction.get_sample_count();
        timing.took(&replies, Duration::from_millis(99));
        assert_eq!(METRICS.server.slow_applies.get(), slow);
        timing.took(&replies, Duration::from_millis(101));
        // Other tests of this process apply as well.
        assert!(METRICS.server.slow_applies.get() > slow);
        assert!(timing.compaction.get_sample_count() >= compactions + 2);
    }
}
