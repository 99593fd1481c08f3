//! Whether leases last as long as was promised, and locks are held by one.
//!
//! A grant, or a keep-alive that says the lease is there, promises its time to
//! live from no earlier than when it was asked, less what monotonic clocks leapt
//! meanwhile. So a lease's keys may not go on
//! their own before that, and a question about it may not be told of less.
//! While no fault is active they must go soon after.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use super::Check;
use super::model::covers;
use super::timeline::{Timeline, Writer};
use crate::history::{
    Action, Body, History, Keys, Nanos, Operand, Operation, Outcome, Relation, Request, Txn,
};

const SECOND: Nanos = 1_000_000_000;

const NOT_FOUND: &str = "etcdserver: requested lease not found";

/// How much later than promised a lease may end while all is well: etcd looks every half second, and
/// a new leader gives every lease its whole time again.
pub const SLACK: Nanos = 5 * SECOND;

/// What clients heard of one lease.
#[derive(Debug, Default)]
struct Lease {
    /// Seconds, as granted.
    ttl: i64,
    /// Promises of the whole time: when asked, when heard, by which operation.
    promised: Vec<(Nanos, Nanos, usize)>,
    /// When somebody asked for its end, and when that was acknowledged.
    revokes: Vec<(Nanos, Option<Nanos>)>,
    /// When it was last asked to be kept alive, whatever came of that: it may live from then on.
    renewed: Nanos,
}

impl Lease {
    /// Until when it was promised to live, by what was asked before a time.
    fn until(&self, history: &History, before: Nanos) -> Option<(Nanos, usize)> {
        let asked = self.promised.iter().filter(|(asked, ..)| *asked < before).max()?;
        Some((self.least(history, asked.0), asked.2))
    }

    /// As [`Lease::until`], by what was heard before a time.
    fn until_heard(&self, history: &History, before: Nanos) -> Option<(Nanos, usize)> {
        let (asked, _, by) = self.promised.iter().filter(|(_, heard, _)| *heard < before).max()?;
        Some((self.least(history, *asked), *by))
    }

    /// Until when it lives at least that was promised to live from some time on.
    fn least(&self, history: &History, asked: Nanos) -> Nanos {
        let until = asked + self.ttl as Nanos * SECOND;
        until.saturating_sub(leapt(history, asked, until))
    }
}

/// Checks them; `slack` is how late a lease may end while no fault is active.
pub fn check(history: &History, timeline: &Timeline, slack: Nanos) -> Check {
    let mut check = Check::new("lease");
    let leases = leases(history);
    check.look("leases", leases.len());
    early(history, timeline, &leases, &mut check);
    questions(history, &leases, &mut check);
    refusals(history, &leases, &mut check);
    late(history, timeline, &leases, slack, &mut check);
    locks(history, &leases, &mut check);
    check
}

fn leases(history: &History) -> BTreeMap<i64, Lease> {
    let mut leases: BTreeMap<i64, Lease> = BTreeMap::new();
    let mut twice = Vec::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let Operation { invoked, returned, .. } = *operation;
        let told = match &operation.outcome {
            Outcome::Refused(_) => continue,
            Outcome::Done(answer) => match answer.body {
                Body::Lease { ttl, .. } => Some(ttl),
                _ => Some(0),
            },
            Outcome::Unknown(_) => None,
        };
        match &operation.action {
            Action::LeaseGrant { id, ttl } => {
                let known = leases.insert(*id, Lease { ttl: told.unwrap_or(*ttl), ..Lease::default() });
                if known.is_some() {
                    twice.push(*id);
                }
                let lease = leases.entry(*id).or_default();
                lease.renewed = returned;
                if told.is_some() {
                    lease.promised.push((invoked, returned, index));
                }
            }
            Action::LeaseKeepAlive { id } => {
                let Some(lease) = leases.get_mut(id) else { continue };
                if told.is_none_or(|ttl| ttl > 0) {
                    lease.renewed = lease.renewed.max(returned);
                }
                if told.is_some_and(|ttl| ttl > 0) {
                    lease.promised.push((invoked, returned, index));
                }
            }
            Action::LeaseRevoke { id } => {
                if let Some(lease) = leases.get_mut(id) {
                    lease.revokes.push((invoked, told.map(|_| returned)));
                }
            }
            _ => {}
        }
    }
    // Granted twice, it is not clear which is meant.
    for id in twice {
        leases.remove(&id);
    }
    leases
}

/// Keys that went on their own before their lease's time.
fn early(history: &History, timeline: &Timeline, leases: &BTreeMap<i64, Lease>, check: &mut Check) {
    for revision in timeline.revisions() {
        let Writer::Expiry(id) = revision.writer else { continue };
        check.look("expired", 1);
        let Some(lease) = leases.get(&id) else { continue };
        let Some((until, by)) = lease.until(history, revision.known) else { continue };
        if revision.known < until {
            check.add("expired-early", vec![by], || {
                format!(
                    "Lease {id} expired at revision {}, which was known {} before operation {by} allowed it: that asked \
                     for {} s.",
                    revision.number,
                    seconds(until - revision.known),
                    lease.ttl
                )
            });
        }
    }
}

