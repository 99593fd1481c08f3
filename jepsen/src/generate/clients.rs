//! What clients of each workload ask next, from what they heard.

use std::collections::HashMap;

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Plan, Workload};
use crate::history::{
    Action, Body, Compare, Delete, Keys, Operand, Outcome, Pair, Put, Range, Relation, Request, Txn,
};

/// What one client remembers.
#[derive(Debug, Default)]
pub struct Client {
    /// As last read.
    pairs: HashMap<String, Option<Pair>>,
    revision: i64,
    lease: Option<i64>,
    turn: u64,
}

impl Client {
    /// The next action; `index` is unique in the run.
    pub fn choose(&mut self, plan: &Plan, random: &mut StdRng, client: usize, index: usize) -> Action {
        self.turn += 1;
        let key = format!("k{:03}", random.random_range(0..plan.keys));
        let unique = (index + 1).to_string();
        match plan.workload {
            Workload::Register => self.register(random, key, unique),
            Workload::Append => self.append(plan, random, key, index),
            Workload::Set => set(random, index, unique),
            Workload::Lock => self.lock(random, key, client, index),
            Workload::Mix => self.mix(plan, random, key, unique, index),
        }
    }

    /// Takes notice of an answer.
    pub fn learn(&mut self, action: &Action, outcome: &Outcome) {
        let Outcome::Done(answer) = outcome else {
            return self.pairs.clear();
        };
        self.revision = self.revision.max(answer.revision);
        let bodies = match &answer.body {
            Body::Txn { answers, .. } => answers.as_slice(),
            body => std::slice::from_ref(body),
        };
        let requests = match action {
            Action::Range(range) => vec![Request::Range(range.clone())],
            Action::Txn(txn) => match &answer.body {
                Body::Txn { succeeded: true, .. } => txn.then.clone(),
                _ => txn.otherwise.clone(),
            },
            _ => Vec::new(),
        };
        for (request, body) in requests.iter().zip(bodies) {
            if let (Request::Range(range), Body::Range { pairs, .. }) = (request, body) {
                if range.keys.end.is_empty() {
                    self.pairs.insert(range.keys.key.clone(), pairs.first().cloned());
                }
                for pair in pairs {
                    self.pairs.insert(pair.key.clone(), Some(pair.clone()));
                }
            }
        }
        match (action, &answer.body) {
            (Action::LeaseGrant { id, .. }, _) => self.lease = Some(*id),
            (Action::LeaseRevoke { .. }, _)
            | (Action::LeaseKeepAlive { .. }, Body::Lease { ttl: ..=0, .. }) => {
                self.lease = None;
            }
            _ => {}
        }
    }

    fn modified(&self, key: &str) -> i64 {
        self.pairs.get(key).and_then(Option::as_ref).map_or(0, |pair| pair.modified)
    }

    fn register(&self, random: &mut StdRng, key: String, value: String) -> Action {
        match random.random_range(0..10) {
            0..=3 => Action::Range(Range { keys: one(&key), ..Range::default() }),
            4..=5 => Action::Put(Put { key, value, lease: 0, previous: random.random() }),
            6 => Action::Delete(Delete { keys: one(&key), previous: random.random() }),
            7 => self.swap_value(key, value),
            _ => self.swap(key, value),
        }
    }

    /// Put if nobody changed it since.
    fn swap(&self, key: String, value: String) -> Action {
        let operand = Operand::Modified(self.modified(&key));
        let compare = Compare { key: key.clone(), relation: Relation::Equal, operand };
        let otherwise = vec![Request::Range(Range { keys: one(&key), ..Range::default() })];
        let then = vec![Request::Put(Put { key, value, ..Put::default() })];
        Action::Txn(Txn { compares: vec![compare], then, otherwise })
    }

    /// Put if the value is the one read.
    fn swap_value(&self, key: String, value: String) -> Action {
        let before = self.pairs.get(&key).and_then(Option::as_ref).map_or("", |pair| pair.value.as_str());
        let compare =
            Compare { key: key.clone(), relation: Relation::Equal, operand: Operand::Value(before.into()) };
        let then = vec![Request::Put(Put { key, value, ..Put::default() })];
        Action::Txn(Txn { compares: vec![compare], then, otherwise: Vec::new() })
    }

    fn append(&self, plan: &Plan, random: &mut StdRng, key: String, index: usize) -> Action {
        let second = format!("k{:03}", random.random_range(0..plan.keys));
        let mut keys = vec![key];
        if keys[0] != second && random.random() {
            keys.push(second);
        }
        if random.random_range(0..2) == 0 || keys.iter().any(|key| !self.pairs.contains_key(key)) {
            if random.random_range(0..4) == 0 {
                let several = Keys { end: format!("{}~", &keys[0][..3]), key: keys[0].clone() };
                return Action::Range(Range { keys: several, ..Range::default() });
            }
            let read = |key: &String| Request::Range(Range { keys: one(key), ..Range::default() });
            return match keys.as_slice() {
                [key] => Action::Range(Range { keys: one(key), ..Range::default() }),
                keys => Action::Txn(Txn { then: keys.iter().map(read).collect(), ..Txn::default() }),
            };
        }
        let mut txn = Txn::default();
        for (at, key) in keys.iter().enumerate() {
            let operand = Operand::Modified(self.modified(key));
            txn.compares.push(Compare { key: key.clone(), relation: Relation::Equal, operand });
            let list = self.pairs.get(key).and_then(Option::as_ref).map(|pair| format!("{},", pair.value));
            let value = format!("{}{}", list.unwrap_or_default(), 2 * index + at + 1);
            txn.then.push(Request::Put(Put { key: key.clone(), value, ..Put::default() }));
            txn.otherwise.push(Request::Range(Range { keys: one(key), ..Range::default() }));
        }
        Action::Txn(txn)
    }

