//! The answer is the model's, from the state at its revision.

use super::done;
use crate::check::Check;
use crate::check::model::{covers, holds, perform, writes};
use crate::check::timeline::{Timeline, Writer, changed};
use crate::history::{Action, Body, History, Keys, Operation, Outcome, Pair, Range, Request, Txn};

pub fn check(history: &History, timeline: &Timeline, check: &mut Check) {
    for (index, operation, answer) in done(history) {
        if let Action::Range(range) = &operation.action {
            let Body::Range { pairs, count, more } = &answer.body else {
                mismatched(check, index);
                continue;
            };
            // A serializable read has a checker of its own.
            if !range.serializable {
                let got = Got { pairs, count: *count, more: *more };
                check_range(timeline, check, index, range, answer.revision, &got);
            }
            continue;
        }
        let base = if changed(&operation.action, &answer.body) {
            if timeline.place(index) != Some(answer.revision) {
                continue;
            }
            answer.revision - 1
        } else {
            answer.revision
        };
        if !certain(timeline, &operation.action, base) {
            check.look("answers that depend on missing revisions", 1);
            continue;
        }
        check_write(timeline, check, index, operation, &answer.body, base);
    }
    check_unheard(history, timeline, check);
}

/// A read's answer.
pub struct Got<'a> {
    /// Its pairs.
    pub pairs: &'a [Pair],
    /// How many there are.
    pub count: i64,
    /// Whether the limit cut some off.
    pub more: bool,
}

/// Compares a read with the state as of `revision`, its header's.
pub fn check_range(
    timeline: &Timeline,
    check: &mut Check,
    index: usize,
    range: &Range,
    revision: i64,
    got: &Got<'_>,
) {
    let at = if range.revision > 0 { range.revision } else { revision };
    if at > revision {
        let said = range.revision;
        check.add("future-read", vec![index], || {
            format!(
                "Operation {index} was answered as of revision {said}, when the store was only at {revision}."
            )
        });
        return;
    }
    if !timeline.certain(&range.keys, at) {
        check.look("answers that depend on missing revisions", 1);
        return;
    }
    check.look("reads", 1);
    let expected = timeline.range(&range.keys, at);
    let limit = if range.limit > 0 { range.limit as usize } else { usize::MAX };
    let cut = &expected[..expected.len().min(limit)];
    if cut.len() != got.pairs.len() || cut.iter().zip(got.pairs).any(|(expected, got)| *expected != got) {
        let name = name_of(timeline, range, at, got);
        check.add(name, operations(timeline, index, cut, got.pairs), || explain(index, at, cut, got.pairs));
    } else if got.count != expected.len() as i64 || got.more != (expected.len() > limit) {
        check.add("wrong-count", vec![index], || {
            let Got { count, more, .. } = got;
            format!(
                "Operation {index} was told count {count}, more {more}; at revision {at} there were {} keys.",
                expected.len()
            )
        });
    }
}