/// Answers that a lease is gone, or has less time than was promised.
fn questions(history: &History, leases: &BTreeMap<i64, Lease>, check: &mut Check) {
    for (index, operation) in history.operations.iter().enumerate() {
        let (Outcome::Done(answer), Action::LeaseTimeToLive { id } | Action::LeaseKeepAlive { id }) =
            (&operation.outcome, &operation.action)
        else {
            continue;
        };
        let Body::Lease { ttl, .. } = answer.body else { continue };
        let Some(lease) = leases.get(id) else { continue };
        if lease.revokes.iter().any(|(asked, _)| *asked <= operation.returned) {
            let ended =
                lease.revokes.iter().any(|(_, done)| done.is_some_and(|done| done < operation.invoked));
            if ended && ttl > 0 {
                check.add("ended-lease", vec![index], || {
                    format!("Operation {index} was told that lease {id} lives, though its end was acknowledged before.")
                });
            }
            continue;
        }
        // A promise counts if it was heard before this was asked.
        let Some((until, by)) = lease.until_heard(history, operation.invoked) else { continue };
        check.look("answers about leases", 1);
        let least = (until.saturating_sub(operation.returned) / SECOND) as i64;
        let gone = ttl < 0 || (ttl == 0 && matches!(operation.action, Action::LeaseKeepAlive { .. }));
        if until > operation.returned && (gone || ttl < least) {
            check.add(if gone { "expired-early" } else { "ttl-short" }, vec![by, index], || {
                format!("Operation {index} was told that lease {id} has {ttl} s; by operation {by} it has at least {least} s.")
            });
        }
    }
}

/// Requests that were refused as if their lease did not exist, while it was promised and nobody had asked for its end.
fn refusals(history: &History, leases: &BTreeMap<i64, Lease>, check: &mut Check) {
    for (index, operation) in history.operations.iter().enumerate() {
        match &operation.outcome {
            Outcome::Refused(why) if why.ends_with(NOT_FOUND) => check.look("refused for their lease", 1),
            _ => continue,
        }
        let mut lives = Vec::new();
        for id in named(&operation.action) {
            let Some(lease) = leases.get(&id) else { break };
            let Some((until, by)) = lease.until_heard(history, operation.invoked) else { break };
            let ended = lease.revokes.iter().any(|(asked, _)| *asked <= operation.returned);
            if ended || until <= operation.returned {
                break;
            }
            lives.push((id, by));
        }
        // One that may not exist is reason enough.
        if lives.len() == named(&operation.action).count() {
            let by = lives.iter().map(|(_, by)| *by).chain([index]).collect();
            check.add("lease-lost", by, || {
                let ids: Vec<i64> = lives.iter().map(|(id, _)| *id).collect();
                format!(
                    "Operation {index} was refused as if its lease was not there, but {ids:?} had time left."
                )
            });
        }
    }
}

/// The leases without which an action is refused.
fn named(action: &Action) -> impl Iterator<Item = i64> {
    let ids = match action {
        Action::LeaseRevoke { id } | Action::LeaseKeepAlive { id } | Action::LeaseTimeToLive { id } => {
            vec![*id]
        }
        Action::Put(put) => vec![put.lease],
        Action::Txn(txn) => {
            let put = |request: &Request| match request {
                Request::Put(put) => Some(put.lease),
                _ => None,
            };
            txn.then.iter().chain(&txn.otherwise).filter_map(put).collect()
        }
        _ => Vec::new(),
    };
    ids.into_iter().filter(|id| *id != 0)
}

/// Keys that are still there long after their lease's time, though no fault was active.
fn late(
    history: &History,
    timeline: &Timeline,
    leases: &BTreeMap<i64, Lease>,
    slack: Nanos,
    check: &mut Check,
) {
    let calm =
        |from: Nanos, to: Nanos| !history.faults.iter().any(|fault| fault.began <= to && fault.ended >= from);
    for revision in timeline.revisions() {
        let (Writer::Expiry(id), Some(observed)) = (revision.writer, revision.observed) else { continue };
        let Some(lease) = leases.get(&id) else { continue };
        let due = lease.renewed + lease.ttl as Nanos * SECOND + slack;
        if observed > due && calm(lease.renewed, observed) {
            check.add("expired-late", Vec::new(), || {
                let late = seconds(observed - due + slack);
                format!(
                    "Lease {id} expired at revision {}, {late} after its time, though no fault was active.",
                    revision.number
                )
            });
        }
    }
    let mut told: HashMap<i64, usize> = HashMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let (Action::Range(range), Outcome::Done(answer)) = (&operation.action, &operation.outcome) else {
            continue;
        };
        let Body::Range { pairs, .. } = &answer.body else { continue };
        if range.serializable || range.revision != 0 {
            continue;
        }
        for pair in pairs.iter().filter(|pair| pair.lease != 0) {
            let Some(lease) = leases.get(&pair.lease) else { continue };
            let due = lease.renewed + lease.ttl as Nanos * SECOND + slack;
            if operation.invoked > due
                && calm(lease.renewed, operation.returned)
                && told.insert(pair.lease, index).is_none()
            {
                check.add("never-expired", vec![index], || {
                    let late = seconds(operation.invoked - due + slack);
                    format!(
                        "Operation {index} read {} of lease {}, {late} after its time.",
                        pair.key, pair.lease
                    )
                });
            }
        }
    }
}

