//! The table of leases and their deadlines: no tasks, no locks, the time is given.
//!
//! The queue holds exactly one entry per lease. A keep-alive does not touch it:
//! deadlines only move back, so an entry that comes up too early is put in
//! again where it belongs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use state::Lease;
use tokio::time::Instant;

use super::TimeToLive;

/// Revocations a leader is built for, per second.
const REVOKES_PER_SECOND: usize = 1_000;
/// Deadlines that a new leader lets fall into one second, so that other revocations still get through.
const DEADLINES_PER_SECOND: usize = REVOKES_PER_SECOND * 3 / 4;
/// Checkpoints are for leases that live longer than this, and this far apart.
pub(super) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// What became of a keep-alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewed {
    /// The lease lives for its whole ttl again; a checkpoint of less may stand in the log.
    Done { ttl: i64, checkpointed: bool },
    /// Its time is over and its revocation on the way.
    Expired,
    /// No such lease.
    Unknown,
    /// This member does not lead.
    NotPrimary,
}

#[derive(Debug)]
struct Held {
    ttl: i64,
    /// Seconds left at the last checkpoint; 0 when there was none since it was kept alive.
    remaining: i64,
    /// `None` while this member does not lead.
    deadline: Option<Instant>,
    /// When to propose its checkpoint next.
    checkpoint_at: Option<Instant>,
}

