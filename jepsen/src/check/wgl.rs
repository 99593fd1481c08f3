//! Whether each key alone is linearizable, by search, believing no revision.
//!
//! The search is Wing's and Gong's with Lowe's cache: take an operation that
//! may come next, go on, and go back where that leads nowhere; a set of
//! operations done and a state that were met before are not tried again. Three
//! things keep it short:
//!
//!  * A history is linearizable only if each key's part of it is.
//!  * A read that fits the state now can be put here: later it would fit no better.
//!  * An operation without an answer is used only where the next one fits after
//!    it alone; unused it stays at hand for ever, so using it earlier gains nothing.
//!
//! Revisions in answers say which order is tried first, and as names they tell
//! which value a compare meant; neither can make a wrong history right.

mod project;
mod search;

use std::collections::BTreeMap;

use super::Check;
use crate::history::History;
pub use search::Outcome;

/// How many steps are gone for one key before it is given up.
pub const STEPS_MAX: u64 = 2_000_000;

/// Checks every key.
pub fn check(history: &History) -> Check {
    let mut check = Check::new("wgl");
    let (parts, skipped) = project::project(history);
    check.look("keys", parts.len());
    check.look("reads of many keys left out", skipped);
    for part in parts.values() {
        check.look("operations by key", part.answered.len() + part.unheard.len());
        match search::search(part, STEPS_MAX) {
            Outcome::Linearizable => {}
            Outcome::Undecided => check.look("keys given up", 1),
            Outcome::Not { stuck, state } => {
                let value = part.value(state).map_or("not there".to_string(), |value| format!("{value:?}"));
                let key = &part.key;
                check.add("nonlinearizable", stuck.clone(), || {
                    format!(
                        "No order of the operations on {key} fits their answers. In the longest that fits, {key} is \
                         {value}, and then none of operations {stuck:?} can come next."
                    )
                });
            }
        }
    }
    check
}

/// What the search says of every key.
pub fn verdicts(history: &History) -> BTreeMap<String, Outcome> {
    let (parts, _) = project::project(history);
    parts.into_iter().map(|(key, part)| (key, search::search(&part, STEPS_MAX))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Plan, Workload, history};

    #[test]
    fn a_correct_store_is_linearizable_key_by_key() {
        for seed in 0..60 {
            for workload in [Workload::Mix, Workload::Register, Workload::Append, Workload::Lock] {
                let mut plan = Plan::new(workload, seed);
                plan.clients = 8;
                plan.keys = 2;
                let check = check(&history(&plan));
                assert_eq!(check.anomalies, &[], "{workload:?} seed {seed}");
                assert!(!check.looked_at.contains_key("keys given up"), "{workload:?} seed {seed}");
            }
        }
    }

    /// To what a lost answer may have done there are many ways that lead nowhere.
    #[test]
    fn lost_answers_do_not_make_the_search_endless() {
        for seed in 0..10 {
            let mut plan = Plan::new(Workload::Lock, seed);
            (plan.unknown, plan.operations, plan.keys) = (300, 1_000, 1);
            assert_eq!(check(&history(&plan)).anomalies, &[], "seed {seed}");
        }
    }
}
