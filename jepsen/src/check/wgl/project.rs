//! The part of a history that one key sees.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use crate::check::model::covers;
use crate::history::{
    Action, Answer, Body, Compare, Delete, History, Keys, Nanos, Operand, Operation, Outcome, Pair, Put,
    Range, Relation, Request, Txn,
};

/// A value of a key, by its number; 0 where the key is not there.
pub type Value = u32;

/// What a state must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    Is(Value),
    Not(Value),
    /// There, and with a value that stands so to this one.
    Stands(Relation, Value),
    All(Vec<Guard>),
    NotAll(Vec<Guard>),
}

/// What an operation may have done to the key.
#[derive(Debug, Clone)]
pub struct Effect {
    pub guard: Guard,
    /// The new value; none where it only looked.
    pub set: Option<Value>,
}

/// An operation as the key sees it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub index: usize,
    pub invoked: Nanos,
    pub returned: Nanos,
    /// The header's revision, only a hint.
    pub revision: i64,
    /// One of an answered operation; of another, each that it may have had.
    pub effects: Vec<Effect>,
}

/// A key and its operations, each list in order of invocation.
#[derive(Debug, Default)]
pub struct Part {
    pub key: String,
    pub answered: Vec<Entry>,
    pub unheard: Vec<Entry>,
    /// Values that were put with a lease, so that they may end on their own.
    pub leased: HashSet<Value>,
    values: Vec<String>,
    numbers: HashMap<String, Value>,
    /// Which value a revision names; none where answers disagree.
    names: HashMap<i64, Option<Value>>,
}

/// How many single keys reads of many keys are taken apart into.
const PIECES_MAX: usize = 1_000_000;

impl Part {
    /// The value of a number.
    pub fn value(&self, value: Value) -> Option<&str> {
        (value > 0).then(|| self.values[value as usize - 1].as_str())
    }

    pub fn fits(&self, guard: &Guard, state: Value) -> bool {
        match guard {
            Guard::Is(value) => state == *value,
            Guard::Not(value) => state != *value,
            Guard::Stands(relation, value) => match (self.value(state), self.value(*value)) {
                (Some(own), Some(other)) => match relation {
                    Relation::Equal => own == other,
                    Relation::NotEqual => own != other,
                    Relation::Greater => own > other,
                    Relation::Less => own < other,
                },
                _ => false,
            },
            Guard::All(guards) => guards.iter().all(|guard| self.fits(guard, state)),
            Guard::NotAll(guards) => !guards.iter().all(|guard| self.fits(guard, state)),
        }
    }

    fn number(&mut self, value: &str) -> Value {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        self.values.push(value.into());
        let number = self.values.len() as Value;
        self.numbers.insert(value.into(), number);
        number
    }

    fn name(&mut self, revision: i64, value: &str) {
        let value = self.number(value);
        let named = self.names.entry(revision).or_insert(Some(value));
        if *named != Some(value) {
            *named = None;
        }
    }

    /// What a compare asks of the state, and whether that is all it asks.
    fn guard(&mut self, compare: &Compare) -> (Guard, bool) {
        let any = || Guard::All(Vec::new());
        let (there, absent) = (Guard::Not(0), Guard::Is(0));
        let number = match &compare.operand {
            Operand::Value(value) => {
                let value = self.number(value);
                return (Guard::Stands(compare.relation, value), true);
            }
            Operand::Modified(number) if *number > 0 => {
                return match (self.names.get(number).copied().flatten(), compare.relation) {
                    (Some(value), Relation::Equal) => (Guard::Is(value), true),
                    (Some(value), Relation::NotEqual) => (Guard::Not(value), true),
                    _ => (any(), false),
                };
            }
            Operand::Modified(number) | Operand::Created(number) | Operand::Version(number) => *number,
            Operand::Lease(_) => return (any(), false),
        };
        match (compare.relation, number) {
            (Relation::Equal, 0) => (absent, true),
            (Relation::NotEqual | Relation::Greater, 0) => (there, true),
            (Relation::Equal, _) => (there, false),
            _ => (any(), false),
        }
    }
}