    fn lock(&self, random: &mut StdRng, key: String, client: usize, index: usize) -> Action {
        let Some(lease) = self.lease else {
            return Action::LeaseGrant { id: index as i64 + 1, ttl: random.random_range(1..3) };
        };
        match random.random_range(0..12) {
            0..=4 => {
                let operand = Operand::Created(0);
                let compare = Compare { key: key.clone(), relation: Relation::Equal, operand };
                let value = format!("{client}-{index}");
                let then = vec![Request::Put(Put { key, value, lease, previous: false })];
                Action::Txn(Txn { compares: vec![compare], then, otherwise: Vec::new() })
            }
            5..=7 => Action::LeaseKeepAlive { id: lease },
            8 => Action::LeaseTimeToLive { id: lease },
            9 => Action::LeaseRevoke { id: lease },
            10 => Action::LeaseGrant { id: index as i64 + 1, ttl: random.random_range(1..3) },
            _ => Action::Range(Range { keys: Keys { key: "k".into(), end: "l".into() }, ..Range::default() }),
        }
    }

    fn mix(&self, plan: &Plan, random: &mut StdRng, key: String, value: String, index: usize) -> Action {
        let until = format!("k{:03}", random.random_range(0..plan.keys + 1));
        let some = Keys { key: key.clone(), end: until };
        let lease = self.lease.filter(|_| random.random_range(0..4) == 0).unwrap_or(0);
        match random.random_range(0..100) {
            0..=24 => Action::Put(Put { key, value, lease, previous: random.random() }),
            25..=39 => self.register(random, key, value),
            40..=54 => {
                let keys = if random.random() { some } else { Keys { key: "\0".into(), end: "\0".into() } };
                let back = random.random_range(0..10);
                let revision = if random.random_range(0..4) == 0 { (self.revision - back).max(0) } else { 0 };
                let limit = if random.random_range(0..3) == 0 { random.random_range(1..4) } else { 0 };
                Action::Range(Range { keys, revision, limit, serializable: random.random_range(0..3) == 0 })
            }
            55..=58 => Action::Delete(Delete { keys: some, previous: random.random() }),
            59..=62 => Action::Delete(Delete { keys: one(&key), previous: false }),
            63..=72 => self.swap(key, value),
            73..=90 => self.transaction(plan, random, value),
            91..=97 if !plan.leases => self.swap_value(key, value),
            91..=93 => Action::LeaseGrant { id: index as i64 + 1, ttl: random.random_range(1..3) },
            94..=95 => Action::LeaseKeepAlive { id: self.lease.unwrap_or(77) },
            96 => Action::LeaseTimeToLive { id: self.lease.unwrap_or(77) },
            97 => Action::LeaseRevoke { id: self.lease.unwrap_or(77) },
            _ => Action::Compact { revision: (self.revision - random.random_range(0..30)).max(1) },
        }
    }

    fn transaction(&self, plan: &Plan, random: &mut StdRng, value: String) -> Action {
        let mut txn = Txn::default();
        for _ in 0..random.random_range(0..3) {
            let key = format!("k{:03}", random.random_range(0..plan.keys));
            let operand = match random.random_range(0..5) {
                0 => Operand::Value(random.random_range(1..300).to_string()),
                1 => Operand::Modified(self.modified(&key)),
                2 => Operand::Created(0),
                3 => Operand::Version(random.random_range(0..3)),
                _ => Operand::Lease(0),
            };
            let relation = match random.random_range(0..4) {
                0 | 1 => Relation::Equal,
                2 => Relation::NotEqual,
                _ => Relation::Greater,
            };
            txn.compares.push(Compare { key, relation, operand });
        }
        for (name, list) in [("t", &mut txn.then), ("o", &mut txn.otherwise)] {
            // Each key in one request, so that no list asks twice for the same change.
            for number in 0..plan.keys.min(8) {
                let key = format!("k{number:03}");
                match random.random_range(0..8) {
                    0 | 1 => {
                        let value = format!("{value}{name}{number}");
                        list.push(Request::Put(Put { key, value, lease: 0, previous: random.random() }));
                    }
                    2 => list.push(Request::Delete(Delete { keys: one(&key), previous: random.random() })),
                    3 => {
                        let keys = Keys { key: "k".into(), end: "l".into() };
                        list.push(Request::Range(Range {
                            keys,
                            limit: random.random_range(0..3),
                            ..Range::default()
                        }));
                    }
                    _ => {}
                }
            }
        }
        Action::Txn(txn)
    }
}

fn set(random: &mut StdRng, index: usize, value: String) -> Action {
    match random.random_range(0..20) {
        0 => Action::Range(Range { keys: Keys { key: "s".into(), end: "t".into() }, ..Range::default() }),
        _ => Action::Put(Put { key: format!("s{index:07}"), value, ..Put::default() }),
    }
}

fn one(key: &str) -> Keys {
    Keys { key: key.into(), end: String::new() }
}