impl Held {
    fn left(&self) -> Duration {
        let seconds = if self.remaining > 0 { self.remaining } else { self.ttl };
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

/// All leases of the member.
#[derive(Debug)]
pub(super) struct Table {
    leases: HashMap<i64, Held>,
    /// When to look at which lease; not later than its deadline.
    queue: BinaryHeap<Reverse<(Instant, i64)>>,
    primary: bool,
}

impl Table {
    pub(super) fn new(leases: impl IntoIterator<Item = Lease>) -> Self {
        Self { leases: idle(leases), queue: BinaryHeap::new(), primary: false }
    }

    /// Forgets all leases for these. Where deadlines count, each starts again with what the log says is left.
    pub(super) fn replace(&mut self, leases: impl IntoIterator<Item = Lease>, now: Instant) {
        self.leases = idle(leases);
        self.queue.clear();
        if self.primary {
            self.promote(now, Duration::ZERO);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(super) fn has(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub(super) fn grant(&mut self, id: i64, ttl: i64, now: Instant) {
        let mut held = Held { ttl, remaining: 0, deadline: None, checkpoint_at: None };
        if self.primary {
            self.queue.push(Reverse((set_deadline(&mut held, now, Duration::ZERO), id)));
        }
        self.leases.insert(id, held);
    }

    pub(super) fn revoke(&mut self, id: i64) {
        // Its entry in the queue is dropped when it comes up.
        self.leases.remove(&id);
    }

    pub(super) fn checkpoint(&mut self, id: i64, remaining: i64) {
        if let Some(held) = self.leases.get_mut(&id) {
            held.remaining = remaining;
        }
    }

    pub(super) fn promote(&mut self, now: Instant, extension: Duration) {
        self.primary = true;
        let mut order: Vec<(Duration, i64)> =
            self.leases.iter().map(|(&id, held)| (held.left(), id)).collect();
        order.sort_unstable();
        let delays = spread(&order, DEADLINES_PER_SECOND);
        self.queue.clear();
        for ((_, id), delay) in order.into_iter().zip(delays) {
            let held = self.leases.get_mut(&id).expect("ids come from the table");
            self.queue.push(Reverse((set_deadline(held, now, extension + delay), id)));
        }
    }

    pub(super) fn demote(&mut self) {
        self.primary = false;
        self.queue.clear();
        for held in self.leases.values_mut() {
            held.deadline = None;
            held.checkpoint_at = None;
        }
    }

    /// Whether a checkpoint says less than what a keep-alive now makes true.
    pub(super) fn is_checkpointed(&self, id: i64) -> bool {
        self.leases.get(&id).is_some_and(|held| held.remaining > 0)
    }

    pub(super) fn renew(&mut self, id: i64, now: Instant) -> Renewed {
        if !self.primary {
            return Renewed::NotPrimary;
        }
        let Some(held) = self.leases.get_mut(&id) else { return Renewed::Unknown };
        if held.deadline.is_some_and(|deadline| deadline <= now) {
            return Renewed::Expired;
        }
        let checkpointed = std::mem::take(&mut held.remaining) > 0;
        set_deadline(held, now, Duration::ZERO);
        Renewed::Done { ttl: held.ttl, checkpointed }
    }

    /// Leases whose time is over, `limit` at most. Each is looked at again after `retry`, in case its
    /// revocation fails.
    pub(super) fn expired(&mut self, now: Instant, limit: usize, retry: Duration) -> Vec<i64> {
        let mut expired = Vec::new();
        while expired.len() < limit
            && let Some(&Reverse((at, id))) = self.queue.peek()
            && at <= now
        {
            self.queue.pop();
            let Some(deadline) = self.leases.get(&id).and_then(|held| held.deadline) else { continue };
            if deadline <= now {
                expired.push(id);
                self.queue.push(Reverse((now + retry, id)));
            } else {
                self.queue.push(Reverse((deadline, id)));
            }
        }
        expired
    }

    /// Long leases whose remaining time should be written down now, with that time in seconds.
    pub(super) fn checkpoints(&mut self, now: Instant, limit: usize) -> Vec<(i64, i64)> {
        let due = |held: &Held| held.checkpoint_at.is_some_and(|at| at <= now);
        let mut checkpoints = Vec::new();
        for (&id, held) in self.leases.iter_mut().filter(|(_, held)| due(held)).take(limit) {
            let left = held.deadline.map_or(Duration::ZERO, |deadline| deadline.duration_since(now));
            held.checkpoint_at = (left > CHECKPOINT_INTERVAL).then(|| now + CHECKPOINT_INTERVAL);
            if !left.is_zero() {
                // Rounded up, so that a lease never ends early.
                checkpoints.push((id, left.as_millis().div_ceil(1000) as i64));
            }
        }
        checkpoints
    }

    pub(super) fn time_to_live(&self, id: i64, now: Instant) -> Option<TimeToLive> {
        let held = self.leases.get(&id)?;
        let left = held.deadline.map_or(held.left(), |deadline| deadline.duration_since(now));
        let remaining = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        Some(TimeToLive { remaining, granted: held.ttl })
    }

    pub(super) fn ids(&self, now: Instant) -> Vec<i64> {
        let mut order: Vec<_> =
            self.leases.iter().map(|(&id, held)| (held.deadline.unwrap_or(now + held.left()), id)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| id).collect()
    }
}

/// Leases as the log knows them, without deadlines.
fn idle(leases: impl IntoIterator<Item = Lease>) -> HashMap<i64, Held> {
    let held =
        |Lease { id, ttl, remaining }| (id, Held { ttl, remaining, deadline: None, checkpoint_at: None });
    leases.into_iter().map(held).collect()
}

/// Starts a lease's time again; its checkpoints too.
fn set_deadline(held: &mut Held, now: Instant, extension: Duration) -> Instant {
    let left = held.left() + extension;
    let deadline = now + left;
    held.deadline = Some(deadline);
    held.checkpoint_at = (left > CHECKPOINT_INTERVAL).then(|| now + CHECKPOINT_INTERVAL);
    deadline
}

/// How much later each lease should end so that no more than `per_second` end in one second.
/// `order` is sorted by time left.
fn spread(order: &[(Duration, i64)], per_second: usize) -> Vec<Duration> {
    let gap = Duration::from_secs(1) / u32::try_from(per_second).expect("a small constant");
    let mut delays = Vec::with_capacity(order.len());
    let mut window = Duration::ZERO;
    let mut in_window = 0;
    // The earliest moment that still has room.
    let mut free_from = Duration::ZERO;
    for &(left, _) in order {
        if left >= window + Duration::from_secs(1) {
            window = left;
            in_window = 0;
        }
        in_window += 1;
        let at = if in_window > per_second { left.max(free_from) } else { left };
        free_from = at.max(free_from) + gap;
        delays.push(at.saturating_sub(left));
    }
    delays
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_secs(7);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn leading(now: Instant) -> Table {
        let mut table = Table::new([]);
        table.promote(now, Duration::ZERO);
        table
    }

    #[test]
    fn a_lease_expires_after_its_ttl_and_is_offered_again_after_the_retry() {
        let now = Instant::now();
        let mut table = leading(now);
        table.grant(1, 10, now);
        assert!(table.expired(now + seconds(9), 10, RETRY).is_empty());
        assert_eq!(table.expired(now + seconds(10), 10, RETRY), [1]);
        assert!(table.expired(now + seconds(11), 10, RETRY).is_empty());
        assert_eq!(table.expired(now + seconds(17), 10, RETRY), [1]);
        table.revoke(1);
        assert!(table.expired(now + seconds(60), 10, RETRY).is_empty());
    }

    #[test]
    fn a_keep_alive_moves_the_deadline() {
        let now = Instant::now();
        let mut table = leading(now);
        table.grant(1, 10, now);
        assert_eq!(table.renew(1, now + seconds(9)), Renewed::Done { ttl: 10, checkpointed: false });
        assert!(table.expired(now + seconds(18), 10, RETRY).is_empty());
        assert_eq!(table.expired(now + seconds(19), 10, RETRY), [1]);
    }

    /// A lease that was over and not yet revoked was reported alive, and then vanished.
    #[test]
    fn a_lease_whose_time_is_over_is_not_kept_alive() {
        let now = Instant::now();
        let mut table = leading(now);
        table.grant(1, 10, now);
        assert_eq!(table.renew(1, now + seconds(10)), Renewed::Expired);
    }

    #[test]
    fn nothing_expires_without_leading() {
        let now = Instant::now();
        let mut table = Table::new([]);
        table.grant(1, 10, now);
        assert!(table.expired(now + seconds(100), 10, RETRY).is_empty());
        assert_eq!(table.renew(1, now), Renewed::NotPrimary);
        table.promote(now + seconds(100), seconds(1));
        assert!(table.expired(now + seconds(110), 10, RETRY).is_empty());
        assert_eq!(table.expired(now + seconds(111), 10, RETRY), [1]);
    }

    #[test]
    fn a_state_that_was_replaced_brings_its_own_leases() {
        let now = Instant::now();
        let lease = |id, ttl, remaining| Lease { id, ttl, remaining };
        let mut table = Table::new([lease(1, 10, 0), lease(2, 10, 0)]);
        table.replace([lease(2, 20, 0), lease(3, 1000, 300)], now);
        assert!(!table.has(1));
        assert_eq!(table.renew(2, now), Renewed::NotPrimary);
        assert_eq!(table.time_to_live(3, now), Some(TimeToLive { remaining: 300, granted: 1000 }));
        table.promote(now, seconds(1));
        assert_eq!(table.expired(now + seconds(21), 10, RETRY), [2]);

        // Also where leadership has not been given up yet every lease is there, once and with a deadline.
        table.replace([lease(4, 30, 0)], now);
        assert!(table.expired(now + seconds(29), 10, RETRY).is_empty());
        assert_eq!(table.expired(now + seconds(30), 10, RETRY), [4]);
    }

    /// The new leader must count from `remaining`, not from `ttl`.
    #[test]
    fn a_new_leader_counts_from_the_checkpoint() {
        let now = Instant::now();
        let mut table = Table::new([]);
        table.grant(1, 1000, now);
        table.checkpoint(1, 300);
        table.promote(now, seconds(1));
        assert_eq!(table.time_to_live(1, now), Some(TimeToLive { remaining: 301, granted: 1000 }));
        assert_eq!(table.renew(1, now), Renewed::Done { ttl: 1000, checkpointed: true });
        assert_eq!(table.time_to_live(1, now), Some(TimeToLive { remaining: 1000, granted: 1000 }));
    }

    #[test]
    fn long_leases_are_checkpointed_every_five_minutes() {
        let now = Instant::now();
        let mut table = leading(now);
        table.grant(1, 700, now);
        table.grant(2, 100, now);
        assert!(table.checkpoints(now + seconds(299), 10).is_empty());
        assert_eq!(table.checkpoints(now + seconds(300), 10), [(1, 400)]);
        assert!(table.checkpoints(now + seconds(301), 10).is_empty());
        assert_eq!(table.checkpoints(now + seconds(600), 10), [(1, 100)]);
        assert!(table.checkpoints(now + seconds(699), 10).is_empty());
    }

    #[test]
    fn piled_up_leases_are_spread_and_never_end_early() {
        let order: Vec<_> = (0..3000).map(|id| (seconds(60), id)).collect();
        let delays = spread(&order, DEADLINES_PER_SECOND);
        let ends: Vec<_> = order.iter().zip(&delays).map(|((left, _), delay)| *left + *delay).collect();
        for from in 60..70 {
            let within = ends.iter().filter(|end| end.as_secs() == from).count();
            assert!(within <= 2 * DEADLINES_PER_SECOND, "{within} leases end in second {from}");
        }
        assert!(ends.iter().max().expect("some") >= &seconds(62));
    }

    #[test]
    fn few_leases_are_not_delayed() {
        let order: Vec<_> = (0..700).map(|id| (seconds(60), id)).collect();
        assert!(spread(&order, DEADLINES_PER_SECOND).iter().all(Duration::is_zero));
    }

    #[test]
    fn leases_are_listed_by_the_time_they_have_left() {
        let now = Instant::now();
        let mut table = leading(now);
        for (id, ttl) in [(1, 30), (2, 10), (3, 20)] {
            table.grant(id, ttl, now);
        }
        assert_eq!(table.ids(now), [2, 3, 1]);
    }
}
