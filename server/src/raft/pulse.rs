//! Whether a leader's heartbeats go out in time.

use std::time::{Duration, Instant};

use crate::metrics::METRICS;

/// The heartbeats of one leader to one follower.
#[derive(Default)]
pub(crate) struct Pulse {
    last: Option<Instant>,
}

impl Pulse {
    /// A heartbeat goes out now. One that comes more than an interval late is counted, and said: others may have
    /// begun to look for another leader.
    pub fn beat(&mut self, now: Instant, interval: Duration, to: u64) {
        let expected = 2 * interval;
        let gap = self.last.replace(now).map(|last| now.duration_since(last));
        if let Some(late) = gap.and_then(|gap| gap.checked_sub(expected))
            && !late.is_zero()
        {
            METRICS.server.heartbeat_send_failures.inc();
            tracing::warn!(
                to = format!("{to:x}"),
                "heartbeat-interval" = ?interval,
                "expected-duration" = ?expected,
                "exceeded-duration" = ?late,
                "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_that_come_late_are_counted() {
        let interval = Duration::from_millis(100);
        let began = Instant::now();
        let mut pulse = Pulse::default();
        let mut beat = |at_ms: u64| {
            let before = METRICS.server.heartbeat_send_failures.get();
            pulse.beat(began + Duration::from_millis(at_ms), interval, 7);
            METRICS.server.heartbeat_send_failures.get() > before
        };
        assert!(!beat(0));
        assert!(!beat(120));
        assert!(!beat(320));
        assert!(beat(521));
    }
}