/// What is wrong with a read: it is of another time, of several times, or of none.
fn name_of(timeline: &Timeline, range: &Range, at: i64, got: &Got<'_>) -> &'static str {
    if got.pairs.iter().any(|pair| pair.modified > at) {
        return "future-read";
    }
    let put =
        |pair: &Pair| timeline.at(&pair.key, pair.modified).is_some_and(|own| own.modified == pair.modified);
    for pair in got.pairs {
        let own = timeline.at(&pair.key, pair.modified);
        if !put(pair) || own.is_some_and(|own| own.value != pair.value) {
            return "phantom-read";
        }
        if own != Some(pair) {
            return "wrong-metadata";
        }
    }
    if got.more || range.limit > 0 {
        return "wrong-read";
    }
    // From when until when everything in the answer was so, and nothing else.
    let (mut from, mut until) = (1, i64::MAX);
    for pair in got.pairs {
        from = from.max(pair.modified);
        let changes = timeline.changes_of(&pair.key);
        let next = changes.partition_point(|change| change.revision <= pair.modified);
        until = until.min(changes.get(next).map_or(i64::MAX, |change| change.revision));
    }
    let mut listed = got.pairs.iter().map(|pair| pair.key.as_str()).peekable();
    let mut absent = Vec::new();
    for key in timeline.keys().filter(|key| covers(&range.keys, key)) {
        if listed.peek() == Some(&key) {
            listed.next();
        } else {
            absent.push(key);
        }
    }
    // Absent keys were absent in spans of their own; try each moment at which one of them went.
    let moments = absent.iter().flat_map(|key| timeline.changes_of(key)).map(|change| change.revision);
    let moment = moments
        .chain([from])
        .filter(|moment| from <= *moment && *moment < until)
        .find(|moment| absent.iter().all(|key| timeline.at(key, *moment).is_none()));
    let lost_for_good = |key: &&str| {
        let seen = timeline.at(key, at);
        let read = got.pairs.iter().find(|pair| pair.key == **key);
        seen.is_some() && read.is_none() && timeline.changes_of(key).len() == 1
    };
    match moment {
        Some(moment) if moment < at => "stale-read",
        Some(_) => "wrong-read",
        None if absent.iter().any(lost_for_good) => "lost-write",
        None => "torn-read",
    }
}

fn operations(timeline: &Timeline, index: usize, expected: &[&Pair], got: &[Pair]) -> Vec<usize> {
    let differs = expected.iter().find(|pair| !got.contains(pair));
    let writer = differs.and_then(|pair| timeline.revision(pair.modified)).map(|revision| revision.writer);
    match writer {
        Some(Writer::Operation(writer)) if writer != index => vec![writer, index],
        _ => vec![index],
    }
}

fn explain(index: usize, at: i64, expected: &[&Pair], got: &[Pair]) -> String {
    let only: Vec<_> = got.iter().filter(|pair| !expected.contains(pair)).take(5).map(tell).collect();
    let missed: Vec<_> =
        expected.iter().filter(|pair| !got.contains(pair)).take(5).map(|pair| tell(pair)).collect();
    format!(
        "Operation {index} read as of revision {at}. It was told [{}], which was not so, and not [{}], which was.",
        only.join(", "),
        missed.join(", ")
    )
}

fn tell(pair: &Pair) -> String {
    let Pair { key, value, created, modified, version, lease } = pair;
    let value: String = value.chars().take(60).collect();
    let lease = if *lease == 0 { String::new() } else { format!(" lease {lease}") };
    format!("{key}={value} (created {created}, modified {modified}, version {version}{lease})")
}

fn check_write(
    timeline: &Timeline,
    check: &mut Check,
    index: usize,
    operation: &Operation,
    got: &Body,
    base: i64,
) {
    let expected = match &operation.action {
        Action::Txn(txn) => {
            let Body::Txn { succeeded, .. } = got else { return mismatched(check, index) };
            let holding = txn.compares.iter().all(|compare| holds(compare, timeline.at(&compare.key, base)));
            if holding != *succeeded {
                return wrong_branch(timeline, check, index, txn, base, *succeeded);
            }
            perform(timeline, &operation.action, base, Some(*succeeded))
        }
        Action::Put(_) | Action::Delete(_) => perform(timeline, &operation.action, base, None),
        _ => return,
    };
    check.look("writes and transactions", 1);
    if expected.body == *got {
        return;
    }
    let (name, part) = match (&expected.body, got) {
        (Body::Txn { answers: expected, .. }, Body::Txn { answers: got, .. }) => {
            let first = expected.iter().zip(got).find(|(expected, got)| expected != got);
            first.map_or(("wrong-answer", String::new()), |(expected, got)| {
                (name_of_part(expected, got), compare(expected, got))
            })
        }
        (expected, got) => (name_of_part(expected, got), compare(expected, got)),
    };
    check.add(name, vec![index], || {
        format!("Operation {index}, on the state of revision {base}, was answered wrongly: {part}")
    });
}

fn name_of_part(expected: &Body, got: &Body) -> &'static str {
    match (expected, got) {
        (Body::Put { .. }, Body::Put { .. }) => "wrong-previous",
        (Body::Delete { deleted: expected, .. }, Body::Delete { deleted: got, .. }) if expected == got => {
            "wrong-previous"
        }
        (Body::Delete { .. }, Body::Delete { .. }) => "wrong-deleted",
        (Body::Range { .. }, Body::Range { .. }) => "wrong-txn-read",
        _ => "wrong-answer",
    }
}

