//! Elle's analysis of lists that only grow.
//!
//! A key's value is a list of integers with commas, and a transaction that
//! appends reads the list, then puts it back longer, if nobody changed it since.
//! So a list tells every version before it; what transactions read and wrote
//! tells who came before whom; and a cycle of such steps is an anomaly, whose
//! name says which steps are in it.
//!
//! ```text
//!   ww   wrote the version right before the other's
//!   wr   wrote the version the other read
//!   rw   read the version right before the other's
//! ```
//!
//! `-process` and `-realtime` after a name say that the cycle also needs the order of one
//! client, or that one was answered before the other was asked.

mod graph;
mod transactions;

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Check;
use crate::history::History;
use graph::Graph;
pub use transactions::Transaction;
use transactions::{List, tell};

/// Whether a history is of such lists.
pub fn is_append(history: &History) -> bool {
    history.run.workload.contains("append")
}

/// Checks a history in which every key is such a list.
pub fn check(history: &History) -> Check {
    let mut check = Check::new("append");
    let transactions = transactions::of(history);
    check.look("transactions", transactions.len());
    let versions = Versions::of(&transactions, &mut check);
    for transaction in &transactions {
        check_internal(transaction, &mut check);
        check_reads(transaction, &versions, &transactions, &mut check);
    }
    lost_updates(&transactions, &mut check);
    let graph = Graph::of(&transactions, &versions);
    graph::check(&graph, &transactions, &mut check);
    check
}

/// The elements of each key in the order in which they were appended.
pub struct Versions {
    order: BTreeMap<String, List>,
    /// Which transaction appended an element.
    writers: HashMap<(String, i64), usize>,
    /// Where an element stands in the order.
    places: HashMap<(String, i64), usize>,
}

impl Versions {
    /// From the longest list of each key; another that does not begin it is an anomaly.
    fn of(transactions: &[Transaction], check: &mut Check) -> Self {
        let mut writers = HashMap::new();
        let mut longest: BTreeMap<&str, (&List, usize)> = BTreeMap::new();
        for (at, transaction) in transactions.iter().enumerate() {
            for append in &transaction.appends {
                for element in append.elements() {
                    // Tried again with the same element: the one that was not refused is meant.
                    let writer = writers.entry((append.key.clone(), *element)).or_insert(at);
                    if transactions[*writer].aborted {
                        *writer = at;
                    }
                }
            }
            for (key, list) in transaction.lists() {
                let known = longest.entry(key).or_insert((list, at));
                if list.len() > known.0.len() {
                    *known = (list, at);
                }
            }
        }
        let mut told = HashSet::new();
        for (at, transaction) in transactions.iter().enumerate() {
            for (key, list) in transaction.lists() {
                let (whole, by) = longest[key];
                let once: HashSet<_> = list.iter().collect();
                if once.len() < list.len() {
                    check.add("duplicate-elements", vec![transaction.index], || {
                        format!(
                            "Operation {} saw an element twice in {key}: {}.",
                            transaction.index,
                            tell(list)
                        )
                    });
                }
                if !whole.starts_with(list) && told.insert((key, at)) {
                    check.add("incompatible-order", vec![transactions[by].index, transaction.index], || {
                        format!(
                            "Operation {} saw {key} as {}, and operation {} as {}; neither list begins the other.",
                            transactions[by].index,
                            tell(whole),
                            transaction.index,
                            tell(list)
                        )
                    });
                }
            }
        }
        let order: BTreeMap<String, List> =
            longest.into_iter().map(|(key, (list, _))| (key.to_string(), list.clone())).collect();
        let places = order
            .iter()
            .flat_map(|(key, list)| {
                list.iter().enumerate().map(|(at, element)| ((key.clone(), *element), at))
            })
            .collect();
        Self { order, writers, places }
    }

    /// The transaction that appended an element.
    pub fn writer(&self, key: &str, element: i64) -> Option<usize> {
        self.writers.get(&(key.to_string(), element)).copied()
    }

    /// The element after another, or the first.
    pub fn after(&self, key: &str, element: Option<i64>) -> Option<i64> {
        let place = match element {
            Some(element) => self.places.get(&(key.to_string(), element))? + 1,
            None => 0,
        };
        self.order.get(key)?.get(place).copied()
    }

    /// All keys' orders.
    pub fn order(&self) -> &BTreeMap<String, List> {
        &self.order
    }
}

/// What a transaction reads must agree with what it did before.
fn check_internal(transaction: &Transaction, check: &mut Check) {
    for (key, expected, found) in &transaction.internal {
        check.add("internal", vec![transaction.index], || {
            format!(
                "Operation {} read {key} as {}, which by its own requests before was {}.",
                transaction.index,
                tell(found),
                tell(expected)
            )
        });
    }
}

/// What was read must have been written, by one that was not refused, and be its last.
fn check_reads(transaction: &Transaction, versions: &Versions, all: &[Transaction], check: &mut Check) {
    for (key, list) in &transaction.reads {
        for (at, element) in list.iter().enumerate() {
            let Some(writer) = versions.writer(key, *element).map(|writer| &all[writer]) else {
                check.add("phantom-element", vec![transaction.index], || {
                    format!("Operation {} read {element} in {key}, which nobody appended.", transaction.index)
                });
                continue;
            };
            if writer.aborted {
                check.add("G1a", vec![writer.index, transaction.index], || {
                    format!(
                        "Operation {} read {element} in {key}, appended by operation {}, which did not happen.",
                        transaction.index, writer.index
                    )
                });
            }
            let last = at + 1 == list.len();
            let unfinished = writer.appends.iter().any(|append| {
                append.key == *key
                    && append.elements().contains(element)
                    && append.elements().last() != Some(element)
            });
            if last && unfinished && writer.index != transaction.index {
                check.add("G1b", vec![writer.index, transaction.index], || {
                    format!(
                        "Operation {} read {key} up to {element}, in the middle of what operation {} appended.",
                        transaction.index, writer.index
                    )
                });
            }
        }
    }
}

/// Two that happened and put the same version of a key back longer: one of them is lost.
fn lost_updates(transactions: &[Transaction], check: &mut Check) {
    let mut first: HashMap<(&str, &List), usize> = HashMap::new();
    for transaction in transactions.iter().filter(|transaction| transaction.committed) {
        for append in &transaction.appends {
            let Some(base) = &append.base else { continue };
            let other = *first.entry((&append.key, base)).or_insert(transaction.index);
            if other != transaction.index {
                check.add("lost-update", vec![other, transaction.index], || {
                    format!(
                        "Operations {other} and {} both read {} as {} and appended to that; both were acknowledged.",
                        transaction.index,
                        append.key,
                        tell(base)
                    )
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