/// Every key's part, and how many reads of many keys were left out.
pub fn project(history: &History) -> (BTreeMap<String, Part>, usize) {
    let mut parts = BTreeMap::new();
    for operation in &history.operations {
        let mut add = |put: &Put| {
            let part: &mut Part = parts.entry(put.key.clone()).or_default();
            part.key.clone_from(&put.key);
            if put.lease != 0 {
                let value = part.number(&put.value);
                part.leased.insert(value);
            }
        };
        match &operation.action {
            Action::Put(put) => add(put),
            Action::Txn(txn) => txn.then.iter().chain(&txn.otherwise).for_each(|request| {
                if let Request::Put(put) = request {
                    add(put);
                }
            }),
            _ => {}
        }
    }
    for operation in &history.operations {
        if let Outcome::Done(answer) = &operation.outcome {
            name_values(&mut parts, &operation.action, answer);
        }
    }
    let (mut pieces, mut skipped) = (0, 0);
    for (index, operation) in history.operations.iter().enumerate() {
        for key in keys_of(&parts, operation, &mut pieces, &mut skipped) {
            let Some(part) = parts.get_mut(&key) else { continue };
            part.add(index, operation);
        }
    }
    for part in parts.values_mut() {
        part.answered.sort_by_key(|entry| entry.invoked);
        part.unheard.sort_by_key(|entry| entry.invoked);
    }
    (parts, skipped)
}

fn name_values(parts: &mut BTreeMap<String, Part>, action: &Action, answer: &Answer) {
    let mut name = |key: &str, revision: i64, value: &str| {
        if let Some(part) = parts.get_mut(key) {
            part.name(revision, value);
        }
    };
    let mut visit = |body: &Body| {
        let pairs = match body {
            Body::Range { pairs, .. } | Body::Delete { previous: pairs, .. } => pairs.as_slice(),
            Body::Put { previous } => previous.as_slice(),
            _ => &[],
        };
        for Pair { key, modified, value, .. } in pairs {
            name(key, *modified, value);
        }
    };
    match &answer.body {
        Body::Txn { answers, .. } => answers.iter().for_each(&mut visit),
        body => visit(body),
    }
    match (action, &answer.body) {
        (Action::Put(put), _) => name(&put.key, answer.revision, &put.value),
        (Action::Txn(txn), Body::Txn { succeeded, .. }) => {
            for request in if *succeeded { &txn.then } else { &txn.otherwise } {
                if let Request::Put(put) = request {
                    name(&put.key, answer.revision, &put.value);
                }
            }
        }
        _ => {}
    }
}

/// The keys an operation reads, compares or writes.
fn keys_of(
    parts: &BTreeMap<String, Part>,
    operation: &Operation,
    pieces: &mut usize,
    skipped: &mut usize,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |keys: &Keys, only_read: bool| {
        if keys.end.is_empty() {
            found.push(keys.key.clone());
            return;
        }
        let from = (Bound::Included(keys.key.as_str()), Bound::Unbounded);
        let among = parts.range::<str, _>(from).map(|(key, _)| key).take_while(|key| covers(keys, key));
        if only_read && *pieces > PIECES_MAX {
            *skipped += 1;
            return;
        }
        let before = found.len();
        found.extend(among.cloned());
        *pieces += found.len() - before;
    };
    match &operation.action {
        Action::Range(range) if !range.serializable && range.revision == 0 => add(&range.keys, true),
        Action::Put(put) => found.push(put.key.clone()),
        Action::Delete(delete) => add(&delete.keys, false),
        Action::Txn(txn) if super::super::linearizable::is_linearizable(&operation.action) => {
            for request in txn.then.iter().chain(&txn.otherwise) {
                match request {
                    Request::Range(range) if range.revision == 0 => add(&range.keys, true),
                    Request::Range(_) => {}
                    Request::Put(put) => add(&Keys { key: put.key.clone(), end: String::new() }, false),
                    Request::Delete(delete) => add(&delete.keys, false),
                }
            }
            found.extend(txn.compares.iter().map(|compare| compare.key.clone()));
        }
        _ => {}
    }
    found.sort_unstable();
    found.dedup();
    found
}

impl Part {
    fn add(&mut self, index: usize, operation: &Operation) {
        let Operation { invoked, returned, .. } = *operation;
        match &operation.outcome {
            Outcome::Refused(_) => {}
            Outcome::Done(answer) => {
                let effect = match (&operation.action, &answer.body) {
                    (Action::Txn(txn), Body::Txn { succeeded, answers }) => {
                        self.branch(txn, *succeeded, Some(answers))
                    }
                    (Action::Range(range), body) => {
                        self.requests([Ask::Range(range)], Some(std::slice::from_ref(body)))
                    }
                    (Action::Put(put), body) => {
                        self.requests([Ask::Put(put)], Some(std::slice::from_ref(body)))
                    }
                    (Action::Delete(delete), body) => {
                        self.requests([Ask::Delete(delete)], Some(std::slice::from_ref(body)))
                    }
                    _ => return,
                };
                let revision = answer.revision;
                self.answered.push(Entry { index, invoked, returned, revision, effects: vec![effect] });
            }
            Outcome::Unknown(_) => {
                let mut effects = match &operation.action {
                    Action::Txn(txn) => vec![self.branch(txn, true, None), self.branch(txn, false, None)],
                    Action::Put(put) => vec![self.requests([Ask::Put(put)], None)],
                    Action::Delete(delete) => vec![self.requests([Ask::Delete(delete)], None)],
                    _ => return,
                };
                effects.retain(|effect| effect.set.is_some());
                if !effects.is_empty() {
                    self.unheard.push(Entry { index, invoked, returned: Nanos::MAX, revision: 0, effects });
                }
            }
        }
    }

