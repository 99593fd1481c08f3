//! Keys that stay: what was added is in every later read.
//!
//! Believes no revision. A key that nobody ever asks to delete, and that has no
//! lease, is there for good once a put of it was acknowledged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use super::Check;
use super::model::covers;
use crate::history::{Action, Answer, Body, History, Keys, Nanos, Outcome, Pair, Put, Range, Request};

/// A key that stays.
#[derive(Debug, Default)]
struct Element<'a> {
    /// The put that was acknowledged first, and when.
    added: Option<(Nanos, usize)>,
    /// When somebody first asked for it.
    asked: Option<Nanos>,
    values: HashSet<&'a str>,
}

/// Checks reads that are not serializable, of the present, and without a limit.
pub fn check(history: &History) -> Check {
    let mut check = Check::new("set");
    let elements = elements(history);
    let acknowledged = elements.values().filter(|element| element.added.is_some()).count();
    check.look("keys that stay", elements.len());
    check.look("acknowledged", acknowledged);
    let mut order: Vec<usize> = (0..history.operations.len()).collect();
    order.sort_by_key(|index| history.operations[*index].returned);
    // Told once, at the read that missed it first.
    let mut lost: HashMap<&str, (usize, usize)> = HashMap::new();
    for index in order {
        let operation = &history.operations[index];
        let Outcome::Done(answer) = &operation.outcome else { continue };
        for (range, pairs) in reads(&operation.action, answer) {
            check.look("reads", 1);
            missing(&elements, range, pairs, operation.invoked, |key, by| {
                lost.entry(key).or_insert((by, index));
            });
            for pair in pairs {
                let Some(element) = elements.get(pair.key.as_str()) else { continue };
                let asked = element.asked.is_some_and(|asked| asked <= operation.returned);
                if !asked || !element.values.contains(pair.value.as_str()) {
                    check.add("phantom-element", vec![index], || {
                        format!("Operation {index} read {}={}, which nobody had put.", pair.key, pair.value)
                    });
                }
            }
        }
    }
    let mut lost: Vec<_> = lost.into_iter().collect();
    lost.sort_unstable();
    for (key, (by, index)) in lost {
        check.add("lost-element", vec![by, index], || {
            format!(
                "Operation {by} added {key}, which was acknowledged before operation {index} was asked; that did not \
                 see it, though nobody ever deletes it."
            )
        });
    }
    check
}

fn missing<'a>(
    elements: &BTreeMap<&'a str, Element<'_>>,
    range: &Range,
    pairs: &[Pair],
    invoked: Nanos,
    mut tell: impl FnMut(&'a str, usize),
) {
    let mut seen = pairs.iter().map(|pair| pair.key.as_str()).peekable();
    let from = (Bound::Included(range.keys.key.as_str()), Bound::Unbounded);
    for (key, element) in elements.range::<str, _>(from).take_while(|(key, _)| covers(&range.keys, key)) {
        while seen.next_if(|seen| seen < key).is_some() {}
        if seen.peek() == Some(key) {
            continue;
        }
        if let Some((_, by)) = element.added.filter(|(at, _)| *at < invoked) {
            tell(key, by);
        }
    }
}

fn elements(history: &History) -> BTreeMap<&str, Element<'_>> {
    let mut elements: BTreeMap<&str, Element<'_>> = BTreeMap::new();
    let mut ranges: Vec<&Keys> = Vec::new();
    let mut gone: HashSet<&str> = HashSet::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let refused = matches!(operation.outcome, Outcome::Refused(_));
        for (request, done) in requests(&operation.action, &operation.outcome) {
            match request {
                Ask::Put(put) => {
                    let element = elements.entry(put.key.as_str()).or_default();
                    if put.lease != 0 {
                        gone.insert(put.key.as_str());
                    }
                    if refused {
                        continue;
                    }
                    element.values.insert(&put.value);
                    let asked = element.asked.get_or_insert(operation.invoked);
                    *asked = (*asked).min(operation.invoked);
                    if done {
                        let added = element.added.get_or_insert((operation.returned, index));
                        *added = (*added).min((operation.returned, index));
                    }
                }
                Ask::Delete(keys) if keys.end.is_empty() => drop(gone.insert(keys.key.as_str())),
                Ask::Delete(keys) => ranges.push(keys),
            }
        }
    }
    ranges.sort_by_key(|keys| (&keys.key, &keys.end));
    ranges.dedup();
    elements.retain(|key, _| !gone.contains(key) && !ranges.iter().any(|keys| covers(keys, key)));
    elements
}

enum Ask<'a> {
    Put(&'a Put),
    Delete(&'a Keys),
}

/// What an action would change, and whether it is known to have.
fn requests<'a>(action: &'a Action, outcome: &'a Outcome) -> Vec<(Ask<'a>, bool)> {
    let answered = matches!(outcome, Outcome::Done(_));
    match action {
        Action::Put(put) => vec![(Ask::Put(put), answered)],
        Action::Delete(delete) => vec![(Ask::Delete(&delete.keys), answered)],
        Action::Txn(txn) => {
            let taken = match outcome {
                Outcome::Done(Answer { body: Body::Txn { succeeded, .. }, .. }) => Some(*succeeded),
                _ => None,
            };
            let then = txn.then.iter().map(|request| (request, true));
            let otherwise = txn.otherwise.iter().map(|request| (request, false));
            // A branch that was not taken asked for nothing.
            then.chain(otherwise)
                .filter(|(_, branch)| taken.is_none_or(|taken| taken == *branch))
                .filter_map(|(request, _)| match request {
                    Request::Put(put) => Some((Ask::Put(put), taken.is_some())),
                    Request::Delete(delete) => Some((Ask::Delete(&delete.keys), taken.is_some())),
                    Request::Range(_) => None,
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The reads of an answer that show everything there is.
fn reads<'a>(action: &'a Action, answer: &'a Answer) -> Vec<(&'a Range, &'a [Pair])> {
    let whole = |range: &Range| range.revision == 0 && range.limit == 0 && !range.serializable;
    match (action, &answer.body) {
        (Action::Range(range), Body::Range { pairs, .. }) if whole(range) => vec![(range, pairs.as_slice())],
        (Action::Txn(txn), Body::Txn { succeeded, answers }) => {
            let requests = if *succeeded { &txn.then } else { &txn.otherwise };
            let taken = requests.iter().zip(answers);
            taken
                .filter_map(|(request, body)| match (request, body) {
                    (Request::Range(range), Body::Range { pairs, .. }) if whole(range) => {
                        Some((range, pairs.as_slice()))
                    }
                    _ => None,
                })
                .collect()
        }
        _ => Vec::new(),
    }
}
