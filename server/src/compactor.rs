//! Auto-compaction: which revision to compact to, and when.
//!
//! Only the leader does it, so that a cluster compacts once. The two modes are
//! etcd's: `periodic` keeps the revisions of the last so many hours, `revision`
//! the last so many revisions.

use std::collections::VecDeque;
use std::time::Duration;

use proto::command::command::Op;
use proto::etcdserverpb as pb;
use state::Refusal;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::node::{Encoded, Failure, Node, stopped};

const HOUR: Duration = Duration::from_secs(3600);
/// How often `revision` looks.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// What to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Everything that was current within this time.
    Period(Duration),
    /// This many revisions.
    Revisions(i64),
}

/// Decides, from the revisions it is shown at regular times.
#[derive(Debug)]
enum Plan {
    Periodic(Periodic),
    Revision { keep: i64, last: i64 },
}

#[derive(Debug)]
struct Periodic {
    period: Duration,
    /// One revision per look, the oldest first.
    samples: VecDeque<i64>,
    /// When the last compaction succeeded; at first, when counting began.
    since: Instant,
    last: i64,
    compacted_once: bool,
}

impl Periodic {
    fn new(period: Duration, now: Instant) -> Self {
        Self { period, samples: VecDeque::new(), since: now, last: 0, compacted_once: false }
    }

    /// A tenth of the period, or of an hour when the period is longer.
    fn interval(&self) -> Duration {
        self.period.min(HOUR) / 10
    }

    /// How many samples reach back one period.
    fn samples_max(&self) -> usize {
        let interval = self.interval().as_nanos().max(1);
        usize::try_from(self.period.as_nanos() / interval).unwrap_or(usize::MAX).max(1)
    }

    fn look(&mut self, now: Instant, revision: i64) -> Option<i64> {
        self.samples.push_back(revision);
        // The first sample is one interval younger than the count of samples says.
        if self.samples.len() > self.samples_max() + 1 {
            self.samples.pop_front();
        }
        let due = if self.compacted_once { self.period.min(HOUR) } else { self.period };
        let oldest = *self.samples.front().expect("just pushed");
        (now.duration_since(self.since) >= due && oldest != self.last).then_some(oldest)
    }

    fn done(&mut self, now: Instant, revision: i64) {
        self.since = now;
        self.last = revision;
        self.compacted_once = true;
    }
}

impl Plan {
    fn new(retention: Retention, now: Instant) -> Self {
        match retention {
            Retention::Period(period) => Self::Periodic(Periodic::new(period, now)),
            Retention::Revisions(keep) => Self::Revision { keep, last: 0 },
        }
    }

    fn interval(&self) -> Duration {
        match self {
            Self::Periodic(periodic) => periodic.interval(),
            Self::Revision { .. } => REVISION_INTERVAL,
        }
    }

    fn look(&mut self, now: Instant, revision: i64) -> Option<i64> {
        match self {
            Self::Periodic(periodic) => periodic.look(now, revision),
            Self::Revision { keep, last } => {
                let target = revision - *keep;
                (target > 0 && target != *last).then_some(target)
            }
        }
    }

    fn done(&mut self, now: Instant, revision: i64) {
        match self {
            Self::Periodic(periodic) => periodic.done(now, revision),
            Self::Revision { last, .. } => *last = revision,
        }
    }
}

/// Compacts as configured until told to stop.
pub async fn run(node: Node, retention: Retention, mut stop: watch::Receiver<bool>) {
    if matches!(retention, Retention::Period(period) if period.is_zero())
        || matches!(retention, Retention::Revisions(0))
    {
        return;
    }
    let mut plan = Plan::new(retention, Instant::now());
    let interval = plan.interval();
    let mut ticks = tokio::time::interval_at(Instant::now(), interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stopped(&mut stop) => return,
        }
        // A follower goes on sampling, so that it can take over in the middle of a period.
        let Some(revision) = plan.look(Instant::now(), node.revision()) else { continue };
        if !node.is_leader() {
            continue;
        }
        let request = pb::CompactionRequest { revision, physical: false };
        match node.propose(Encoded::new(Op::Compaction(request))).await {
            // Somebody else was first: just as good.
            Ok(_) | Err(Failure::Refusal(Refusal::Compacted)) => {
                info!(revision, "completed auto compaction");
                plan.done(Instant::now(), revision);
            }
            Err(failure) => warn!(revision, %failure, "failed auto compaction"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_short_period_compacts_to_one_period_ago_every_period() {
        let start = Instant::now();
        let mut periodic = Periodic::new(seconds(100), start);
        assert_eq!(periodic.interval(), seconds(10));
        // The revision is ten times the seconds that have passed.
        let mut compactions = Vec::new();
        for tick in 0..=35 {
            let at = tick * 10;
            if let Some(revision) = periodic.look(start + seconds(at), at as i64 * 10 + 1) {
                compactions.push((at, revision));
                periodic.done(start + seconds(at), revision);
            }
        }
        assert_eq!(compactions, [(100, 1), (200, 1001), (300, 2001)]);
    }

    #[test]
    fn a_long_period_waits_once_and_then_compacts_every_hour() {
        let start = Instant::now();
        let mut periodic = Periodic::new(5 * HOUR, start);
        assert_eq!(periodic.interval(), seconds(360));
        let mut compactions = Vec::new();
        for tick in 0..=80 {
            let at = tick * 360;
            if let Some(revision) = periodic.look(start + seconds(at), at as i64 + 1) {
                compactions.push((at / 3600, revision));
                periodic.done(start + seconds(at), revision);
            }
        }
        assert_eq!(compactions, [(5, 1), (6, 3601), (7, 7201), (8, 10801)]);
    }

    #[test]
    fn a_revision_that_was_compacted_is_not_compacted_again() {
        let start = Instant::now();
        let mut periodic = Periodic::new(seconds(100), start);
        for tick in 0..10 {
            assert_eq!(periodic.look(start + seconds(tick * 10), 7), None);
        }
        assert_eq!(periodic.look(start + seconds(100), 7), Some(7));
        periodic.done(start + seconds(100), 7);
        assert_eq!(periodic.look(start + seconds(200), 7), None);
    }

    #[test]
    fn revision_keeps_the_last_so_many() {
        let now = Instant::now();
        let mut plan = Plan::new(Retention::Revisions(1000), now);
        assert_eq!(plan.look(now, 900), None);
        assert_eq!(plan.look(now, 1500), Some(500));
        plan.done(now, 500);
        assert_eq!(plan.look(now, 1500), None);
        assert_eq!(plan.look(now, 1600), Some(600));
    }
}
