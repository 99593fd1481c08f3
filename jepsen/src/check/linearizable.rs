//! Whether every answer is the one that a single etcd, asked at one moment
//! between request and answer, would have given.
//!
//! An answer's header says at which revision that moment was. So three things are left to check,
//! and none needs a search:
//!
//!  1. The answer is the model's, from the state at that revision.
//!  2. Time: who asks after a revision was heard of is not answered from before it
//!     (`floor`), and nobody hears of a revision before its write was asked for (`ceiling`).
//!  3. Leases and compactions, which take no revision, by their own order in time.
//!
//! And what is refused for its revision has to be refused for it.

mod answers;
mod leases;
mod order;
mod refusals;

use super::Check;
use super::timeline::Timeline;
use crate::history::{Action, Answer, History, Operation, Outcome, Request};
pub use answers::{Got, check_range};

/// Checks them.
pub fn check(history: &History, timeline: &Timeline) -> Check {
    let mut check = Check::new("linearizable");
    answers::check(history, timeline, &mut check);
    order::check(history, timeline, &mut check);
    leases::check(history, timeline, &mut check);
    leases::check_compactions(history, &mut check);
    refusals::check(history, timeline, &mut check);
    check
}

/// Whether an action's answer must be of the moment it was asked for; others may be of an old one.
pub fn is_linearizable(action: &Action) -> bool {
    match action {
        Action::Range(range) => !range.serializable,
        Action::Txn(txn) => txn
            .then
            .iter()
            .chain(&txn.otherwise)
            .any(|request| !matches!(request, Request::Range(range) if range.serializable)),
        Action::LeaseKeepAlive { .. } | Action::LeaseTimeToLive { .. } => false,
        Action::Put(_)
        | Action::Delete(_)
        | Action::Compact { .. }
        | Action::LeaseGrant { .. }
        | Action::LeaseRevoke { .. } => true,
    }
}

/// Whether an action only reads, and an old state will do.
pub fn is_serializable_read(action: &Action) -> bool {
    matches!(action, Action::Range(_) | Action::Txn(_)) && !is_linearizable(action)
}

/// Answered operations.
fn done(history: &History) -> impl Iterator<Item = (usize, &Operation, &Answer)> {
    history.operations.iter().enumerate().filter_map(|(index, operation)| match &operation.outcome {
        Outcome::Done(answer) => Some((index, operation, answer)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Plan, Workload, history};

    #[test]
    fn a_correct_store_has_no_anomalies() {
        for seed in 100..120 {
            for workload in
                [Workload::Mix, Workload::Register, Workload::Append, Workload::Set, Workload::Lock]
            {
                let history = history(&Plan::new(workload, seed));
                let timeline = Timeline::of(&history);
                assert_eq!(timeline.anomalies(), &[], "{workload:?} seed {seed}");
                let check = check(&history, &timeline);
                assert_eq!(check.anomalies, &[], "{workload:?} seed {seed}");
            }
        }
    }
}