/// A time in which a client certainly held a lock.
#[derive(Debug)]
struct Hold {
    from: Nanos,
    to: Nanos,
    index: usize,
}

/// A lock is a key that a transaction makes where it was not there, with a lease.
fn locks(history: &History, leases: &BTreeMap<i64, Lease>, check: &mut Check) {
    let mut holds: BTreeMap<&str, Vec<Hold>> = BTreeMap::new();
    let mut enders: BTreeMap<&str, Vec<(Nanos, Nanos)>> = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let (Action::Txn(txn), Outcome::Done(answer)) = (&operation.action, &operation.outcome) else {
            continue;
        };
        let Body::Txn { succeeded: true, .. } = &answer.body else { continue };
        let Some((key, id)) = lock(txn) else { continue };
        let Some((lease, (until, _))) =
            leases.get(&id).and_then(|lease| Some((lease, lease.until(history, Nanos::MAX)?)))
        else {
            continue;
        };
        let revoked = lease.revokes.iter().map(|(asked, _)| *asked).min().unwrap_or(Nanos::MAX);
        let hold = Hold { from: operation.returned, to: until.min(revoked), index };
        holds.entry(key).or_default().push(hold);
    }
    for operation in
        history.operations.iter().filter(|operation| !matches!(operation.outcome, Outcome::Refused(_)))
    {
        let returned = match operation.outcome {
            Outcome::Done(_) => operation.returned,
            _ => Nanos::MAX,
        };
        for keys in ended(operation) {
            let from = (Bound::Included(keys.key.as_str()), Bound::Unbounded);
            let among = holds.range::<str, _>(from).map(|(held, _)| *held);
            for held in among.take_while(|held| covers(&keys, held)) {
                enders.entry(held).or_default().push((operation.invoked, returned));
            }
        }
    }
    for (key, holds) in &mut holds {
        for hold in holds.iter_mut() {
            // Whoever may have ended it, at any time since it was asked for.
            let asked = history.operations[hold.index].invoked;
            let ends = enders.get(key).into_iter().flatten().filter(|(_, returned)| *returned >= asked);
            hold.to = ends.map(|(invoked, _)| *invoked).min().unwrap_or(Nanos::MAX).min(hold.to);
        }
        holds.retain(|hold| hold.from < hold.to);
        holds.sort_by_key(|hold| hold.from);
        check.look("times a lock was held", holds.len());
        for pair in holds.windows(2) {
            let (one, other) = (&pair[0], &pair[1]);
            if other.from < one.to {
                check.add("lock-shared", vec![one.index, other.index], || {
                    format!(
                        "Operations {} and {} both took lock {key}, and both held it for {}.",
                        one.index,
                        other.index,
                        seconds(one.to.min(other.to) - other.from)
                    )
                });
            }
        }
    }
}

fn lock(txn: &Txn) -> Option<(&str, i64)> {
    txn.then.iter().find_map(|request| {
        let Request::Put(put) = request else { return None };
        let absent = txn.compares.iter().any(|compare| {
            compare.key == put.key
                && compare.relation == Relation::Equal
                && matches!(compare.operand, Operand::Created(0) | Operand::Version(0) | Operand::Modified(0))
        });
        (absent && put.lease != 0).then_some((put.key.as_str(), put.lease))
    })
}

/// Keys that an operation may delete, or put without taking them as a lock.
fn ended(operation: &Operation) -> Vec<Keys> {
    let one = |key: &String| Keys { key: key.clone(), end: String::new() };
    match &operation.action {
        Action::Delete(delete) => vec![delete.keys.clone()],
        Action::Put(put) => vec![one(&put.key)],
        Action::Txn(txn) => {
            let all = txn.then.iter().chain(&txn.otherwise);
            all.filter_map(|request| match request {
                Request::Delete(delete) => Some(delete.keys.clone()),
                Request::Put(put) if lock(txn).is_none_or(|(lock, _)| lock != put.key) => Some(one(&put.key)),
                Request::Put(_) | Request::Range(_) => None,
            })
            .collect()
        }
        _ => Vec::new(),
    }
}

/// By how much monotonic clocks may have leapt between two times.
fn leapt(history: &History, from: Nanos, to: Nanos) -> Nanos {
    let between = history.leaps.iter().filter(|leap| leap.began <= to && leap.ended >= from);
    between.map(|leap| leap.most).sum()
}

fn seconds(nanos: Nanos) -> String {
    format!("{:.3} s", nanos as f64 / 1e9)
}
