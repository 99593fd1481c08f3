//! Leases and compactions, which take no revision: by their own order in time.

use std::collections::{BTreeMap, HashMap};

use super::{done, is_linearizable};
use crate::check::Check;
use crate::check::timeline::{Timeline, Writer};
use crate::history::{Action, History, Nanos, Outcome, Request};

/// What happened to one lease.
#[derive(Default)]
struct Lease {
    /// When it was asked for, each time.
    asked: Vec<Nanos>,
    /// Acknowledged ends: operation, returned, header revision.
    revoked: Vec<(usize, Nanos, i64)>,
    /// The revision at which it expired, taking its keys.
    expired: Option<i64>,
    /// Keys that were put with it, and when.
    puts: Vec<(String, i64)>,
}

/// A key is put with a lease only while that exists, and its end leaves none of its keys.
pub fn check(history: &History, timeline: &Timeline, check: &mut Check) {
    let leases = leases(history, timeline);
    check.look("leases", leases.len());
    for (id, lease) in &leases {
        // A lease granted again is another one; which of them is meant cannot always be told.
        if lease.asked.len() > 1 {
            continue;
        }
        for (key, revision) in &lease.puts {
            check_put(history, timeline, check, *id, lease, key, *revision);
        }
        for (index, _, revision) in &lease.revoked {
            let left = lease.puts.iter().find(|(key, put)| {
                put <= revision
                    && timeline.whole(*put, *revision)
                    && timeline.at(key, *revision).is_some_and(|pair| pair.lease == *id)
            });
            if let Some((key, _)) = left {
                check.add("lease-key-left", vec![*index], || {
                    format!("Operation {index} ended lease {id} by revision {revision}, but its key {key} is still there then.")
                });
            }
        }
    }
}

fn leases(history: &History, timeline: &Timeline) -> BTreeMap<i64, Lease> {
    let mut leases: BTreeMap<i64, Lease> = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        match (&operation.action, &operation.outcome) {
            (_, Outcome::Refused(_)) => {}
            (Action::LeaseGrant { id, .. }, _) => {
                leases.entry(*id).or_default().asked.push(operation.invoked)
            }
            (Action::LeaseRevoke { id }, Outcome::Done(answer)) => {
                let end = (index, operation.returned, answer.revision);
                leases.entry(*id).or_default().revoked.push(end);
            }
            _ => {}
        }
    }
    for revision in timeline.revisions() {
        if let Writer::Expiry(id) = revision.writer {
            leases.entry(id).or_default().expired = Some(revision.number);
        }
        for change in &revision.changes {
            if let Some(pair) = change.pair.as_ref().filter(|pair| pair.lease != 0) {
                leases.entry(pair.lease).or_default().puts.push((change.key.clone(), change.revision));
            }
        }
    }
    leases
}

fn check_put(
    history: &History,
    timeline: &Timeline,
    check: &mut Check,
    id: i64,
    lease: &Lease,
    key: &str,
    revision: i64,
) {
    let Some(Writer::Operation(index)) = timeline.revision(revision).map(|revision| revision.writer) else {
        return;
    };
    let operation = &history.operations[index];
    let answered = matches!(operation.outcome, Outcome::Done(_));
    match lease.asked.first() {
        None => check.add("unknown-lease", vec![index], || {
            format!("Operation {index} put {key} with lease {id}, which nobody was granted.")
        }),
        Some(asked) if answered && operation.returned < *asked => {
            check.add("unknown-lease", vec![index], || {
                format!("Operation {index} put {key} with lease {id} before anybody asked for that.")
            })
        }
        _ => {}
    }
    if let Some((end, ..)) = lease.revoked.iter().find(|(_, returned, _)| *returned < operation.invoked) {
        check.add("ended-lease", vec![*end, index], || {
            format!("Operation {index} put {key} with lease {id}, which operation {end} had ended before.")
        });
    } else if let Some(expired) = lease.expired.filter(|expired| *expired < revision) {
        check.add("ended-lease", vec![index], || {
            format!("Operation {index} put {key} with lease {id} at revision {revision}; that had expired at {expired}.")
        });
    }
}

/// A compaction is not of the future, goes only forward, and what it forgot is not read again.
pub fn check_compactions(history: &History, check: &mut Check) {
    let mut order: Vec<_> = done(history).collect();
    let mut ends: Vec<(Nanos, i64, usize)> = Vec::new();
    for (index, operation, answer) in &order {
        let Action::Compact { revision } = operation.action else { continue };
        check.look("compactions", 1);
        ends.push((operation.returned, revision, *index));
        if revision > answer.revision {
            check.add("compacted-future", vec![*index], || {
                format!(
                    "Operation {index} compacted revision {revision}, when the store was at {}.",
                    answer.revision
                )
            });
        }
    }
    ends.sort_unstable();
    let mut ends = ends.into_iter().peekable();
    order.sort_by_key(|(_, operation, _)| operation.invoked);
    let mut compacted = (0, 0);
    let mut repeated: HashMap<i64, usize> = HashMap::new();
    for (index, operation, _) in order {
        while let Some((_, revision, by)) = ends.next_if(|(returned, ..)| *returned < operation.invoked) {
            compacted = compacted.max((revision, by));
        }
        let (revision, by) = compacted;
        let asked = match &operation.action {
            Action::Compact { revision: own } => {
                let twice = repeated.insert(*own, index);
                if let Some(other) = twice.or((*own <= revision).then_some(by)) {
                    check.add("compacted-twice", vec![other, index], || {
                        format!(
                            "Operation {index} compacted revision {own}, which operation {other} had done."
                        )
                    });
                }
                continue;
            }
            action if !is_linearizable(action) => continue,
            Action::Range(range) => vec![range.revision],
            Action::Txn(txn) => {
                let taken = matches!(&operation.outcome, Outcome::Done(answer)
                    if matches!(answer.body, crate::history::Body::Txn { succeeded: true, .. }));
                let requests = if taken { &txn.then } else { &txn.otherwise };
                requests
                    .iter()
                    .filter_map(|request| match request {
                        Request::Range(range) => Some(range.revision),
                        _ => None,
                    })
                    .collect()
            }
            _ => continue,
        };
        if let Some(asked) = asked.into_iter().find(|asked| *asked > 0 && *asked < revision) {
            check.add("compacted-read", vec![by, index], || {
                format!(
                    "Operation {index} read revision {asked}, though operation {by} had compacted {revision}."
                )
            });
        }
    }
}
