//! Lists to which elements are appended, several in one transaction.
//!
//! A list is the value of a key: its elements, separated by commas. Nobody can
//! append to a value, so a client reads some lists in one transaction and puts
//! them, each with one more element, in a second one, which does so only if none
//! of them was changed in between and also reads what it relied upon. An
//! element is a number that occurs once in a run. Full lists are left for new
//! ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::RngExt;

use super::{Script, Step, Workload, World, answer, equals, get, put, shown};
use crate::history::{Action, Body, Operand, Operation, Pair, Request, Txn};

/// How many lists are in use at a time.
const LISTS: u32 = 4;
/// How many elements a list has when it is left.
const LENGTH_MAX: usize = 40;

/// The workload; how many times a list was left.
#[derive(Default)]
pub(super) struct Append {
    left: Arc<AtomicU32>,
}

impl Workload for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    fn about(&self) -> &'static str {
        "reads several lists and appends to several, in one transaction each time"
    }

    fn script(&self, _client: u32) -> Box<dyn Script> {
        Box::new(Appender { left: Arc::clone(&self.left), known: None })
    }
}

struct Appender {
    left: Arc<AtomicU32>,
    /// The lists as they were a moment ago, also those that are not there.
    known: Option<Vec<Pair>>,
}

impl Script for Appender {
    fn next(&mut self, world: &mut World<'_>) -> Step {
        Step::Ask(Action::Txn(match self.known.take() {
            None => {
                let left = self.left.load(Ordering::Relaxed);
                let mut lists: Vec<u32> = (0..LISTS).collect();
                for _ in 0..world.rng.random_range(1..LISTS) {
                    lists.remove(world.rng.random_range(0..lists.len()));
                }
                let then = lists.iter().map(|list| get(&format!("append/{list}/{left}"))).collect();
                Txn { then, ..Txn::default() }
            }
            Some(lists) => {
                let compares =
                    lists.iter().map(|list| equals(&list.key, Operand::Modified(list.modified))).collect();
                let mut then: Vec<Request> = lists.iter().map(|list| get(&list.key)).collect();
                for (at, list) in lists.iter().enumerate() {
                    // One at least, else it is a read.
                    if at == 0 || world.rng.random_bool(0.6) {
                        let value = format!("{},{}", list.value, world.value());
                        then.push(Request::Put(put(&list.key, value.trim_start_matches(',').to_owned())));
                    }
                }
                Txn { compares, then, otherwise: lists.iter().map(|list| get(&list.key)).collect() }
            }
        }))
    }

    fn heard(&mut self, operation: &Operation) {
        let Some(answer) = answer(operation) else { return };
        let (Action::Txn(txn), Body::Txn { succeeded, .. }) = (&operation.action, &answer.body) else {
            return;
        };
        let pairs = shown(&answer.body);
        if pairs.iter().any(|pair| pair.value.split(',').count() >= LENGTH_MAX) {
            let left = pairs.iter().filter_map(|pair| pair.key.rsplit_once('/')?.1.parse::<u32>().ok()).max();
            self.left.fetch_max(left.unwrap_or_default() + 1, Ordering::Relaxed);
            return;
        }
        // After a read, or what came too late, with what was read; after an append with another read.
        let requests = if *succeeded { &txn.then } else { &txn.otherwise };
        if *succeeded && !txn.compares.is_empty() {
            return;
        }
        let list = |request: &Request| match request {
            Request::Range(range) => {
                let key = range.keys.key.clone();
                let found = pairs.iter().find(|pair| pair.key == key).map(|pair| (*pair).clone());
                Some(found.unwrap_or(Pair { key, ..Pair::default() }))
            }
            _ => None,
        };
        self.known = Some(requests.iter().filter_map(list).collect());
    }
}
