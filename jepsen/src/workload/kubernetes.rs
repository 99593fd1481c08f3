//! What Kubernetes' API server does.
//!
//! Objects are created, updated and deleted only under the revision of their
//! last change as the client knows it. Two clients in five are informers: they list
//! in pages, all of one revision, and then watch from that revision on. One
//! compacts what was before some seconds ago, by the key and the transaction that
//! API servers use to agree on who does.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IteratorRandom;

use super::{Script, Step, Workload, World, answer, delete, equals, get, if_unchanged, put, shown};
use crate::history::{Action, Body, Keys, Operand, Operation, Pair, Put, Range, Request, Txn};
use crate::watcher::{Plan, under};

const PREFIX: &str = "/registry/pods/";
const OBJECTS: u32 = 40;
const PAGE: i64 = 10;
const COMPACT_KEY: &str = "compact_rev_key";
const COMPACT_EVERY: Duration = Duration::from_secs(6);

/// The workload.
pub(super) struct Kubernetes;

impl Workload for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn about(&self) -> &'static str {
        "objects changed under their revision, lists in pages and watches from them on, compaction"
    }

    fn script(&self, client: u32) -> Box<dyn Script> {
        match client % 5 {
            1 | 3 => Box::new(Informer { page: None }),
            _ => Box::new(Controller {
                known: BTreeMap::new(),
                compactor: (client == 0).then(Compactor::default),
            }),
        }
    }
}

/// Changes objects.
struct Controller {
    /// The objects, as old as they may be.
    known: BTreeMap<String, Pair>,
    compactor: Option<Compactor>,
}

impl Script for Controller {
    fn next(&mut self, world: &mut World<'_>) -> Step {
        if let Some(action) = self.compactor.as_mut().and_then(|compactor| compactor.next(world)) {
            return Step::Ask(action);
        }
        let number = world.rng.random_range(0..OBJECTS);
        let key = format!("{PREFIX}ns{}/pod{number:02}", number % 3);
        let known = self.known.get(&key).map_or(0, |pair| pair.modified);
        Step::Ask(match world.rng.random_range(0..100) {
            0..15 => Action::Range(Range { keys: super::one(&key), ..Range::default() }),
            15..30 if known > 0 => Action::Txn(Txn {
                compares: vec![equals(&key, Operand::Modified(known))],
                then: vec![delete(&key, true)],
                otherwise: vec![get(&key)],
            }),
            _ => if_unchanged(&key, known, Request::Put(Put { previous: false, ..put(&key, world.value()) })),
        })
    }

    fn heard(&mut self, operation: &Operation) {
        if let Some(compactor) = &mut self.compactor {
            compactor.heard(operation);
        }
        let Action::Txn(txn) = &operation.action else { return };
        let key = &txn.compares[0].key;
        let Some(answer) = answer(operation) else {
            // Whatever became of it: the next attempt reads it.
            self.known.remove(key);
            return;
        };
        match (&answer.body, txn.then.first()) {
            (Body::Txn { succeeded: true, .. }, Some(Request::Put(put))) => {
                let (value, modified) = (put.value.clone(), answer.revision);
                self.known.insert(key.clone(), Pair { key: key.clone(), value, modified, ..Pair::default() });
            }
            (body, _) => match shown(body).first() {
                Some(pair) => {
                    self.known.insert(key.clone(), (*pair).clone());
                }
                None => {
                    self.known.remove(key);
                }
            },
        }
    }
}

/// Agrees with itself, as several API servers would, on what is old.
#[derive(Default)]
struct Compactor {
    last: Duration,
    /// How often the key was put, as far as is known.
    version: i64,
    /// The revision that will be old the next time.
    old: i64,
    /// What is to be compacted now.
    due: Option<i64>,
}

impl Compactor {
    fn next(&mut self, world: &mut World<'_>) -> Option<Action> {
        // Never further than the observer is, or nobody would know what happened.
        if let Some(revision) = self.due.take().filter(|revision| *revision <= world.observed) {
            return Some(Action::Compact { revision });
        }
        if world.elapsed < self.last + COMPACT_EVERY {
            return None;
        }
        self.last = world.elapsed;
        Some(Action::Txn(Txn {
            compares: vec![equals(COMPACT_KEY, Operand::Version(self.version))],
            then: vec![Request::Put(put(COMPACT_KEY, world.value()))],
            otherwise: vec![get(COMPACT_KEY)],
        }))
    }

    fn heard(&mut self, operation: &Operation) {
        let Action::Txn(txn) = &operation.action else { return };
        let (COMPACT_KEY, Some(answer)) = (txn.compares[0].key.as_str(), answer(operation)) else { return };
        match &answer.body {
            Body::Txn { succeeded: true, .. } => {
                self.version += 1;
                self.due = (self.old > 0).then_some(self.old);
                self.old = answer.revision;
            }
            body => self.version = shown(body).first().map_or(0, |pair| pair.version),
        }
    }
}

/// Lists, then watches.
struct Informer {
    /// Where the list goes on, and of which revision it is.
    page: Option<(String, i64)>,
}

impl Script for Informer {
    fn next(&mut self, world: &mut World<'_>) -> Step {
        let all = under(PREFIX);
        match self.page.take() {
            // The list is complete.
            Some((key, revision)) if key.is_empty() => {
                self.page = None;
                let life = Duration::from_secs(world.rng.random_range(2..8));
                let reconnect = world.rng.random_bool(0.2).then(|| life / 2);
                let start = revision + 1;
                Step::Watch(Plan {
                    keys: all,
                    start,
                    previous: true,
                    progress: true,
                    life: Some(life),
                    reconnect,
                })
            }
            Some((key, revision)) => {
                let keys = Keys { key, end: all.end };
                Step::Ask(Action::Range(Range { keys, revision, limit: PAGE, serializable: false }))
            }
            None if world.rng.random_bool(0.7) => {
                let millis = (200..1500).choose(world.rng).expect("there are some");
                Step::Wait(Duration::from_millis(millis))
            }
            None => {
                Step::Ask(Action::Range(Range { keys: all, revision: 0, limit: PAGE, serializable: false }))
            }
        }
    }

    fn heard(&mut self, operation: &Operation) {
        let (Action::Range(range), Some(answer)) = (&operation.action, answer(operation)) else { return };
        let Body::Range { pairs, more, .. } = &answer.body else { return };
        let revision = if range.revision > 0 { range.revision } else { answer.revision };
        // The next page begins right behind the last key of this one.
        let key = pairs.last().filter(|_| *more).map_or(String::new(), |pair| format!("{}\0", pair.key));
        self.page = Some((key, revision));
    }
}
