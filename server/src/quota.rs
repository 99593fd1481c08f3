//! Room in the database: what a request would add, and whether it still fits.
//!
//! The test comes before anything else is looked at, as in etcd. The size is a
//! recent one, plus what was let in since it was taken, so that a burst cannot
//! run far past the limit.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use proto::command::command::Op;
use proto::etcdserverpb::{self as pb, alarm_request::AlarmAction};
use state::{Reader, Refusal, Sizes};
use tokio::sync::watch;
use tracing::warn;

use crate::node::{Encoded, Failure, Node, stop_on, stopped};

/// The quota when none is configured.
pub const DEFAULT_BYTES: i64 = 2 << 30;

/// What a lease costs; for puts and transactions the state machine has the rules.
pub const LEASE_COST: usize = 64;
/// How often the size is taken.
const SIZE_INTERVAL: Duration = Duration::from_millis(250);

/// The configured limit and the size that is compared with it.
pub struct Quota {
    configured: i64,
    reader: Reader,
    room: Room,
}

struct Room {
    /// `None`: no limit.
    limit: Option<i64>,
    total: AtomicI64,
    in_use: AtomicI64,
    admitted: AtomicI64,
}

impl Quota {
    /// A quota as configured: 0 is etcd's default, negative is none.
    pub fn new(configured: i64, reader: Reader) -> Self {
        let configured = if configured == 0 { DEFAULT_BYTES } else { configured };
        let limit = (configured > 0).then_some(configured);
        let room = Room { limit, total: 0.into(), in_use: 0.into(), admitted: 0.into() };
        let quota = Self { configured, reader, room };
        quota.refresh();
        quota
    }

    /// The quota as `Status` tells it.
    pub fn configured(&self) -> i64 {
        self.configured
    }

    /// The sizes as they are now.
    pub fn sizes(&self) -> Sizes {
        self.refresh();
        let Room { total, in_use, .. } = &self.room;
        Sizes { total: total.load(Ordering::Relaxed), in_use: in_use.load(Ordering::Relaxed) }
    }

    fn refresh(&self) {
        match self.reader.sizes() {
            Ok(sizes) => self.room.refresh(sizes.total, sizes.in_use),
            Err(fault) => stop_on(fault),
        }
    }
}

impl Room {
    /// Lets a request of this cost in, or not.
    fn admit(&self, cost: i64) -> bool {
        let Some(limit) = self.limit else { return true };
        // What changes nothing always passes.
        if cost == 0 {
            return true;
        }
        // Space that a compaction has freed counts as free at once: files follow by themselves.
        let size = self.in_use.load(Ordering::Relaxed) + self.admitted.load(Ordering::Relaxed);
        let fits = size.saturating_add(cost) < limit;
        if fits {
            self.admitted.fetch_add(cost, Ordering::Relaxed);
        }
        fits
    }

    fn refresh(&self, total: i64, in_use: i64) {
        self.admitted.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.in_use.store(in_use, Ordering::Relaxed);
    }
}

impl Node {
    /// Refuses what no longer fits, after raising the alarm that makes every member refuse it.
    ///
    /// # Errors
    /// [`Refusal::NoSpace`].
    pub async fn check_quota(&self, cost: usize) -> Result<(), Failure> {
        if self.quota().room.admit(i64::try_from(cost).unwrap_or(i64::MAX)) {
            return Ok(());
        }
        Box::pin(self.raise_no_space()).await;
        Err(Refusal::NoSpace.into())
    }

    async fn raise_no_space(&self) {
        let alarm = pb::AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.member_id(),
            alarm: pb::AlarmType::Nospace as i32,
        };
        if let Err(failure) = self.propose(Encoded::new(Op::Alarm(alarm))).await {
            warn!(%failure, "the alarm for lack of space could not be raised");
        }
    }
}

/// Takes the size now and then.
pub(crate) async fn run(node: Node, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(SIZE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => node.quota().refresh(),
            () = stopped(&mut stop) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(limit: Option<i64>, size: i64) -> Room {
        Room { limit, total: size.into(), in_use: size.into(), admitted: 0.into() }
    }

    #[test]
    fn a_request_must_leave_the_database_below_the_limit() {
        assert!(quota(Some(100), 80).admit(19));
        assert!(!quota(Some(100), 80).admit(20));
        assert!(quota(None, 80).admit(i64::MAX));
    }

    #[test]
    fn what_costs_nothing_always_passes() {
        assert!(quota(Some(100), 200).admit(0));
    }

    /// A burst between two looks at the size went far past the limit.
    #[test]
    fn what_was_let_in_counts_until_the_size_is_taken_again() {
        let room = quota(Some(100), 50);
        assert!(room.admit(30));
        assert!(!room.admit(30));
        room.refresh(60, 10);
        assert!(room.admit(30));
    }

    #[test]
    fn live_data_that_is_not_on_disk_yet_counts() {
        let room = quota(Some(100), 0);
        room.refresh(10, 90);
        assert!(!room.admit(30));
    }
}
