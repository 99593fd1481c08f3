//! What clients do during a run.
//!
//! A workload has a script for every client. A script is asked for the next
//! step and told what came of it; all its chance comes from the seed. Values
//! are whole numbers in decimal, each of them used once in a run, so that every
//! event and every read tells whose write it shows.

mod append;
mod kubernetes;
mod lease;
mod lock;
mod register;
mod set;
mod txn;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;

use crate::history::{
    Action, Answer, Body, Compare, Delete, Keys, Operand, Operation, Outcome, Pair, Put, Range, Relation,
    Request, Txn,
};
use crate::watcher::{Plan, everything};

/// All workloads.
pub const NAMES: [&str; 8] = ["register", "set", "append", "txn", "lease", "lock", "watch", "kubernetes"];

/// The workload of a name.
pub fn by_name(name: &str) -> Option<Box<dyn Workload>> {
    Some(match name {
        "register" => Box::new(register::Register),
        "set" => Box::new(set::Set::default()),
        "append" => Box::new(append::Append::default()),
        "txn" => Box::new(txn::Transactions),
        "lease" => Box::new(lease::Leases),
        "lock" => Box::new(lock::Lock),
        "watch" => Box::new(watch::Watches),
        "kubernetes" => Box::new(kubernetes::Kubernetes),
        _ => return None,
    })
}

/// What clients do.
pub trait Workload: Send + Sync {
    /// One of [`NAMES`].
    fn name(&self) -> &'static str;

    /// What it is, in one line.
    fn about(&self) -> &'static str;

    /// What a client does, by its number from 0.
    fn script(&self, client: u32) -> Box<dyn Script>;

    /// What is asked at the end, of every member, once all are healthy again.
    fn finish(&self) -> Vec<Action> {
        vec![read(everything())]
    }
}

/// One client's part.
pub trait Script: Send {
    /// What it does next.
    fn next(&mut self, world: &mut World<'_>) -> Step;

    /// What came of it.
    fn heard(&mut self, operation: &Operation);
}

/// What a client does at a time.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It asks and waits for the answer.
    Ask(Action),
    /// It starts a watcher, which goes on by itself.
    Watch(Plan),
    /// It does nothing for a while.
    Wait(Duration),
}

/// What a script may know.
pub struct World<'a> {
    /// All chance.
    pub rng: &'a mut StdRng,
    /// The last revision that is known to be there, and the observer to have been told of.
    pub observed: i64,
    /// How long clients have been at work.
    pub elapsed: Duration,
    numbers: &'a Numbers,
}

impl World<'_> {
    /// What there is at this moment.
    pub fn new<'a>(rng: &'a mut StdRng, observed: i64, elapsed: Duration, numbers: &'a Numbers) -> World<'a> {
        World { rng, observed, elapsed, numbers }
    }

    /// A number that nobody had in this run, above 0.
    pub fn number(&self) -> i64 {
        self.numbers.next()
    }

    /// A value that nobody put in this run.
    pub fn value(&self) -> String {
        self.number().to_string()
    }
}

/// The numbers of a run, each given out once.
#[derive(Debug, Clone, Default)]
pub struct Numbers(Arc<AtomicI64>);

impl Numbers {
    fn next(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A linearizable read.
fn read(keys: Keys) -> Action {
    Action::Range(Range { keys, ..Range::default() })
}

/// A single key.
fn one(key: &str) -> Keys {
    Keys { key: key.to_owned(), end: String::new() }
}

/// A put of no lease.
fn put(key: &str, value: String) -> Put {
    Put { key: key.to_owned(), value, ..Put::default() }
}

/// A read of one key, as part of a transaction.
fn get(key: &str) -> Request {
    Request::Range(Range { keys: one(key), ..Range::default() })
}

/// A deletion of one key, as part of a transaction.
fn delete(key: &str, previous: bool) -> Request {
    Request::Delete(Delete { keys: one(key), previous })
}

/// That a key's own equals the operand.
fn equals(key: &str, operand: Operand) -> Compare {
    Compare { key: key.to_owned(), relation: Relation::Equal, operand }
}

/// Something done to a key only if it was last changed at a revision, 0 for a key that is not there; else it is read.
fn if_unchanged(key: &str, revision: i64, request: Request) -> Action {
    Action::Txn(Txn {
        compares: vec![equals(key, Operand::Modified(revision))],
        then: vec![request],
        otherwise: vec![get(key)],
    })
}

/// The answer, where there was one.
fn answer(operation: &Operation) -> Option<&Answer> {
    match &operation.outcome {
        Outcome::Done(answer) => Some(answer),
        Outcome::Refused(_) | Outcome::Unknown(_) => None,
    }
}

/// All pairs that an answer shows as they are now.
fn shown(body: &Body) -> Vec<&Pair> {
    match body {
        Body::Range { pairs, .. } => pairs.iter().collect(),
        Body::Txn { answers, .. } => answers.iter().flat_map(shown).collect(),
        Body::Put { .. } | Body::Delete { .. } | Body::Lease { .. } | Body::Nothing => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_name_has_its_workload() {
        for name in NAMES {
            assert_eq!(by_name(name).map(|workload| workload.name()), Some(name));
        }
        assert!(by_name("nothing").is_none());
    }

    /// The values that an action puts.
    fn values(action: &Action) -> Vec<&str> {
        let of = |request: &'_ Request| matches!(request, Request::Put(_));
        match action {
            Action::Put(put) => vec![&put.value],
            Action::Txn(txn) => txn
                .then
                .iter()
                .chain(&txn.otherwise)
                .filter(|request| of(request))
                .map(|request| match request {
                    Request::Put(put) => put.value.as_str(),
                    _ => unreachable!("only puts are left"),
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Clients that are never answered still put no value twice, and no transaction is malformed.
    #[test]
    fn no_value_is_put_twice() {
        for name in NAMES {
            let workload = by_name(name).expect("a name of the list");
            let numbers = Numbers::default();
            let mut put = HashSet::new();
            for client in 0..4 {
                let mut rng = StdRng::seed_from_u64(u64::from(client));
                let mut script = workload.script(client);
                for at in 0..500 {
                    let elapsed = Duration::from_millis(at * 40);
                    let mut world = World::new(&mut rng, 100, elapsed, &numbers);
                    if let Step::Ask(action) = script.next(&mut world) {
                        for value in values(&action) {
                            assert!(put.insert(value.to_owned()), "{name} puts {value} twice: {action:?}");
                        }
                        let outcome = Outcome::Unknown("no answer".to_owned());
                        let (invoked, returned) = (at, at + 1);
                        let operation = Operation { client, member: 0, invoked, returned, action, outcome };
                        script.heard(&operation);
                    }
                }
            }
        }
    }

    /// The same seed asks for the same, as long as the answers are the same.
    #[test]
    fn chance_comes_from_the_seed() {
        for name in NAMES {
            let steps = || {
                let workload = by_name(name).expect("a name of the list");
                let (mut rng, numbers) = (StdRng::seed_from_u64(7), Numbers::default());
                let mut script = workload.script(1);
                let step =
                    |at| script.next(&mut World::new(&mut rng, 100, Duration::from_millis(at), &numbers));
                (0..200).map(step).collect::<Vec<Step>>()
            };
            assert_eq!(steps(), steps(), "{name}");
        }
    }
}