fn compare(expected: &Body, got: &Body) -> String {
    let all = |pairs: &[Pair]| pairs.iter().take(5).map(tell).collect::<Vec<_>>().join(", ");
    let told = |body: &Body| match body {
        Body::Range { pairs, count, more } => format!("[{}], count {count}, more {more}", all(pairs)),
        Body::Put { previous } => format!("before it [{}]", all(previous.as_slice())),
        Body::Delete { deleted, previous } => format!("{deleted} deleted, before it [{}]", all(previous)),
        other => format!("{other:?}"),
    };
    format!("it got {}, and should have got {}.", told(got), told(expected))
}

fn wrong_branch(timeline: &Timeline, check: &mut Check, index: usize, txn: &Txn, base: i64, succeeded: bool) {
    check.add("wrong-branch", vec![index], || {
        let compares: Vec<_> = txn
            .compares
            .iter()
            .map(|compare| {
                let own =
                    timeline.at(&compare.key, base).map_or(format!("{} is not there", compare.key), tell);
                format!("{:?} {:?} where {own}", compare.relation, compare.operand)
            })
            .collect();
        let said = if succeeded { "held" } else { "did not hold" };
        format!("Transaction {index} says its compares {said} at revision {base}: {}.", compares.join("; "))
    });
}

fn mismatched(check: &mut Check, index: usize) {
    check.add("wrong-answer", vec![index], || format!("Operation {index} got an answer of another kind."));
}

/// Transactions without an answer that happened must have taken the branch their compares say.
fn check_unheard(history: &History, timeline: &Timeline, check: &mut Check) {
    for revision in timeline.revisions() {
        let Writer::Operation(index) = revision.writer else { continue };
        let operation = &history.operations[index];
        let (Action::Txn(txn), Outcome::Unknown(_)) = (&operation.action, &operation.outcome) else {
            continue;
        };
        let base = revision.number - 1;
        if !certain(timeline, &operation.action, base) {
            continue;
        }
        check.look("transactions without an answer", 1);
        let holding = txn.compares.iter().all(|compare| holds(compare, timeline.at(&compare.key, base)));
        let fits = |branch| {
            let writes = writes(timeline, &operation.action, base, Some(branch));
            writes.len() == revision.changes.len()
                && writes.iter().all(|write| {
                    revision.changes.iter().any(|change| {
                        change.key == write.key
                            && change.pair.as_ref().map(|pair| &pair.value)
                                == write.put.as_ref().map(|put| &put.0)
                    })
                })
        };
        if !fits(holding) && fits(!holding) {
            wrong_branch(timeline, check, index, txn, base, !holding);
        }
    }
}

/// Whether all that an answer depends on is known.
fn certain(timeline: &Timeline, action: &Action, base: i64) -> bool {
    let one = |key: &str| timeline.certain(&Keys { key: key.into(), end: String::new() }, base);
    let request = |request: &Request| match request {
        Request::Range(range) if range.revision > 0 => timeline.certain(&range.keys, range.revision),
        Request::Range(range) => timeline.certain(&range.keys, base),
        Request::Put(put) => !put.previous || one(&put.key),
        Request::Delete(delete) => timeline.certain(&delete.keys, base),
    };
    match action {
        Action::Put(put) => !put.previous || one(&put.key),
        Action::Delete(delete) => timeline.certain(&delete.keys, base),
        Action::Txn(txn) => {
            txn.compares.iter().all(|compare| one(&compare.key))
                && txn.then.iter().chain(&txn.otherwise).all(request)
        }
        _ => true,
    }
}
