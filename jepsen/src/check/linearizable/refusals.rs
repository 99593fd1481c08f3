//! What the store refuses as compacted was, and what it refuses as of the future was.

use super::is_linearizable;
use crate::check::Check;
use crate::check::compactions::Compactions;
use crate::check::timeline::Timeline;
use crate::history::{Action, History, Operation, Outcome, Request};

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

pub fn check(history: &History, timeline: &Timeline, check: &mut Check) {
    let compactions = Compactions::of(history);
    for (index, operation) in history.operations.iter().enumerate() {
        let Outcome::Refused(why) = &operation.outcome else { continue };
        if why.ends_with(COMPACTED) {
            check.look("refused as compacted", 1);
            check_compacted(&compactions, check, index, operation);
        } else if why.ends_with(FUTURE) {
            check.look("refused as of the future", 1);
            check_future(timeline, check, index, operation);
        }
    }
}

/// A read needs a compaction beyond its revision, a compaction one that goes as far, by the time of the answer.
fn check_compacted(compactions: &Compactions, check: &mut Check, index: usize, operation: &Operation) {
    let by = operation.returned;
    let fits = match operation.action {
        Action::Compact { revision } => compactions.may_reach_without(index, revision, by),
        _ => revisions(&operation.action).any(|revision| compactions.may_reach(revision + 1, by)),
    };
    if !fits {
        check.add("untrue-compacted", vec![index], || {
            format!("Operation {index} was refused as compacted, but nobody had asked for that.")
        });
    }
}

/// Nobody may have heard of the revision before this was asked. An old state, which may be of before, is excused.
fn check_future(timeline: &Timeline, check: &mut Check, index: usize, operation: &Operation) {
    let asked: Vec<i64> = match operation.action {
        Action::Compact { revision } => vec![revision],
        ref action if is_linearizable(action) => revisions(action).collect(),
        _ => return,
    };
    let known = |revision: i64| {
        revision <= 1 || timeline.revision(revision).is_some_and(|there| there.known < operation.invoked)
    };
    if asked.iter().all(|revision| known(*revision)) {
        check.add("untrue-future", vec![index], || {
            format!(
                "Operation {index} was refused as of the future, but revisions {asked:?} were known before."
            )
        });
    }
}

/// The revisions of the past that an action may read.
fn revisions(action: &Action) -> impl Iterator<Item = i64> {
    let ranges: Vec<i64> = match action {
        Action::Range(range) => vec![range.revision],
        Action::Txn(txn) => {
            let all = txn.then.iter().chain(&txn.otherwise);
            let range = |request: &Request| match request {
                Request::Range(range) => Some(range.revision),
                _ => None,
            };
            all.filter_map(range).collect()
        }
        _ => Vec::new(),
    };
    ranges.into_iter().filter(|revision| *revision > 0)
}