    fn branch(&mut self, txn: &Txn, succeeded: bool, answers: Option<&[Body]>) -> Effect {
        let key = self.key.clone();
        let compares: Vec<(Guard, bool)> = txn
            .compares
            .iter()
            .filter(|compare| compare.key == key)
            .map(|compare| self.guard(compare))
            .collect();
        let exact = compares.len() == txn.compares.len() && compares.iter().all(|(_, exact)| *exact);
        let guards = compares.into_iter().map(|(guard, _)| guard).collect();
        let taken = match (succeeded, exact) {
            (true, _) => Guard::All(guards),
            (false, true) => Guard::NotAll(guards),
            (false, false) => Guard::All(Vec::new()),
        };
        let requests = if succeeded { &txn.then } else { &txn.otherwise };
        let asks = requests.iter().map(|request| match request {
            Request::Range(range) => Ask::Range(range),
            Request::Put(put) => Ask::Put(put),
            Request::Delete(delete) => Ask::Delete(delete),
        });
        let mut effect = self.requests(asks, answers);
        effect.guard = Guard::All(vec![taken, effect.guard]);
        effect
    }

    /// What some requests, one after another, say of the key before them, and make of it.
    fn requests<'a>(&mut self, asks: impl IntoIterator<Item = Ask<'a>>, answers: Option<&[Body]>) -> Effect {
        let mut guards = Vec::new();
        let mut set = None;
        for (at, ask) in asks.into_iter().enumerate() {
            let body = answers.and_then(|answers| answers.get(at));
            let found = body.and_then(|body| self.found(&ask, body));
            match (found, set) {
                // After a write of its own, what it finds must be that.
                (Some(found), Some(own)) => {
                    if !self.fits(&found, own) {
                        guards.push(Guard::NotAll(Vec::new()));
                    }
                }
                (Some(found), None) => guards.push(found),
                (None, _) => {}
            }
            match ask {
                Ask::Put(put) if put.key == self.key => set = Some(self.number(&put.value)),
                Ask::Delete(delete) if covers(&delete.keys, &self.key) => set = Some(0),
                _ => {}
            }
        }
        Effect { guard: Guard::All(guards), set }
    }

    /// What an answer says of the key.
    fn found(&mut self, ask: &Ask<'_>, body: &Body) -> Option<Guard> {
        let key = self.key.clone();
        let mut among = |pairs: &[Pair]| {
            // Pairs are in key order; one that is not where it belongs is as good as not there.
            let found = pairs.binary_search_by(|pair| pair.key.as_str().cmp(&key));
            Guard::Is(found.map_or(0, |at| self.number(&pairs[at].value)))
        };
        match (ask, body) {
            (Ask::Range(range), Body::Range { pairs, more, .. }) => {
                let cut = *more && pairs.last().is_none_or(|last| last.key < key);
                (range.revision == 0 && covers(&range.keys, &key) && !cut).then(|| among(pairs))
            }
            (Ask::Put(put), Body::Put { previous }) => {
                (put.previous && put.key == key).then(|| among(previous.as_slice()))
            }
            (Ask::Delete(delete), Body::Delete { deleted, previous }) if covers(&delete.keys, &key) => {
                match (deleted, delete.previous, delete.keys.end.is_empty()) {
                    (0, ..) => Some(Guard::Is(0)),
                    (_, true, true) => Some(Guard::All(vec![Guard::Not(0), among(previous)])),
                    (_, true, false) => Some(among(previous)),
                    (_, false, true) => Some(Guard::Not(0)),
                    (_, false, false) => None,
                }
            }
            _ => None,
        }
    }
}

/// One request, whether alone or in a transaction.
enum Ask<'a> {
    Range(&'a Range),
    Put(&'a Put),
    Delete(&'a Delete),
}
