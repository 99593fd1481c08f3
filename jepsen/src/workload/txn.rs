//! Transactions of every shape over a few keys.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::{Script, Step, Workload, World, answer, delete, one, put, shown};
use crate::history::{
    Action, Compare, Delete, Keys, Operand, Operation, Pair, Put, Range, Relation, Request, Txn,
};

const KEYS: u32 = 8;

/// The workload.
pub(super) struct Transactions;

impl Workload for Transactions {
    fn name(&self) -> &'static str {
        "txn"
    }

    fn about(&self) -> &'static str {
        "transactions over eight keys: mixed compares, reads of the past, puts, deletions of ranges"
    }

    fn script(&self, _client: u32) -> Box<dyn Script> {
        Box::new(Transactor::default())
    }
}

/// What a client knows of the keys, which may be old.
#[derive(Default)]
struct Transactor {
    known: BTreeMap<String, Pair>,
}

impl Script for Transactor {
    fn next(&mut self, world: &mut World<'_>) -> Step {
        Step::Ask(match world.rng.random_range(0..100) {
            0..10 => Action::Put(Put { previous: true, ..put(&key(world), world.value()) }),
            10..20 => Action::Range(range(world)),
            20..23 => Action::Delete(Delete { keys: some(world), previous: true }),
            _ => {
                let compares = (0..world.rng.random_range(0..4)).map(|_| self.compare(world)).collect();
                Action::Txn(Txn { compares, then: requests(world), otherwise: requests(world) })
            }
        })
    }

    fn heard(&mut self, operation: &Operation) {
        let Some(answer) = answer(operation) else { return };
        for pair in shown(&answer.body) {
            self.known.insert(pair.key.clone(), pair.clone());
        }
    }
}

impl Transactor {
    /// One that holds about as often as not.
    fn compare(&self, world: &mut World<'_>) -> Compare {
        let key = key(world);
        let known = self.known.get(&key).cloned().unwrap_or_default();
        let operand = match world.rng.random_range(0..5) {
            0 => Operand::Value(known.value),
            1 => Operand::Modified(known.modified),
            2 => Operand::Created(known.created),
            3 => Operand::Version(known.version),
            _ => Operand::Lease(0),
        };
        let relations = [Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less];
        let relation = *relations.choose(world.rng).expect("there are four");
        Compare { key, relation, operand }
    }
}

fn key(world: &mut World<'_>) -> String {
    format!("txn/{}", world.rng.random_range(0..KEYS))
}

/// A key, or some that follow each other.
fn some(world: &mut World<'_>) -> Keys {
    match world.rng.random_bool(0.5) {
        true => one(&key(world)),
        false => {
            let first = world.rng.random_range(0..KEYS);
            let end = world.rng.random_range(first + 1..=KEYS);
            Keys { key: format!("txn/{first}"), end: format!("txn/{end}") }
        }
    }
}

fn range(world: &mut World<'_>) -> Range {
    let revision = match world.rng.random_bool(0.2) {
        true => (world.observed - world.rng.random_range(0..30)).max(0),
        false => 0,
    };
    let limit = if world.rng.random_bool(0.2) { world.rng.random_range(1..4) } else { 0 };
    Range { keys: some(world), revision, limit, serializable: false }
}

/// One to four requests that may stand beside each other: no key is put twice, or put and deleted.
fn requests(world: &mut World<'_>) -> Vec<Request> {
    let mut free: Vec<u32> = (0..KEYS).collect();
    let mut requests = Vec::new();
    for _ in 0..world.rng.random_range(1..5) {
        let taken = free.swap_remove(world.rng.random_range(0..free.len()));
        let key = format!("txn/{taken}");
        requests.push(match world.rng.random_range(0..10) {
            0..4 => Request::Range(range(world)),
            4..9 => {
                let previous = world.rng.random_bool(0.5);
                Request::Put(Put { previous, ..put(&key, world.value()) })
            }
            _ => delete(&key, world.rng.random_bool(0.5)),
        });
    }
    if world.rng.random_bool(0.05) {
        // All of some, and nothing else that changes any of them.
        requests.retain(|request| matches!(request, Request::Range(_)));
        requests.push(Request::Delete(Delete { keys: some(world), previous: true }));
    }
    requests
}
